"""text_floors: what one gets from the frequencies of tokens, and of pairs of them."""

import math
from dataclasses import dataclass

import numpy as np

from skipless.data.text import TextSplit
from skipless.display import Record, Table
from skipless.evaluators.language.held_out import document_range

MOST = 20_000_000
"""Training tokens that are counted at most: pairs are sorted in memory, 8 bytes each."""


@dataclass(frozen=True, eq=False, repr=False)
class TextFloors(Record):
    """Losses on held-out text of models that count tokens in the training text; a model that learns gets below them.

    Attributes:
        entropy: entropy of the held-out tokens' own frequencies, in nats. No model of single tokens is better.
        unigram: cross-entropy of the training text's frequencies, in nats a token, ends of documents included. One is
            added to each count.
        bigram: the same given the token before. Pairs are smoothed after Witten and Bell (1991): where c(a) tokens of
            T(a) kinds have followed a, P(b | a) = (c(a b) + T(a) P(b)) / (c(a) + T(a)), which has nothing to tune.
        unigram_bits: bits per byte of `unigram`, of the documents' own tokens.
        bigram_bits: bits per byte of `bigram`.
        tokens: held-out tokens that are predicted.
        train_tokens: training tokens that were counted.
    """

    entropy: float
    unigram: float
    bigram: float
    unigram_bits: float
    bigram_bits: float
    tokens: int
    train_tokens: int

    def _summary(self) -> str:
        return (
            f"unigram {self.unigram_bits:.4g}, bigram {self.bigram_bits:.4g} bits per byte, "
            f"counted in {self.train_tokens:,} tokens"
        )

    def tables(self) -> tuple[Table, ...]:
        """A row for each floor."""
        rows = [
            ("unigram", f"{self.unigram:.4f}", f"{self.unigram_bits:.4f}"),
            ("bigram", f"{self.bigram:.4f}", f"{self.bigram_bits:.4f}"),
        ]
        caption = (
            f"{self.tokens:,} held-out tokens, counts of {self.train_tokens:,} training tokens; add one, Witten-Bell; "
            f"the held-out tokens' own entropy is {self.entropy:.4f} nats"
        )
        return (Table(("floor", "nats a token", "bits per byte"), rows, caption, align="lrr"),)


def text_floors(
    train: TextSplit, val: TextSplit, *, vocabulary: int, most: int = MOST, held_out: int | None = None
) -> TextFloors:
    """Count tokens and pairs in a training split, and predict a held-out one by them.

    Args:
        train: the first `most` of its tokens are counted.
        val: what is predicted.
        vocabulary: number of ids.
        most: training tokens at most.
        held_out: tokens of `val` after which no further document is begun, as `most` of `score_text`.

    Example:
        >>> from skipless.data import TextConfig, load_text
        >>> data = load_text(TextConfig("pydoc"))
        >>> floors = text_floors(data.train, data.val, vocabulary=data.vocabulary)
        >>> floors.bigram < floors.entropy < floors.unigram
        True
    """
    known = np.asarray(train.ids[:most], dtype=np.int64)
    _, documents = document_range(val, held_out)
    held = np.asarray(val.ids[: val.starts[documents]], dtype=np.int64)
    size = int(val.byte_counts[:documents].sum())
    single = (np.bincount(known[1:], minlength=vocabulary) + 1) / (len(known) - 1 + vocabulary)
    before, wanted = held[:-1], held[1:]
    alone = single[wanted]
    pairs, times = np.unique(known[:-1] * vocabulary + known[1:], return_counts=True)
    followed = np.bincount(known[:-1], minlength=vocabulary)
    kinds = np.bincount(pairs // vocabulary, minlength=vocabulary)
    asked = before * vocabulary + wanted
    place = np.minimum(np.searchsorted(pairs, asked), len(pairs) - 1)
    seen = np.where(pairs[place] == asked, times[place], 0)
    of_pairs = followed[before] + kinds[before]
    paired = np.where(of_pairs > 0, (seen + kinds[before] * alone) / np.maximum(of_pairs, 1), alone)
    text = wanted != held[0]
    own = np.bincount(wanted) / len(wanted)
    return TextFloors(
        entropy=float(-(own[own > 0] * np.log(own[own > 0])).sum()),
        unigram=float(-np.log(alone).mean()),
        bigram=float(-np.log(paired).mean()),
        unigram_bits=float(-np.log(alone[text]).sum()) / math.log(2) / size,
        bigram_bits=float(-np.log(paired[text]).sum()) / math.log(2) / size,
        tokens=len(wanted),
        train_tokens=len(known) - 1,
    )
