"""What is kept of a fine-tuned run beside its training: accuracy, stored bytes and ranks, by bits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from skipless.experiments.sine.recipe import AdaptedRecipe
from skipless.frozen import from_json
from skipless.training.run_folder.atomic import read_json

FILE = "adapter.json"
FULL_BITS = 32
"""Bits of an adapter as it was trained."""


@dataclass(frozen=True)
class AtBits:
    """A run whose A and B have entries of so many bits; means are over the linear maps of the blocks.

    Attributes:
        bits: 32 is as trained.
        top1: accuracy on the validation images, in percent.
        parameters: numbers that were trained beside the head's.
        stored_bytes: what these take, codebooks among them; vectors and what is not quantised have 4 bytes an entry.
        size: ||dW||_F / ||W||_F, dW being all that fine-tuning has added to a weight W of the base.
        stable_rank: mean of ||dW||_F^2 / ||dW||_2^2.
        effective_rank: mean of exp(entropy of s / sum(s)), s the singular values of dW.
        phase_std: of a sine, the mean standard deviation of omega B A.
        departure: of a sine, the mean of ||sine - LoRA at alpha'||_F / ||sine||_F.
    """

    bits: int
    top1: float
    parameters: int
    stored_bytes: int
    size: float
    stable_rank: float
    effective_rank: float
    phase_std: float | None = None
    departure: float | None = None


def measured(folder: Path) -> tuple[AtBits, ...]:
    """What was measured of a run, the most bits first; nothing of one that was not."""
    return tuple(from_json(AtBits, one) for one in read_json(folder / FILE) or ())


def asked_bits(recipe: AdaptedRecipe, bits: Sequence[int]) -> tuple[int, ...]:
    """The numbers of bits that a run is measured at: as trained, and where it has an adapter the others."""
    return tuple(sorted({FULL_BITS, *(bits if recipe.adapter.is_adapter else ())}, reverse=True))
