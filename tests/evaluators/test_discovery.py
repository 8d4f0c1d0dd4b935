import importlib
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import discovery as naive
from torch import Tensor

from skipless.data.captioned import captioned_grid
from skipless.errors import InputError
from skipless.evaluators.discovery import Discovery, corloc, draw_discoveries, iou, lost, tokencut
from skipless.evaluators.discovery.eigenpair import largest_eigenpair
from skipless.evaluators.discovery.normalized_cut import normalised_cut
from skipless.evaluators.discovery.regions import connected_component, similarity_graph

# Not by `from`: the package gives functions of the same names.
cut_module = importlib.import_module("skipless.evaluators.discovery.normalized_cut")
tokencut_module = importlib.import_module("skipless.evaluators.discovery.tokencut")

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "tokencut.npz")


def golden(i: int) -> tuple[Tensor, tuple[int, int], float, tuple[int, int]]:
    grid, size = (tuple(GOLDEN[f"{key}_{i}"].tolist()) for key in ("grid", "image_size"))
    return torch.from_numpy(GOLDEN[f"features_{i}"]), grid, float(GOLDEN[f"tau_{i}"]), size


def assert_golden(found: Discovery, i: int) -> None:
    assert np.array_equal(found.mask.cpu().numpy(), GOLDEN[f"mask_{i}"])
    assert found.seed == GOLDEN[f"seed_{i}"]
    assert found.box == tuple(GOLDEN[f"box_{i}"])
    assert np.abs(found.eigenvector.cpu().numpy() - GOLDEN[f"eigenvector_{i}"]).max() < 1e-6
    assert np.abs(found.eigenvalues[:2] - GOLDEN[f"eigenvalues_{i}"][:2]).max() < 1e-10
    assert abs(found.eigenvalues[2] - GOLDEN[f"eigenvalues_{i}"][2]) < 1e-6
    assert found.proven


def scene(
    seed: int, *, rows: int = 9, columns: int = 11, objects: int = 2, noise: float = 0.8, dim: int = 12
) -> Tensor:
    """Rectangles of tokens that resemble each other, over a background that does too."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((rows, columns), dtype=int)
    for k in range(objects):
        top, left = rng.integers(rows), rng.integers(columns)
        labels[top : top + rng.integers(2, max(3, rows)), left : left + rng.integers(2, max(3, columns))] = k + 1
    centres = rng.normal(size=(objects + 1, dim))
    features = centres[labels.ravel()] + noise * rng.normal(size=(rows * columns, dim))
    return torch.from_numpy(features.astype(np.float32))


def clusters(labels: list[int], dim: int = 8) -> Tensor:
    """Tokens with the same label are equal, with different labels orthogonal, with label -1 zero."""
    return torch.stack([torch.zeros(dim) if label < 0 else torch.eye(dim)[label] for label in labels])


# TokenCut


@pytest.mark.parametrize("i", range(6))
def test_tokencut_equals_the_authors(i: int) -> None:
    features, grid, tau, size = golden(i)
    assert_golden(tokencut(features[None], grid, tau=tau, image_size=size)[0], i)


@pytest.mark.parametrize("i", [0, 3])
def test_features_may_be_in_any_precision_that_holds_them(i: int) -> None:
    features, grid, tau, size = golden(i)
    assert_golden(tokencut(features[None].double() * 1e30, grid, tau=tau, image_size=size)[0], i)
    assert_golden(tokencut(features[None] * 1e-25, grid, tau=tau, image_size=size)[0], i)
    half = features.half()
    found, rounded = (tokencut(f[None], grid, tau=tau, image_size=size)[0] for f in (half, half.float()))
    assert found.box == rounded.box
    assert torch.equal(found.mask, rounded.mask)


def test_a_batch_is_its_images_each_with_its_size() -> None:
    features, grid, tau, size = golden(0)
    batch = torch.stack([features, golden(1)[0]])
    first, second = tokencut(batch, grid, tau=tau, image_size=[size, (220, 210)])
    assert_golden(first, 0)
    assert second.seed == GOLDEN["seed_1"]
    assert second.box == (64, 32, 160, 220)


@pytest.mark.parametrize("way", ["double", "single", "factorised", "dense"])
@pytest.mark.parametrize("i", range(6))
def test_every_way_to_the_eigenvector_gives_the_authors_answer(
    i: int, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, grid, tau, size = golden(i)
    monkeypatch.setattr(cut_module, "LAPACK_TOKENS", 0)
    if way == "single":
        monkeypatch.setattr(cut_module, "FLOAT32_TOKENS", 100)
        monkeypatch.setattr(tokencut_module, "FLOAT32_TOKENS", 100)
    elif way == "double":
        monkeypatch.setattr(tokencut_module, "FLOAT32_TOKENS", 10_000)
    elif way == "factorised":
        monkeypatch.setattr(cut_module, "MAX_STEPS", 5)
    else:
        monkeypatch.setattr(cut_module, "DENSE_TOKENS", 1000)
    found = tokencut(features[None], grid, tau=tau, image_size=size)[0]
    assert (
        found.method == {"double": "lanczos", "single": "lanczos", "factorised": "shift-invert", "dense": "dense"}[way]
    )
    if way != "factorised":
        assert_golden(found, i)
    else:  # five steps leave the third eigenvalue rough, and with it the bound
        assert found.box == tuple(GOLDEN[f"box_{i}"])
        assert found.seed == GOLDEN[f"seed_{i}"]


def test_without_scipy_the_answer_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.linalg", None)
    features, grid, tau, size = golden(0)
    found = tokencut(features[None], grid, tau=tau, image_size=size)[0]
    assert found.method == "lanczos"
    assert_golden(found, 0)


@pytest.mark.parametrize("seed", range(50))
def test_tokencut_agrees_with_the_naive_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns, patch = (int(rng.integers(2, 13)) for _ in range(3))
    size = tuple(int((side - 1) * patch + rng.integers(1, patch + 1)) for side in (rows, columns))
    tau, eps = float(rng.uniform(-0.1, 0.5)), float(rng.choice([1e-5, 1e-3]))
    noise = float(rng.uniform(0.2, 2))
    features = scene(seed, rows=rows, columns=columns, objects=int(rng.integers(1, 4)), noise=noise)
    found = tokencut(features[None], (rows, columns), tau=tau, eps=eps, patch=patch, image_size=size)[0]
    mask, start, box, vector, values = naive.tokencut(features.numpy(), (rows, columns), tau, eps, patch, size)
    if values[2] - values[1] < 1e-9:  # the twin's vector is then as its rounding has it
        pytest.skip("lambda_2 is repeated")
    assert np.array_equal(found.mask.numpy(), mask)
    assert (found.seed, found.box) == (start, box)
    assert np.abs(found.eigenvector.numpy().ravel() - vector).max() < 1e-6
    assert np.abs(np.array(found.eigenvalues) - values).max() < 1e-6


@pytest.mark.parametrize("noise", [0.7, 1.5, 2.5])
@pytest.mark.parametrize("dim", [16, 128])
def test_large_graphs_agree_with_a_dense_solver_whatever_the_gap(noise: float, dim: int) -> None:
    features = scene(1, rows=20, columns=24, objects=3, noise=noise, dim=dim)
    edges = similarity_graph(features, 0.2, torch.float32)
    assert len(edges) >= cut_module.FLOAT32_TOKENS
    quick = normalised_cut(edges, 1e-5)
    assert quick.method != "dense"
    affinity = edges.double() * (1 - 1e-5) + 1e-5
    root = affinity.sum(1).rsqrt()
    values, vectors = torch.linalg.eigh(root[:, None] * affinity * root)
    vector = root * vectors[:, -2]
    vector *= vector[quick.seed].sign()
    assert quick.proven
    assert torch.equal(quick.foreground, vector > vector.mean())
    assert (quick.vector - vector).abs().max() < 1e-6
    assert ((quick.vector - vector) / root).norm() < quick.error + 1e-10
    assert torch.tensor(quick.eigenvalues) == pytest.approx(torch.stack([1 - values[-k] for k in (1, 2, 3)]), abs=1e-6)


def test_the_bound_holds_and_an_open_side_is_not_called_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    edges = similarity_graph(scene(0), 0.2, torch.float64)
    exact = normalised_cut(edges, 1e-5)
    assert exact.proven
    wrong = exact.vector / exact.vector.norm()
    graph = cut_module._AffinityGraph(edges, 1e-5, torch.ones(len(edges)).double(), wrong)
    near = (exact.vector - exact.vector.mean()).abs().min() / exact.vector.norm()
    for error, proven in ((1e-12, True), (float(near), False)):
        second = cut_module._SecondEigenvector(wrong, error, (), "lanczos")
        assert cut_module._bipartition(graph, second).proven == proven


def test_doubtful_similarities_are_decided_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 64, generator=generator)
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    exact = unit @ unit.T
    for i, j in ((0, 1), (5, 17), (30, 2)):  # tau between the exact value and float32's rounding of it
        tau = exact[i, j].item()
        for nudge, edge in ((-1e-12, 1.0), (1e-12, 0.0)):
            edges = similarity_graph(features, tau + nudge, torch.float32)
            assert edges[i, j] == edges[j, i] == edge
            assert torch.equal(edges.double(), (exact > tau + nudge).double())


# Degenerate graphs


@pytest.mark.parametrize("tokens", [6, 90, 480])
@pytest.mark.parametrize(
    ("features", "eigenvalue"),
    [
        (lambda n: torch.ones(n, 8), 1.0),  # all edges
        (lambda n: torch.zeros(n, 8), 1.0),  # no edges, not even to itself
        (torch.eye, None),  # no edges but to itself
    ],
)
def test_without_a_best_cut_the_object_is_the_whole_image(
    tokens: int, features: Callable[[int], Tensor], eigenvalue: float | None
) -> None:
    found = tokencut(features(tokens)[None], (2, tokens // 2), image_size=(30, 8 * tokens - 3))[0]
    assert found.method == "no cut"
    assert found.mask.all()
    assert found.foreground.all()
    assert (found.seed, found.tied, found.box) == (0, tokens, (0, 0, 8 * tokens - 3, 30))
    assert not found.eigenvector.any()
    expected = eigenvalue if eigenvalue is not None else tokens * 1e-5 / (1 + (tokens - 1) * 1e-5)
    assert found.eigenvalues == pytest.approx((0, expected, expected))


def test_one_token_is_the_object_and_two_are_cut_if_they_differ() -> None:
    one = tokencut(torch.ones(1, 1, 4), (1, 1), image_size=(10, 12))[0]
    assert (one.seed, one.box, one.eigenvalues, one.method) == (0, (0, 0, 12, 10), (0.0,), "no cut")
    two = tokencut(clusters([0, 1])[None], (1, 2), image_size=(16, 32))[0]
    assert (two.seed, two.box, two.tied) == (0, (0, 0, 16, 16), 2)
    assert len(two.eigenvalues) == 2
    alike = tokencut(clusters([0, 0])[None], (1, 2), image_size=(16, 32))[0]
    assert (alike.method, alike.box) == ("no cut", (0, 0, 32, 16))
    half = tokencut(clusters([0, -1])[None], (1, 2), image_size=(16, 32))[0]
    assert half.mask.sum() == 1


@pytest.mark.parametrize("each", [4, 30, 160])
def test_of_several_clusters_alike_the_first_tokens_is_the_object(each: int) -> None:
    labels = [k for k in range(3) for _ in range(each)]
    found = tokencut(clusters(labels)[None], (3, each), image_size=(48, 16 * each))[0]
    assert found.method == "dense"
    assert found.mask.tolist() == [[True] * each, [False] * each, [False] * each]
    assert found.seed == (each - 1) // 2
    assert found.tied == each
    assert found.eigenvalues[1] == pytest.approx(found.eigenvalues[2], abs=1e-9)


@pytest.mark.parametrize("each", [4, 30, 240])
def test_of_two_halves_alike_the_one_with_the_middle_tied_token_is_the_object(each: int) -> None:
    found = tokencut(clusters([0] * each + [1] * each)[None], (2, each), image_size=(32, 16 * each))[0]
    assert found.tied == 2 * each
    assert found.seed == each - 1
    assert found.mask.tolist() == [[True] * each, [False] * each]


def test_exchangeable_tokens_tie_at_the_middle_and_that_is_proven() -> None:
    features, grid, tau, size = golden(1)  # three tokens have equal rows there
    found = tokencut(features[None], grid, tau=tau, image_size=size)[0]
    assert (found.tied, found.proven) == (3, True)
    assert found.seed == 117


def test_tokens_without_a_direction_are_a_side_of_their_own() -> None:
    labels = [0, 0, 0, 1, 1, 1, 1, -1, 0, 0, 1, -1]
    found = tokencut(clusters(labels)[None], (3, 4), image_size=(48, 64))[0]
    mask, seed, box, *_ = naive.tokencut(clusters(labels).numpy(), (3, 4), 0.2, 1e-5, 16, (48, 64))
    assert (found.seed, found.box) == (seed, box)
    assert np.array_equal(found.mask.numpy(), mask)


def test_the_answer_does_not_depend_on_the_random_state() -> None:
    features, grid, tau, size = golden(2)
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found.append(tokencut(features[None], grid, tau=tau, image_size=size)[0])
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(found[0].eigenvector, found[1].eigenvector)


# LOST


@pytest.mark.parametrize("seed", range(50))
def test_lost_agrees_with_the_naive_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns, patch = (int(rng.integers(1, 13)) for _ in range(3))
    size = tuple(int((side - 1) * patch + rng.integers(1, patch + 1)) for side in (rows, columns))
    k = int(rng.choice([1, 5, 100]))
    features = scene(seed, rows=rows + 1, columns=columns + 1, noise=float(rng.uniform(0.2, 2)))[: rows * columns]
    features *= torch.from_numpy(rng.uniform(0.1, 10, size=(rows * columns, 1))).float()  # lengths count
    found = lost(features[None], (rows, columns), k=k, patch=patch, image_size=size)[0]
    mask, start, box = naive.lost(features.numpy(), (rows, columns), k, patch, size)
    assert (found.seed, found.box) == (start, box)
    assert np.array_equal(found.mask.numpy(), mask)
    assert found.proven


def test_lost_finds_the_planted_object_and_its_degenerate_answers_are_defined() -> None:
    labels = torch.zeros(6, 8)
    labels[1:3, 2:5] = 1
    features = torch.stack([1 - 2 * labels.flatten(), torch.full((48,), 0.1)], dim=1)
    found = lost(features[None], (6, 8), image_size=(96, 120))[0]
    assert found.box == (32, 16, 80, 48)
    assert (found.seed, found.tied, found.method) == (10, 6, "lost")
    assert found.similarity[1, 2] > 0 > found.similarity[0, 0]
    zeros = lost(torch.zeros(1, 48, 2), (6, 8), image_size=(96, 120))[0]
    assert (zeros.box, zeros.method, zeros.tied) == ((0, 0, 120, 96), "no cut", 48)
    features[5] = 0  # no direction: similar to no token, but never the seed
    assert lost(features[None], (6, 8), image_size=(96, 120))[0].box == found.box
    equal = lost(torch.ones(1, 48, 2), (6, 8), image_size=(96, 120))[0]
    assert (equal.seed, equal.tied, equal.box) == (0, 48, (0, 0, 120, 96))
    apart = lost(torch.eye(4)[None], (2, 2), image_size=(32, 32))[0]
    assert (apart.seed, apart.box) == (0, (0, 0, 16, 16))


# What both share


@pytest.mark.parametrize("find", [tokencut, lost])
@pytest.mark.parametrize("integer", [np.int64, np.int32])
def test_sizes_may_be_numpys(find: Callable[..., list[Discovery]], integer: type, unchecked: None) -> None:
    features = torch.randn(2, 12, 4, generator=torch.Generator().manual_seed(0))
    for size in ((45, 60), [(45, 60), (48, 64)]):
        expected = find(features, (3, 4), image_size=size)
        numbers = np.array(size, integer)
        for given in (numbers, tuple(numbers), list(numbers), [tuple(row) for row in np.atleast_2d(numbers)]):
            if len(given) != 1:
                boxes = [found.box for found in find(features, (3, 4), image_size=given)]
                assert boxes == [found.box for found in expected]
                assert {type(side) for box in boxes for side in box} == {int}


@pytest.mark.parametrize("find", [tokencut, lost])
def test_bad_input_is_named(find: Callable[..., list[Discovery]], unchecked: None) -> None:
    features = torch.randn(2, 12, 4)
    with pytest.raises(InputError, match=r"shape \(2, 12, 4\), but a grid of 3 x 5 takes \(images, 15, dim\)"):
        find(features, (3, 5), image_size=(48, 80))
    with pytest.raises(InputError, match="features have shape"):
        find(features[0], (3, 4), image_size=(48, 64))
    with pytest.raises(InputError, match="an image of 64 x 48 pixels does not make a grid of 3 x 4 patches of 16"):
        find(features, (3, 4), image_size=(64, 48))
    with pytest.raises(InputError, match="3 image sizes for 2 images"):
        find(features, (3, 4), image_size=[(48, 64)] * 3)
    with pytest.raises(InputError, match="does not make a grid"):
        find(features, (3, 4), image_size=(48, 64), patch=0)
    for bad in (float("nan"), float("inf")):
        broken = features.clone()
        broken[1, 7, 2] = bad
        with pytest.raises(InputError, match="features of image 1 are not finite"):
            find(broken, (3, 4), image_size=(48, 64))


def test_bad_settings_are_named() -> None:
    features = torch.randn(1, 12, 4)
    with pytest.raises(InputError, match="eps is 0 and tau 0.2"):
        tokencut(features, (3, 4), eps=0.0, image_size=(48, 64))
    with pytest.raises(InputError, match="tau nan"):
        tokencut(features, (3, 4), tau=math.nan, image_size=(48, 64))
    with pytest.raises(InputError, match="k is 0"):
        lost(features, (3, 4), k=0, image_size=(48, 64))


def test_no_images_give_no_discoveries() -> None:
    assert tokencut(torch.empty(0, 12, 4), (3, 4), image_size=(48, 64)) == []


@pytest.mark.parametrize("seed", range(20))
def test_region_is_the_naive_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    foreground = rng.random((int(rng.integers(1, 20)), int(rng.integers(1, 20)))) < 0.6
    start = int(rng.integers(foreground.size))
    foreground.ravel()[start] = True
    assert np.array_equal(
        connected_component(torch.from_numpy(foreground), start).numpy(), naive.component(foreground, start)
    )


def test_a_spiral_is_one_region_and_a_diagonal_is_not() -> None:
    spiral = ["#####", "....#", "###.#", "#...#", "#####"]
    mask = torch.tensor([[c == "#" for c in row] for row in spiral])
    assert torch.equal(connected_component(mask, 0), mask)
    assert connected_component(torch.eye(4, dtype=torch.bool), 5).sum() == 1


def test_lanczos_finds_the_largest_even_when_the_space_is_soon_complete() -> None:
    values = torch.tensor([3.0, 1.0, 1.0, 1.0, -2.0, -2.0, 0.5, 0.5]).double()
    q = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)).double()).Q
    matrix = q @ values.diag() @ q.T
    start = torch.ones(8).double()
    ritz = largest_eigenpair(matrix.mv, start, q[:, :1].T, scale=3, floor=1e-12, max_steps=50)
    assert ritz.converged
    assert ritz.value == pytest.approx(1)
    assert (matrix @ ritz.vector - ritz.vector).norm() < 1e-12
    short = largest_eigenpair(matrix.mv, start, q[:, :0].T, scale=3, floor=1e-12, max_steps=2)
    assert not short.converged
    assert short.value < 3


# CorLoc


@pytest.mark.parametrize("seed", range(20))
def test_iou_counts_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = []
    for _ in range(2):
        xs, ys = (sorted(rng.choice(12, size=2, replace=False).tolist()) for _ in range(2))
        boxes.append((xs[0], ys[0], xs[1], ys[1]))
    assert iou(*boxes) == pytest.approx(naive.pixel_iou(*boxes))


def test_corloc_counts_images_with_any_hit() -> None:
    whole = (0, 0, 10, 10)
    result = corloc([whole] * 4, [[(50, 50, 60, 60), (0, 0, 10, 5)], [(0, 0, 10, 4)], [], [whole]])
    assert (result.hits, result.n, result.without_boxes, result.percent) == (2, 4, 1, 50.0)
    assert result.best == (0.5, 0.4, 0.0, 1.0)  # one half is a hit; no + 1 as in VOC's own development kit
    assert corloc([whole], [[(0, 0, 10, 5)]], threshold=0.51).hits == 0
    assert corloc([list(whole)], [[list(whole)]]).hits == 1


def test_an_object_narrower_than_a_pixel_is_met_by_nothing_and_its_image_counts() -> None:
    result = corloc([(0, 0, 9, 9)] * 2, [[(5, 0, 5, 9)], [(5, 0, 5, 9), (0, 0, 9, 9)]])
    assert (result.best, result.n, result.without_boxes) == ((0.0, 1.0), 2, 0)


def test_corloc_names_bad_boxes() -> None:
    with pytest.raises(InputError, match="2 predicted boxes for 1 images"):
        corloc([(0, 0, 1, 1)] * 2, [[]])
    with pytest.raises(InputError, match="0 predicted boxes for 0 images"):
        corloc([], [])
    with pytest.raises(InputError, match=r"image 1 has the true box \(5, 0, 4, 9\)"):
        corloc([(0, 0, 1, 1)] * 2, [[], [(5, 0, 4, 9)]])
    with pytest.raises(InputError, match="image 0 has the box"):
        corloc([(0, 0, 1)], [[(0, 0, 1, 1)]])


# Pictures


def test_a_picture_shows_boxes_and_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    labels = torch.zeros(6, 8)
    labels[1:3, 2:5] = 1
    features = torch.stack([1 - 2 * labels.flatten(), torch.full((48,), 0.1)], dim=1)[None]
    image = torch.full((3, 92, 120), 128, dtype=torch.uint8)
    found = {
        "cut": tokencut(features, (6, 8), image_size=(92, 120)),
        "lost": lost(features, (6, 8), image_size=(92, 120)),
    }
    told: dict[str, Any] = {}

    def together(rows: Any, **how: Any) -> Any:
        told.update(how)
        return captioned_grid(rows, **how)

    monkeypatch.setattr("skipless.evaluators.discovery.discovery_picture.captioned_grid", together)
    given = {"boxes_true": [[(4, 4, 30, 30), (50, 50, 50.2, 50.2)]], "names": ["2012_000001"], "height": 92}
    path = draw_discoveries(tmp_path / "new" / "a.png", [image], found, **given)
    sheet = np.asarray(Image.open(path).convert("RGB")).astype(int)
    top = 4 + 2 * 15 + 4  # below titles of two lines
    for left in range(4, 4 * 124, 124):
        assert sheet[top + 16, left + 40].tolist() == [235, 40, 40]  # the found box's upper edge
        assert sheet[top + 4, left + 10].tolist() == [60, 220, 60]
    for left in (4 + 124, 4 + 3 * 124):
        red, _, blue = sheet[top + 44, left + 68]
        assert red > blue + 50  # the object's side
        red, _, blue = sheet[top + 80, left + 100]
        assert blue > red
    assert told["titles"] == [
        "cut: image and boxes", "cut: eigenvector", "lost: image and boxes", "lost: summed similarity",
    ]  # fmt: skip
    assert told["names"] == ["2012_000001"]
    legend = dict(told["legend"])
    assert list(legend) == ["true box", "found box", "seed's side", "other side", "seed"]
    assert all((sheet[top + 92 :] == colour).all(-1).any() for colour in legend.values())
    assert all((sheet[top : top + 92] == legend[word]).all(-1).any() for word in ("true box", "found box", "seed"))
    draw_discoveries(path, [image], found)
    assert "true box" not in dict(told["legend"])
    with pytest.raises(InputError, match="'cut' has 1 discoveries for 2 images"):
        draw_discoveries(tmp_path / "b.png", [image] * 2, found)
    with pytest.raises(InputError, match="true boxes of 2 images"):
        draw_discoveries(tmp_path / "b.png", [image], found, boxes_true=[[], []])
    with pytest.raises(InputError, match="2 names for 1 images"):
        draw_discoveries(tmp_path / "b.png", [image], found, names=["a", "b"])
    with pytest.raises(InputError, match="at least one of each"):
        draw_discoveries(tmp_path / "b.png", [], {})


@pytest.mark.parametrize("i", range(6))
def test_every_device_agrees(i: int, device) -> None:
    features, grid, tau, size = golden(i)
    assert_golden(tokencut(features[None].to(device), grid, tau=tau, image_size=size)[0], i)
    here, there = (lost(f[None], grid, image_size=size)[0] for f in (features, features.to(device)))
    assert (here.seed, here.box) == (there.seed, there.box)
