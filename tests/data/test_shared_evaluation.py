"""Evaluation shared out over processes: every image counts once, whatever the sizes."""

import json
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from faults import ranks
from torch import Tensor, nn

from skipless.data import BatchKey, EvalLoader
from skipless.evaluators.classification.accuracy import top1

PROCESSES = 3
SIZES = (1, 4, 7, 64, 65)


class Numbered:
    """Image i is a one-hot row, right for one half of the labels; labels are i modulo 7."""

    def __init__(self, count: int) -> None:
        self.images = torch.randn(count, 7, generator=torch.Generator().manual_seed(count))

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, key: BatchKey) -> tuple[Tensor, Tensor]:
        return self.images[key.indices], key.indices % 7


def evaluated(count: int, batch_size: int) -> dict[str, float]:
    return top1(nn.Identity(), EvalLoader(Numbered(count), batch_size=batch_size))


def on_rank(folder: Path, rank: int) -> None:
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    found = {count: evaluated(count, 5) for count in SIZES}
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()


def test_each_image_counts_once_and_every_process_has_the_whole_result(tmp_path: Path) -> None:
    ranks.run_apart(PROCESSES, partial(on_rank, tmp_path), tmp_path / "log")
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(PROCESSES)]
    for count in SIZES:
        alone = evaluated(count, 4)
        assert alone["n"] == count
        for rank in range(PROCESSES):
            assert found[rank][str(count)] == pytest.approx(alone, rel=1e-6)
            assert found[rank][str(count)]["top1"] == alone["top1"]  # a mean of the processes' means would differ at 7


@pytest.mark.parametrize("count", [*range(12)])
def test_shares_are_a_partition(count: int) -> None:
    shares = [EvalLoader(Numbered(count), batch_size=2, share=(rank, PROCESSES)) for rank in range(PROCESSES)]
    images = [images for share in shares for images, _ in share]
    seen = torch.cat(images) if images else torch.empty(0, 7)
    assert sorted(seen.tolist()) == sorted(Numbered(count).images.tolist())
