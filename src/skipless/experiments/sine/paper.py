"""What the two papers print: fine-tuned language models and CLIP, not our models."""

from typing import NamedTuple


class Printed(NamedTuple):
    """A line of what a paper prints.

    Attributes:
        setting: model, data and what is measured.
        rank: of the adapters; empty where it is not known here.
        bits: of A and B.
        plain: without the sine.
        sine: with it.
        source: the paper.
    """

    setting: str
    rank: str
    bits: str
    plain: str
    sine: str
    source: str


_FIRST = "arXiv 2403.19243"
_SECOND = "arXiv 2505.21895"
_LLAMA = "LLaMA-3-8B, mean of 8 commonsense tasks, %"

PRINTED: tuple[Printed, ...] = (
    Printed(f"{_LLAMA}: LoRA", "4", "full", "80.0", "83.6", _FIRST),
    Printed(f"{_LLAMA}: LoRA", "8", "full", "80.8", "83.7", _FIRST),
    Printed(f"{_LLAMA}: LoRA", "16", "full", "82.9", "84.4", _FIRST),
    Printed(f"{_LLAMA}: LoRA", "32", "full", "80.8", "83.6", _FIRST),
    Printed(f"{_LLAMA}: DoRA", "8", "full", "83.8", "85.2", _FIRST),
    Printed(f"{_LLAMA}: DoRA", "16", "full", "85.0", "85.3", _FIRST),
    Printed(f"{_LLAMA}: DoRA", "32", "full", "85.2", "85.3", _FIRST),
    Printed("LLaMA-3-8B, commonsense tasks, %: LoRA", "", "2", "71.0", "73.7", _SECOND),
    Printed("CLIP, %: LoRA", "", "3", "74.1", "74.2", _SECOND),
)
"""Published numbers. The first paper's LoRA of rank 8 has one task at 72.2 where other runs have 94."""
