"""The first images of a set: a part, to see how long the whole would take."""

from dataclasses import dataclass
from typing import Any

from skipless.data.loading.loader import BatchedDataset, BatchKey


@dataclass(frozen=True)
class FirstImages:
    """The first so many images of a set."""

    dataset: BatchedDataset
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitems__(self, key: BatchKey) -> Any:
        return self.dataset.__getitems__(key)
