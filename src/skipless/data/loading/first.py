"""FirstImages: the first images of a set, to estimate how long the full set would take."""

from dataclasses import dataclass
from typing import Any

from skipless.data.loading.loader import BatchedDataset, BatchKey


@dataclass(frozen=True)
class FirstImages:
    """The first `count` images of a set."""

    dataset: BatchedDataset
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitems__(self, key: BatchKey) -> Any:
        return self.dataset.__getitems__(key)
