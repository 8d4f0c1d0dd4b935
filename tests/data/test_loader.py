from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from skipless.data import ImageConfig, count_workers, load_images
from skipless.data.loading.loader import BatchKey, EvalLoader, Order, train_batches
from skipless.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


class Draws:
    """Ten samples; each fetch gives the indices, and where it is told to, draws from or disturbs what is global."""

    def __init__(self, bad: int | None = None) -> None:
        self.bad = bad

    def __len__(self) -> int:
        return 10

    def __getitems__(self, key: BatchKey) -> tuple[torch.Tensor, int]:
        if self.bad in key.indices.tolist():
            raise InputError(f"sample {self.bad} is bad; remove it")
        return key.indices, key.epoch


def take(order: Order, n: int) -> list[BatchKey]:
    return list(islice(order, n))


@settings(deadline=None, max_examples=50)
@given(samples=st.integers(4, 40), batch_size=st.integers(1, 4), seed=st.integers(0, 3), start=st.integers(0, 60))
def test_any_step_can_be_the_first(samples: int, batch_size: int, seed: int, start: int) -> None:
    order = Order(samples, batch_size, seed)
    undisturbed = take(order, start + 5)[start:]
    resumed = take(replace(order, start_step=start), 5)
    assert [key.epoch for key in resumed] == [key.epoch for key in undisturbed]
    for one, other in zip(resumed, undisturbed, strict=True):
        assert torch.equal(one.indices, other.indices)


def test_an_epoch_gives_no_sample_twice_and_epochs_and_seeds_differ() -> None:
    order = Order(samples=10, batch_size=3, seed=0)
    epochs = [torch.cat([key.indices for key in take(replace(order, start_step=3 * e), 3)]) for e in range(3)]
    assert all(epoch.unique().numel() == 9 for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[0], torch.cat([key.indices for key in take(replace(order, seed=1), 3)]))


def test_ranks_and_micro_batches_share_out_the_same_batch() -> None:
    order = Order(samples=32, batch_size=16, seed=0)
    whole = take(order, 1)[0].indices
    parts = [
        key.indices for rank in range(2) for key in take(replace(order, rank=rank, world_size=2, accumulation=4), 4)
    ]
    assert {len(part) for part in parts} == {2}
    assert torch.equal(torch.cat(parts).sort().values, whole.sort().values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 11}, "batch_size 11 does not fit a training set of 10"),
        ({"batch_size": 0}, "batch_size 0 does not fit"),
        ({"batch_size": 9, "accumulation": 2}, "batch_size 9 is not divisible by accumulation 2 x processes 1"),
        ({"batch_size": 6, "accumulation": 2, "world_size": 2}, "not divisible"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        next(iter(Order(samples=10, seed=0, **arguments)))


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_sees_every_sample_once_whatever_the_share(workers: int) -> None:
    shares = [EvalLoader(Draws(), batch_size=4, workers=workers, share=(rank, 3)) for rank in range(3)]
    seen = [torch.cat([indices for indices, _ in share]).tolist() for share in shares]
    assert seen == [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]
    assert torch.cat([indices for indices, _ in shares[0]]).tolist() == seen[0]  # a second pass


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_sample_gives_its_one_line_from_any_process(workers: int) -> None:
    batches = train_batches(Draws(bad=7), Order(samples=10, batch_size=5, seed=0), workers=workers)
    with pytest.raises(InputError) as caught:
        list(islice(batches, 2))
    assert str(caught.value) == "sample 7 is bad; remove it"


def test_fetching_leaves_the_global_generators_alone() -> None:
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    expected = torch.rand(3), np.random.rand(3)  # noqa: NPY002
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    list(islice(train_batches(Draws(), Order(samples=10, batch_size=5, seed=0)), 3))
    assert torch.equal(torch.rand(3), expected[0])
    np.testing.assert_array_equal(np.random.rand(3), expected[1])  # noqa: NPY002


@pytest.mark.parametrize(("cores", "processes", "expected"), [(8, 1, 8), (8, 4, 2), (2, 4, 1), (96, 2, 16)])
def test_what_is_decoded_gets_the_cores_and_what_is_in_memory_none(
    monkeypatch, cores: int, processes: int, expected: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    in_memory = load_images(ImageConfig("digits")).train
    assert (count_workers(None, Draws()), count_workers(None, in_memory)) == (expected, 0)
    assert (count_workers(3, Draws()), count_workers(0, Draws()), count_workers(5, in_memory)) == (3, 0, 5)
