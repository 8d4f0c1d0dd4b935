"""Draws and their distributions, batches, workers, pictures, and what is refused."""

import math
import os
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torchvision.transforms import ColorJitter, RandomResizedCrop

from skipless.data import BatchKey, Order, train_batches
from skipless.data.loading.loader import BatchedDataset
from skipless.data.multicrop import MultiCropConfig, MultiCropImages, draw_crops, load_multicrop, normalised, preview
from skipless.data.multicrop.params import Box, CropParams, sample_box, sample_crop_params
from skipless.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

SMALL = MultiCropConfig(global_size=24, local_size=12, local_crops=3)
DRAWN = 600  # images; a share of 0.5 of one crop of each may be off by 0.1


@pytest.fixture(scope="module")
def drawn() -> list[list[CropParams]]:
    return [sample_crop_params(Random(seed), 375, 500, MultiCropConfig()) for seed in range(DRAWN)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for name in ("train/cat/a.jpg", "train/cat/b.JPEG", "train/dog/c.png", "train/dog/d.jpg", "val/cat/e.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(tmp_path / name)
    return tmp_path


def batches(data: MultiCropImages, workers: int = 0, start: int = 0) -> list[list[torch.Tensor]]:
    order = Order(len(data), batch_size=2, seed=7, start_step=start)
    return [crops for (crops,) in islice(train_batches(data, order, workers=workers), 3)]


def assert_same(ours: list[list[torch.Tensor]], others: list[list[torch.Tensor]]) -> None:
    for one, other in zip(ours, others, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("what", "of", "share"),
    [
        (lambda draw: draw.flip, range(10), 0.5),
        (lambda draw: len(draw.jitter) == 4, range(10), 0.8),
        (lambda draw: draw.grey, range(10), 0.2),
        (lambda draw: draw.sigma > 0, [0], 1.0),
        (lambda draw: draw.sigma > 0, [1], 0.1),
        (lambda draw: draw.sigma > 0, range(2, 10), 0.5),
        (lambda draw: draw.solarise, [1], 0.2),
        (lambda draw: draw.solarise, [0, *range(2, 10)], 0.0),
    ],
    ids=["flip", "jitter", "grey", "blur first", "blur second", "blur local", "solarise second", "solarise others"],
)
def test_operations_are_as_likely_as_published(drawn: list[list[CropParams]], what, of, share: float) -> None:
    found = [what(crops[position]) for crops in drawn for position in of]
    assert abs(np.mean(found) - share) <= 5 * math.sqrt(share * (1 - share) / len(found))


def test_operations_are_drawn_independently(drawn: list[list[CropParams]]) -> None:
    table = np.array([[d.flip, bool(d.jitter), d.grey, d.sigma > 0, d.box.width] for crops in drawn for d in crops[2:]])
    correlations = np.corrcoef(table.T) - np.eye(5)
    assert np.abs(correlations).max() < 5 / math.sqrt(len(table))


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_factors_are_torchvisions(drawn: list[list[CropParams]], name: str) -> None:
    jitter = ColorJitter(0.4, 0.4, 0.2, 0.1)
    low, high = getattr(jitter, name)
    ours = [dict(draw.jitter)[name] for crops in drawn for draw in crops if draw.jitter]
    assert stats.kstest(ours, stats.uniform(low, high - low).cdf).pvalue > 1e-4


def test_every_order_of_the_jitter_is_equally_likely(drawn: list[list[CropParams]]) -> None:
    orders = [tuple(name for name, _ in draw.jitter) for crops in drawn for draw in crops if draw.jitter]
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == math.factorial(4)
    assert stats.chisquare(counts).pvalue > 1e-4


def test_sigmas_are_uniform(drawn: list[list[CropParams]]) -> None:
    sigmas = [draw.sigma for crops in drawn for draw in crops if draw.sigma]
    assert stats.kstest(sigmas, stats.uniform(0.1, 1.9).cdf).pvalue > 1e-4


@pytest.mark.parametrize("size", [(375, 500), (60, 400)], ids=["photo", "panorama, where boxes fail to fit"])
@pytest.mark.parametrize("scale", [(0.4, 1.0), (0.05, 0.4)], ids=["global", "local"])
def test_boxes_are_torchvisions(size: tuple[int, int], scale: tuple[float, float]) -> None:
    height, width = size
    image, random = torch.empty(3, height, width), Random(0)
    torch.manual_seed(0)
    theirs = [RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(1500)]
    ours = [sample_box(random, height, width, scale, (3 / 4, 4 / 3)) for _ in range(1500)]
    measures = {
        "area": (lambda top, left, h, w: h * w),
        "ratio": (lambda top, left, h, w: w / h),
        "top": (lambda top, left, h, w: top),
        "left": (lambda top, left, h, w: left),
    }
    for name, measure in measures.items():
        a, b = (
            [measure(*box) for box in boxes] for boxes in (theirs, [(o.top, o.left, o.height, o.width) for o in ours])
        )
        assert stats.ks_2samp(a, b).pvalue > 1e-4, name


@pytest.mark.parametrize(
    ("height", "width", "box"), [(10, 1000, Box(0, 493, 10, 13)), (1000, 10, Box(493, 0, 13, 10))], ids=str
)
def test_where_no_box_fits_the_middle_is_taken(height: int, width: int, box: Box) -> None:
    assert sample_box(Random(0), height, width, (0.9, 1.0), (3 / 4, 4 / 3)) == box


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("pixels", ["float32", "uint8"])
def test_a_batch_is_a_list_of_stacks(folder: Path, mode, pixels) -> None:
    data = load_multicrop(folder, replace(SMALL, mode=mode, pixels=pixels))
    assert isinstance(data, BatchedDataset)
    (crops,) = data.__getitems__(BatchKey(0, 0, torch.tensor([2, 0])))
    assert [tuple(crop.shape) for crop in crops] == [(2, 3, 24, 24)] * 2 + [(2, 3, 12, 12)] * 3
    assert {crop.dtype for crop in crops} == {getattr(torch, pixels)}
    assert all(crop.is_contiguous() for crop in crops)


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_bytes_are_normalised_to_the_same_floats(folder: Path, mode) -> None:
    config, key = replace(SMALL, mode=mode), BatchKey(3, 1, torch.arange(4))
    (floats,) = load_multicrop(folder, config).__getitems__(key)
    (levels,) = load_multicrop(folder, replace(config, pixels="uint8")).__getitems__(key)
    level = 1 / (255 * min(config.std))
    for a, b in zip(floats, levels, strict=True):
        assert (a - normalised(b, config)).abs().max() <= (1e-5 if mode == "exact" else level)


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_workers_and_threads_change_no_bit(folder: Path, mode) -> None:
    data = load_multicrop(folder, replace(SMALL, mode=mode))
    alone = batches(data)
    assert_same(alone, batches(data, workers=1))
    assert_same(alone, batches(data, workers=2))
    torch.set_num_threads(2)
    assert_same(alone, batches(data))
    assert torch.get_num_threads() == 2


def test_a_batch_depends_on_seed_epoch_and_index_alone(folder: Path) -> None:
    data = load_multicrop(folder, SMALL)
    assert_same(batches(data)[1:], batches(data, start=1)[:2])

    def first(seed: int, epoch: int, *indices: int) -> torch.Tensor:
        return data.__getitems__(BatchKey(seed, epoch, torch.tensor(indices)))[0][0]

    assert torch.equal(first(0, 0, 1, 3)[1], first(0, 0, 3)[0])
    assert not torch.equal(first(0, 0, 1), first(1, 0, 1))
    assert not torch.equal(first(0, 0, 1), first(0, 1, 1))


def test_global_generators_are_left_alone(folder: Path) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    load_multicrop(folder, SMALL).__getitems__(BatchKey(0, 0, torch.arange(4)))
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


def test_folders_with_and_without_classes_are_listed(folder: Path, tmp_path: Path) -> None:
    data = load_multicrop(folder)
    assert [Path(data.source.name(i)).relative_to(folder).as_posix() for i in range(len(data))] == [
        "train/cat/a.jpg",
        "train/cat/b.JPEG",
        "train/dog/c.png",
        "train/dog/d.jpg",
    ]
    assert len(load_multicrop(folder / "train" / "cat")) == 2
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no image below"):
        load_multicrop(tmp_path / "empty")
    with pytest.raises(InputError, match="no folder"):
        load_multicrop(tmp_path / "none")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_file_is_named(folder: Path, workers: int) -> None:
    file = folder / "train" / "cat" / "a.jpg"
    file.write_bytes(file.read_bytes()[:400])
    with pytest.raises(InputError, match=r"a\.jpg"):
        batches(load_multicrop(folder, SMALL), workers)


def test_grey_files_make_crops(tmp_path: Path) -> None:
    Image.new("L", (9, 1), 77).save(tmp_path / "thin.png")
    (crops,) = load_multicrop(tmp_path, SMALL).__getitems__(BatchKey(0, 0, torch.tensor([0])))
    assert all(crop.isfinite().all() for crop in crops)


def test_crops_are_drawn(folder: Path, tmp_path: Path) -> None:
    files = sorted((folder / "train").glob("*/*.jpg"))
    draw_crops(tmp_path / "crops.png", files, SMALL, seed=1)
    with Image.open(tmp_path / "crops.png") as picture:
        pixels = np.array(picture)
    data = replace(load_multicrop(folder / "train" / "cat", replace(SMALL, pixels="uint8")))
    (crops,) = data.__getitems__(BatchKey(1, 0, torch.tensor([0])))
    drawn = crops[0][0].permute(1, 2, 0).numpy()
    places = np.argwhere((pixels == drawn[0, 0]).all(-1))
    assert any(np.array_equal(pixels[y : y + len(drawn), x : x + len(drawn)], drawn) for y, x in places)
    with pytest.raises(InputError, match="cannot write"):
        draw_crops(tmp_path / "none" / "crops.png", files, SMALL)
    with pytest.raises(InputError, match="at least one file"):
        draw_crops(tmp_path / "crops.png", [], SMALL)


@pytest.mark.parametrize("local_crops", [0, 3])
def test_a_picture_of_crops_says_what_is_what(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local_crops: int
) -> None:
    said, drawing = {}, preview.captioned_grid

    def captioned(rows, **texts):
        said.update(texts)
        return drawing(rows, **texts)

    monkeypatch.setattr(preview, "captioned_grid", captioned)
    files = sorted((folder / "train").glob("*/*.jpg"))
    draw_crops(tmp_path / "crops.png", files, replace(SMALL, local_crops=local_crops), seed=1)
    assert said["titles"][:3] == ("image and boxes", "global crop 1", "global crop 2")
    assert len(said["titles"]) == 3 + local_crops
    assert said["names"] == [str(file.relative_to(folder / "train")) for file in files]
    legend = [text for text, _ in said["legend"]]
    assert ("box of a local crop" in legend) == (local_crops > 0)
    assert said["note"] == f"Crops of epoch 0, seed 1, mode {SMALL.mode}, before normalisation."


def test_files_whose_names_are_no_text_are_drawn(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"caf\xe9.jpg")
    file.write_bytes(next((folder / "train").glob("*/*.jpg")).read_bytes())
    draw_crops(tmp_path / "crops.png", [file], SMALL)
    assert (tmp_path / "crops.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"global_size": 0}, "global_size 0"),
        ({"local_crops": -1}, "local_crops -1"),
        ({"global_scale": (0.5, 1.5)}, "global_scale"),
        ({"ratio": (2.0, 1.0)}, "ratio"),
        ({"blur_sigma": (0.0, 2.0)}, "blur_sigma"),
        ({"blur": (1.0, 0.1, 1.5)}, "blur"),
        ({"flip": -0.1}, "flip"),
        ({"jitter": (0.4, 0.4, 0.2, 0.7)}, "jitter"),
        ({"std": (0.2, 0.0, 0.2)}, "std"),
    ],
    ids=str,
)
def test_configs_that_make_no_sense_are_refused(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        MultiCropConfig(**change)
