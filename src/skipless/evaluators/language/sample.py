"""sample_text: text that a language model writes."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn

from skipless.data.text import Tokenizer
from skipless.display import Record, Table
from skipless.errors import InputError
from skipless.models.logits import next_token_logits


@dataclass(frozen=True, eq=False, repr=False)
class TextSample(Record):
    """Text that a model has written.

    Attributes:
        prompt: what it was given.
        text: what it has written after that.
        ids: tokens of the text; the last may be the end of the document.
        temperature: of the draws; 0 takes the most probable token.
        seed: of the draws.
    """

    prompt: str
    text: str
    ids: tuple[int, ...]
    temperature: float
    seed: int

    def _summary(self) -> str:
        return repr(f"{self.prompt}|{self.text}")

    def tables(self) -> tuple[Table, ...]:
        """The prompt and the text."""
        how = "greedy" if self.temperature == 0 else f"temperature {self.temperature:g}, seed {self.seed}"
        rows = [("prompt", self.prompt or "none"), ("text", self.text or "none")]
        return (Table(("sample", "value"), rows, f"{len(self.ids)} tokens, {how}", align="ll"),)


def sample_text(
    model: nn.Module,
    tokenizer: Tokenizer,
    prompt: str = "",
    *,
    tokens: int = 100,
    context: int,
    temperature: float = 1.0,
    seed: int = 0,
) -> TextSample:
    """Let a model continue a prompt, up to an end of document.

    A model with a method `generate`, as Hugging Face's have, is asked by it, with its cache of keys and values, as long
    as prompt and text fit into the context. Any other model is called once a token, with the last `context` tokens.

    Args:
        model: maps ids to logits, or to an object with `logits`. Its training mode is restored.
        tokenizer: of the model's ids.
        prompt: what is continued; an end of document stands before it, as in training.
        tokens: how many are drawn at most.
        context: tokens that the model sees at most.
        temperature: divides the logits; 0 takes the most probable token.
        seed: of the draws, which are the same on every device of one kind.

    Raises:
        InputError: for a length or a temperature that makes no sense.

    Example:
        >>> from skipless.data.text import ByteTokenizer
        >>> model = nn.Embedding(257, 257)
        >>> _ = nn.init.eye_(model.weight)  # the next token is the last
        >>> sample_text(model, ByteTokenizer(), "ab", tokens=3, context=8, temperature=0).text
        'bbb'
    """
    if tokens < 1 or temperature < 0 or context < 1:
        raise InputError(
            f"{tokens} tokens, context {context}, temperature {temperature:g}: give 1 or more, and 0 or more"
        )
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    start = [tokenizer.end, *tokenizer.encode([prompt])[0].tolist()]
    given, training = torch.tensor([start], device=device), model.training
    model.eval()
    try:
        with torch.inference_mode():
            if callable(getattr(model, "generate", None)) and len(start) + tokens <= context:
                found = _generated(model, given, tokens, temperature, seed, tokenizer.end)
            else:
                found = _drawn(model, given, tokens, context, temperature, seed, tokenizer.end)
    finally:
        model.train(training)
    return TextSample(prompt, tokenizer.decode(found), tuple(found), temperature, seed)


def _drawn(
    model: nn.Module, ids: Int64[Tensor, "1 t"], tokens: int, context: int, temperature: float, seed: int, end: int
) -> list[int]:
    generator = Generator().manual_seed(seed)
    found: list[int] = []
    while len(found) < tokens and end not in found[-1:]:
        logits = next_token_logits(model, ids[:, -context:])[0, -1].float().cpu()
        found.append(_choose(logits, temperature, generator))
        ids = torch.cat([ids, torch.tensor([found[-1:]], device=ids.device)], dim=1)
    return found


def _choose(logits: Float[Tensor, " v"], temperature: float, generator: Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator))


def _generated(
    model: Any, ids: Int64[Tensor, "1 t"], tokens: int, temperature: float, seed: int, end: int
) -> list[int]:
    devices = [ids.device] if ids.device.type == "cuda" else []
    how = (
        {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        if temperature
        else {"do_sample": False}
    )
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        whole = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, eos_token_id=end, pad_token_id=end, **how
        )
    return whole[0, ids.shape[1] :].tolist()
