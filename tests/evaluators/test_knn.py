import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.discovery import knn as naive_knn

from skipless.errors import InputError
from skipless.evaluators.classification.nearest_neighbours import knn, knn_accuracies, knn_blocks

module = importlib.import_module(
    "skipless.evaluators.classification.nearest_neighbours"
)  # not by `from`: the package may give the function
GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "dino_knn.npz")


def golden_data() -> list[torch.Tensor]:
    return [torch.from_numpy(GOLDEN[f"{part}_{kind}"]) for part in ("train", "test") for kind in ("features", "labels")]


@pytest.mark.parametrize("k", [5, 10, 20])
def test_equals_the_authors_evaluation(k: int) -> None:
    result = knn(*golden_data(), k=k, temperature=float(GOLDEN["temperature"]))
    assert result == pytest.approx(tuple(GOLDEN[f"top1_top5_k{k}"]), abs=1e-9)


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_chunks_do_not_change_the_answer(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = golden_data()
    monkeypatch.setattr(module, "MAX_SIMILARITIES", rows * len(data[0]))
    assert knn(*data, k=10) == pytest.approx(tuple(GOLDEN["top1_top5_k10"]), abs=1e-9)


@pytest.mark.parametrize("seed", range(50))
def test_agrees_with_the_naive_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_train, n, dim, classes = (int(rng.integers(low, high)) for low, high in ((3, 40), (1, 30), (2, 6), (2, 9)))
    train, test = rng.normal(size=(n_train, dim)), rng.normal(size=(n, dim))
    train_labels, test_labels = rng.integers(classes, size=n_train), rng.integers(classes, size=n)
    ks = sorted({int(rng.integers(1, n_train + 1)) for _ in range(3)})
    temperature = float(rng.choice([0.02, 0.07, 1.0]))
    data = [torch.from_numpy(array) for array in (train, train_labels, test, test_labels)]
    ours = knn_accuracies(*data, ks=ks, temperature=temperature)
    for k in ks:
        theirs = naive_knn(train, train_labels.tolist(), test, test_labels.tolist(), k, temperature)
        assert (ours[k].top1, ours[k].top5) == pytest.approx(theirs, abs=1e-9)
        assert (ours[k].k, ours[k].n, ours[k].n_train) == (k, n, n_train)


def test_of_equally_near_images_the_first_votes() -> None:
    train = torch.tensor([[1.0, 0.0]]).repeat(300, 1)
    for first in (0, 1):
        labels = torch.full((300,), 1 - first)
        labels[:3] = first
        assert knn(train, labels, train[:1], torch.tensor([first]), k=3) == (100.0, 100.0)


def test_equal_votes_go_to_the_lower_class_and_so_do_none() -> None:
    train, labels = torch.eye(2), torch.tensor([5, 3])
    between = torch.ones(1, 2)
    assert knn(train, labels, between, torch.tensor([3]), k=2) == (100.0, 100.0)
    assert knn(train, labels, between, torch.tensor([5]), k=2) == (0.0, 100.0)
    assert knn(train, labels, between, torch.tensor([0]), k=2) == (0.0, 0.0)
    six = torch.arange(6)  # votes of 0 .. 5 equal: with k = 6 five places are counted, the last class is sixth
    alike = torch.ones(6, 2)
    assert knn(alike, six, between, torch.tensor([4]), k=6) == (0.0, 100.0)
    assert knn(alike, six, between, torch.tensor([5]), k=6) == (0.0, 0.0)


def test_a_cold_vote_is_the_nearest_neighbours_and_does_not_overflow() -> None:
    data = golden_data()
    assert knn(*data, k=20, temperature=1e-6)[0] == knn(*data, k=1)[0]


def test_length_does_not_count_and_half_precision_is_taken() -> None:
    data = golden_data()
    scaled = [data[0] * torch.rand(len(data[0]), 1).add(0.1), data[1], data[2] * 1e3, data[3]]
    assert knn(*scaled, k=10) == pytest.approx(tuple(GOLDEN["top1_top5_k10"]))
    rounded = [data[0].half().float(), data[1], data[2].half().float(), data[3]]
    assert knn(data[0].half(), data[1], data[2].half(), data[3], k=10) == knn(*rounded, k=10)


def test_every_block_at_every_k() -> None:
    train, train_labels, test, test_labels = golden_data()
    shuffled = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(0))]
    result = knn_blocks({3: shuffled, 11: train}, train_labels, {3: test, 11: test}, test_labels, ks=[5, 20])
    assert {block: sorted(found) for block, found in result.items()} == {3: [5, 20], 11: [5, 20]}
    assert result[11][20].top1 == pytest.approx(GOLDEN["top1_top5_k20"][0])
    assert result[3][20].top1 < 25 < result[11][20].top1
    with pytest.raises(InputError, match=r"training features are of \[3\] but test features of \[4\]"):
        knn_blocks({3: train}, train_labels, {4: test}, test_labels, ks=[5])


def test_bad_input_is_named(unchecked: None) -> None:
    train, train_labels, test, test_labels = golden_data()
    with pytest.raises(InputError, match="k is 401, but there are 400 training images; give k from 1 to 400"):
        knn(train, train_labels, test, test_labels, k=401)
    with pytest.raises(InputError, match="k is 0"):
        knn(train, train_labels, test, test_labels, k=0)
    with pytest.raises(InputError, match="k is missing"):
        knn_accuracies(train, train_labels, test, test_labels, ks=[])
    with pytest.raises(InputError, match="temperature is 0; give a positive one"):
        knn(train, train_labels, test, test_labels, k=5, temperature=0)
    with pytest.raises(InputError, match="400 training features and 399 labels"):
        knn(train, train_labels[1:], test, test_labels, k=5)
    with pytest.raises(InputError, match=r"shape \(400, 15\), test features \(200, 16\)"):
        knn(train[:, 1:], train_labels, test, test_labels, k=5)
    with pytest.raises(InputError, match="a test label is -1"):
        knn(train, train_labels, test, test_labels - 1, k=5)
    broken = test.clone()
    broken[17, 3] = float("nan")
    with pytest.raises(InputError, match="test feature 17 is not finite"):
        knn(train, train_labels, broken, test_labels, k=5)


def test_every_device_agrees(device) -> None:
    data = [tensor.to(device) for tensor in golden_data()]
    assert knn(*data, k=10) == pytest.approx(tuple(GOLDEN["top1_top5_k10"]))
