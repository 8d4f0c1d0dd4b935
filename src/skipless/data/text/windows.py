"""TextWindows: windows of a stream of tokens, as the training loop takes its samples."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from skipless.data.loading.loader import BatchKey
from skipless.data.text.prepared import TextSplit
from skipless.display import Record
from skipless.errors import InputError


@dataclass(frozen=True, eq=False, repr=False)
class TextWindows(Record):
    """Windows of `context` tokens and the one after them: each token but the first is predicted once in an epoch.

    A window begins where the one before ends, wherever that is in a document. Attention crosses the borders of
    documents, which an end of document marks. What is left at the end of the stream is dropped.

    Attributes:
        split: the tokens.
        context: tokens that the model sees.

    Raises:
        InputError: if there is not one window.
    """

    split: TextSplit
    context: int

    def __post_init__(self) -> None:
        if len(self) < 1:
            raise InputError(
                f"{str(self.split.folder)!r} has {self.split.tokens:,} tokens, no window of context {self.context} and "
                "the token after it; give a shorter context or more text"
            )

    def _summary(self) -> str:
        return f"{len(self):,} windows of {self.context} tokens"

    @property
    def unit(self) -> str:
        """What a log counts."""
        return "tokens"

    @property
    def units_per_sample(self) -> int:
        """How many of them a sample is."""
        return self.context

    def __len__(self) -> int:
        return max(self.split.tokens - 1, 0) // self.context

    def __getitems__(self, key: BatchKey) -> tuple[Int64[Tensor, "b t"]]:
        """Return windows of `context + 1` ids."""
        ids, context = self.split.ids, self.context
        starts = [index * context for index in key.indices.tolist()]
        windows = np.zeros((len(starts), context + 1), dtype=np.int64)
        for row, start in enumerate(starts):
            windows[row] = ids[start : start + context + 1]
        return (torch.from_numpy(windows),)
