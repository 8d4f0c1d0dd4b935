"""score_text: how well a model predicts held-out text, in nats a token and in bits per byte."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from skipless.data.text import TextSplit
from skipless.display import Record, Table
from skipless.display.axes import ruled
from skipless.display.drawing import COLOURS
from skipless.errors import InputError
from skipless.models.logits import next_token_logits

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class TextScore(Record):
    """How well a model predicts some documents.

    Attributes:
        loss: mean cross-entropy in nats of all predicted tokens, ends of documents among them, as in training.
        bits_per_byte: cross-entropy of the documents' own tokens, in bits, by the bytes of their text. It can be
            compared between tokenizers. Ends of documents have no bytes, and do not count.
        tokens: number of predicted tokens.
        bytes: bytes of the text.
        documents: number of documents.
        context: tokens that the model sees at most.
        stride: tokens between the beginnings of two windows.
        by_position: mean loss in nats by the number of tokens before the predicted one, less one; None where no window
            has counted any.
    """

    loss: float
    bits_per_byte: float
    tokens: int
    bytes: int
    documents: int
    context: int
    stride: int
    by_position: tuple[float | None, ...] = field(repr=False)

    @property
    def perplexity(self) -> float:
        """exp(loss), infinite where that is larger than any number."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    def _summary(self) -> str:
        return f"{self.bits_per_byte:.4g} bits per byte, {self.loss:.4g} nats a token, n = {self.tokens:,} tokens"

    def tables(self) -> tuple[Table, ...]:
        """The score, and the loss by position in doubling ranges."""
        rows = [
            ("bits per byte", f"{self.bits_per_byte:.4f}"),
            ("loss, nats a token", f"{self.loss:.4f}"),
            ("perplexity", f"{self.perplexity:.4g}"),
        ]
        how = "windows side by side" if self.stride == self.context else f"a window every {self.stride} tokens"
        size = f"{self.tokens:,} tokens and {self.bytes:,} bytes of {self.documents:,} documents"
        caption = f"{size}; context {self.context}, {how}"
        ranges = [
            (str(high) if high - low == 1 else f"{low + 1} to {high}", f"{value:.4f}")
            for low, high, value in self.ranges()
        ]
        positions = Table(("tokens before it", "loss, nats"), ranges, "mean over the positions of a window", align="lr")
        return (Table(("held-out text", "value"), rows, caption, align="lr"), positions)

    def ranges(self) -> list[tuple[int, int, float]]:
        """Mean loss of ranges of positions, as (first, one behind the last, nats); each is as long as all before it."""
        edges = [0, *(2**i for i in range(len(self.by_position).bit_length())), len(self.by_position)]
        edges = sorted({edge for edge in edges if edge <= len(self.by_position)})
        found = []
        for low, high in pairwise(edges):
            values = [value for value in self.by_position[low:high] if value is not None]
            if values:
                found.append((low, high, math.fsum(values) / len(values)))
        return found

    def _draw(self, axes: "Axes") -> None:
        known = [math.nan if value is None else value for value in self.by_position]
        axes.plot(range(1, len(known) + 1), known, color=COLOURS["init"], linewidth=1.2, marker="o", markersize=2)
        axes.set_xscale("log", base=2)
        axes.set_xlabel("tokens before the predicted one", loc="right", labelpad=2)
        axes.set_ylabel("loss, nats")
        ruled(axes)


def score_text(
    model: nn.Module,
    split: TextSplit,
    *,
    context: int,
    stride: int | None = None,
    batch_size: int = 16,
    most: int | None = None,
    after: int = 0,
) -> TextScore:
    """Measure how well a model predicts the documents of a split, each token once.

    Windows follow each other through the stream of documents. With `stride` equal to the context they lie side by side,
    as in training, and the first tokens of each have little before them. With a smaller one they overlap, and a window
    counts its last `stride` tokens only: every token has at least `context - stride` before it, at a cost of
    context / stride.

    In a distributed run the processes share the windows, and each gets the result of all.

    Args:
        model: maps ids to logits, or to an object with `logits`. It is evaluated on its parameters' device, and its
            training mode is restored.
        split: prepared text.
        context: tokens that the model sees at most.
        stride: tokens between the beginnings of two windows; None is the context.
        batch_size: windows at once, on each process.
        most: tokens after which no further document is begun; None takes all of them.
        after: tokens within which no document is begun, to measure on other text than one of `most` tokens did.

    Raises:
        InputError: if the stride does not fit, or no document is left.

    Example:
        >>> from skipless.data import TextConfig, load_text
        >>> val = load_text(TextConfig("pydoc")).val
        >>> score_text(nn.Embedding(257, 257), val, context=64, most=1000).loss > 5
        True
    """
    stride = context if stride is None else stride
    if not 1 <= stride <= context:
        raise InputError(f"stride {stride}: give 1 to the context, {context}")
    first, last = document_range(split, most, after)
    ids = split.ids[split.starts[first] - 1 : split.starts[last]]  # from the end of the document before the first
    size = int(split.byte_counts[first:last].sum())
    sums, counts, of_ends = _sums(model, ids, context, stride, batch_size)
    total, n = sums.sum(), int(counts.sum())
    means = (sums / counts).tolist()
    return TextScore(
        loss=float(total) / n,
        bits_per_byte=float(total - of_ends) / math.log(2) / size,
        tokens=n,
        bytes=size,
        documents=last - first,
        context=context,
        stride=stride,
        by_position=tuple(mean if math.isfinite(mean) else None for mean in means),
    )


def document_range(split: TextSplit, most: int | None = None, after: int = 0) -> tuple[int, int]:
    """Which documents are begun behind the first `after` tokens of a split, and within the `most` next of them.

    Returns:
        The number of the first of these documents, and of the one behind the last: at least one lies between.

    Raises:
        InputError: if none is left.
    """
    documents = len(split.byte_counts)
    first = int(np.searchsorted(split.starts, after)) if after else 0
    if first >= documents:
        raise InputError(f"after {after:,} tokens no document begins: the held-out text has {split.tokens:,} of them")
    if most is None:
        return first, documents
    until = most + (int(split.starts[first]) - 1 if after else 0)
    return first, min(max(int(np.searchsorted(split.starts, until)), first + 1), documents)


@torch.inference_mode()
def _sums(
    model: nn.Module, ids: np.ndarray, context: int, stride: int, batch_size: int
) -> tuple[Float[Tensor, " t"], Float[Tensor, " t"], float]:
    """Summed loss and number of tokens by position, and the summed loss of ends of documents."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    length, end = len(ids), int(ids[0])
    sums, counts = torch.zeros(2, context, dtype=torch.float64)
    of_ends = torch.zeros((), dtype=torch.float64)
    training = model.training
    model.eval()
    try:
        for windows, counted in _windows(ids, length, context, stride, batch_size):
            inputs, targets = windows[:, :-1].to(device), windows[:, 1:]
            losses = _losses(next_token_logits(model, inputs), targets.to(device)).cpu().double() * counted
            sums += losses.sum(0)
            counts += counted.sum(0)
            of_ends += losses[targets == end].sum()
    finally:
        model.train(training)
    if dist.is_available() and dist.is_initialized():
        stacked = torch.cat([sums, counts, of_ends[None]]).to(device)
        dist.all_reduce(stacked)
        sums, counts, of_ends = stacked.cpu().split([context, context, 1])
    return sums, counts, float(of_ends)


def _windows(
    ids: np.ndarray, length: int, context: int, stride: int, batch_size: int
) -> Iterator[tuple[Int64[Tensor, "b t1"], Float[Tensor, "b t"]]]:
    """Windows of this process, and which of their predicted tokens count."""
    rank, processes = (
        (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)
    )
    count = 1 + -(-max(length - 1 - context, 0) // stride)
    numbers = range(rank, count, processes)
    for first in range(0, len(numbers), batch_size):
        chosen = numbers[first : first + batch_size]
        windows = np.zeros((len(chosen), context + 1), dtype=np.int64)
        counted = np.zeros((len(chosen), context))
        for row, number in enumerate(chosen):
            piece = ids[number * stride : min(number * stride + context + 1, length)]
            windows[row, : len(piece)] = piece
            counted[row, context - stride if number else 0 : len(piece) - 1] = 1
        yield torch.from_numpy(windows), torch.from_numpy(counted)


def _losses(logits: Float[Tensor, "b t v"], targets: Int64[Tensor, "b t"]) -> Float[Tensor, "b t"]:
    """Cross-entropies; a window at a time in full precision, since vocabularies are large."""
    kept = logits.dtype == torch.float64
    rows = [
        F.cross_entropy(row if kept else row.float(), wanted, reduction="none")
        for row, wanted in zip(logits, targets, strict=True)
    ]
    return torch.stack(rows)
