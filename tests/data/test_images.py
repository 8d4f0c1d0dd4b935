from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.transforms_factory import create_transform

from skipless.data import EvalLoader, ImageConfig, Order, load_images, train_batches
from skipless.data.augmentation import photo_transform
from skipless.data.loading.loader import BatchKey
from skipless.data.loading.seeding import seed_all
from skipless.data.on_disk import StoredImages
from skipless.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def write_images(root: Path, classes: tuple[str, ...] = ("cat", "dog"), each: int = 4) -> Path:
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for i in range(each):
                pixels = generator.integers(0, 256, (40, 60, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.jpg")
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


def batches_of(config: ImageConfig, workers: int, start: int = 0, seed: int = 0) -> list[torch.Tensor]:
    data = load_images(config)
    order = Order(len(data.train), batch_size=4, seed=seed, start_step=start)
    return [images for images, _ in islice(train_batches(data.train, order, workers=workers), 4)]


def test_a_folder_is_read_by_class(folder: Path) -> None:
    data = load_images(ImageConfig(data=str(folder), image_size=32))
    assert (data.classes, data.channels, data.image_size) == (("cat", "dog"), 3, 32)
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4
    images, labels = next(iter(EvalLoader(data.val, batch_size=8)))
    assert images.shape == (8, 3, 32, 32)
    assert labels.tolist() == [0] * 4 + [1] * 4


def test_evaluation_resizes_then_crops_the_centre(folder: Path) -> None:
    Image.new("RGB", (600, 400), (0, 255, 0)).save(folder / "val" / "cat" / "0.jpg", quality=100)
    with Image.open(folder / "val" / "cat" / "0.jpg") as image:
        image.paste((255, 0, 0), (0, 0, 115, 400))  # what 256/224 crops away on the left: (384 - 224) / 2 of 384
        image.save(folder / "val" / "cat" / "0.jpg", quality=100)
    image, _ = load_images(ImageConfig(data=str(folder))).val[0]
    assert image.shape == (3, 224, 224)
    green = (torch.tensor([0.0, 1.0, 0.0]) - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(image[:, :, 3:].mean((1, 2)), green, atol=0.05)


def test_batches_do_not_depend_on_the_number_of_workers(folder: Path) -> None:
    config = ImageConfig(data=str(folder), image_size=16)
    alone, helped = batches_of(config, workers=0), batches_of(config, workers=2)
    assert all(torch.equal(one, other) for one, other in zip(alone, helped, strict=True))


def test_augmentation_is_a_function_of_seed_epoch_and_sample(folder: Path) -> None:
    config = ImageConfig(data=str(folder), image_size=16)
    undisturbed, resumed = batches_of(config, workers=0), batches_of(config, workers=0, start=2)
    assert torch.equal(undisturbed[2], resumed[0])
    assert torch.equal(undisturbed[3], resumed[1])
    train = load_images(config).train
    assert isinstance(train, StoredImages)
    everything = torch.arange(8)
    first, again = (train.__getitems__(BatchKey(0, 0, everything))[0] for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(first[3], train.__getitems__(BatchKey(0, 0, torch.tensor([3])))[0][0])
    for key in (BatchKey(0, 1, everything), BatchKey(1, 0, everything)):
        changed = (first != train.__getitems__(key)[0]).flatten(1).any(1)
        assert changed.all()


def test_the_papers_augmentation_is_what_timm_builds(folder: Path) -> None:
    train = load_images(ImageConfig(data=str(folder))).train
    assert isinstance(train, StoredImages)
    steps: dict[str, Any] = {type(step).__name__: step for step in train.transform.steps}
    assert list(steps) == [
        "RandomResizedCropAndInterpolation", "RandomHorizontalFlip", "RandAugment", "MaybeToTensor", "Normalize",
        "RandomErasing",
    ]  # fmt: skip
    assert (steps["RandomErasing"].probability, steps["RandomErasing"].per_pixel) == (0.25, True)
    assert steps["RandomErasing"].max_count == 1
    assert steps["RandAugment"].num_layers == 2
    operations = steps["RandAugment"].ops
    assert {(op.magnitude, op.magnitude_std) for op in operations} == {(9, 0.5)}
    assert "PosterizeIncreasing" in {op.name for op in operations}
    assert "bicubic" in str(steps["RandomResizedCropAndInterpolation"])


@pytest.mark.parametrize("erasing", [0.0, 1.0])
@pytest.mark.parametrize("augmented", [True, False])
def test_transforms_are_bit_for_bit_timms(augmented: bool, erasing: float) -> None:
    options = {"auto_augment": "rand-m9-inc1", "color_jitter": 0.4, "interpolation": "bicubic"}
    ours = photo_transform(24, augmented=augmented, erasing=erasing, crop_ratio=0.8, **options)
    theirs: Any = create_transform(
        (24, 24), is_training=augmented, re_prob=erasing, re_mode="pixel", crop_pct=0.8, **options
    )  # fmt: skip
    pixels = np.random.default_rng(0).integers(0, 256, (6, 30, 50, 3), dtype=np.uint8)
    for seed, image in enumerate(Image.fromarray(array) for array in pixels):
        seed_all(seed)
        expected = theirs(image)
        seed_all(seed)
        assert torch.equal(ours(image), expected)


@pytest.mark.parametrize("policy", ["rand-m10-inc1", "rand-m0", "augmix-m10", "v0", "original", "3a"])
def test_timms_policies_work_with_every_pillow(folder: Path, policy: str) -> None:
    train = load_images(ImageConfig(data=str(folder), image_size=16, auto_augment=policy)).train
    for epoch in range(12):
        train.__getitems__(BatchKey(0, epoch, torch.arange(8)))


def test_posterising_to_no_bits_is_black(folder: Path) -> None:
    train = load_images(ImageConfig(data=str(folder), image_size=16, auto_augment="rand-m10-inc1")).train
    assert isinstance(train, StoredImages)
    (operations,) = (getattr(step, "ops") for step in train.transform.steps if hasattr(step, "ops"))  # noqa: B009
    (posterise,) = (operation for operation in operations if operation.name == "PosterizeIncreasing")
    grey = Image.new("RGB", (4, 3), (200, 100, 50))
    assert posterise.aug_fn(grey, *posterise.level_fn(10, {})).getcolors() == [(12, (0, 0, 0))]
    assert posterise.aug_fn(grey, *posterise.level_fn(5, {})).getcolors() == [(12, (192, 64, 0))]


def test_no_augmentation_gives_what_evaluation_gives(folder: Path) -> None:
    data = load_images(ImageConfig(data=str(folder), image_size=16, augmentation="none"))
    assert isinstance(data.train, StoredImages)
    assert isinstance(data.val, StoredImages)
    moved = StoredImages(data.train.source, data.train.labels, data.val.transform)
    assert torch.equal(data.train[0][0], moved[0][0])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_a_damaged_image_is_named(folder: Path, damage: str, workers: int) -> None:
    file = folder / "train" / "dog" / "2.jpg"
    content = file.read_bytes()
    file.write_bytes({"cut": content[: len(content) // 2], "text": b"<html></html>", "empty": b""}[damage])
    with pytest.raises(InputError, match=r"^'.*train/dog/2\.jpg' is no readable image \(.*\); repair or remove it$"):
        batches_of(ImageConfig(data=str(folder), image_size=16), workers=workers)


def test_grey_and_transparent_images_become_rgb(folder: Path) -> None:
    Image.new("L", (20, 20), 128).save(folder / "train" / "cat" / "0.jpg")
    Image.new("RGBA", (20, 20), (1, 2, 3, 4)).save(folder / "train" / "cat" / "1.png")
    train = load_images(ImageConfig(data=str(folder), image_size=16)).train
    assert {train[i][0].shape for i in range(len(train))} == {(3, 16, 16)}


def test_folders_that_make_no_sense_are_refused(folder: Path) -> None:
    (folder / "val" / "dog").rename(folder / "val" / "wolf")
    with pytest.raises(InputError, match="differ in classes: only in train: dog; only in val: wolf"):
        load_images(ImageConfig(data=str(folder)))
    (folder / "val" / "empty").mkdir()
    with pytest.raises(InputError, match=r"no image in '.*val/empty'"):
        load_images(ImageConfig(data=str(folder)))
    (folder / "train").rename(folder / "training")
    with pytest.raises(InputError, match=r"no folder '.*train'; expected train/CLASS"):
        load_images(ImageConfig(data=str(folder)))
    (folder / "train").mkdir()
    with pytest.raises(InputError, match=r"no class folders in '.*train'"):
        load_images(ImageConfig(data=str(folder)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ImageConfig(data="imagenet-typo"), "no data 'imagenet-typo': neither 'digits' nor 'fashion'"),
        (ImageConfig(augmentation="imagenet"), "augmentation 'imagenet' is for folders of images, not 'digits'"),
        (ImageConfig(image_size=0), "image_size 0"),
    ],
)
def test_configs_that_make_no_sense_are_refused(config: ImageConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_images(config)


def test_augmentations_that_make_no_sense_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="'shift' is for the built-in sets"):
        load_images(ImageConfig(data=str(folder), augmentation="shift"))
    with pytest.raises(InputError, match="timm cannot build auto_augment 'rand-x3'"):
        load_images(ImageConfig(data=str(folder), auto_augment="rand-x3"))


def test_built_in_sets_take_a_size_and_shifts() -> None:
    plain = load_images(ImageConfig(image_size=16))
    assert plain.image_size == 16
    assert plain.train[0][0].shape == (1, 16, 16)
    shifted = load_images(ImageConfig(augmentation="shift"))
    key = BatchKey(0, 0, torch.arange(50))
    assert not torch.equal(shifted.train.__getitems__(key)[0], load_images(ImageConfig()).train.__getitems__(key)[0])
    assert torch.equal(shifted.val.__getitems__(key)[0], load_images(ImageConfig()).val.__getitems__(key)[0])


def test_some_classes_of_a_folder_are_numbered_as_they_are_named(tmp_path: Path) -> None:
    root = write_images(tmp_path / "images", ("cat", "dog", "hare"))
    data = load_images(ImageConfig(str(root), image_size=32, augmentation="none", classes=("hare", "cat")))
    assert data.classes == ("hare", "cat")
    whole = load_images(ImageConfig(str(root), image_size=32, augmentation="none"))
    for some, every in ((data.train, whole.train), (data.val, whole.val)):
        assert some.labels.tolist() == [1] * 4 + [0] * 4
        kept = [i for i, label in enumerate(every.labels.tolist()) if label != 1]
        assert all(torch.equal(some[place][0], every[i][0]) for place, i in enumerate(kept))


def test_some_digits_are_held_out_and_normalised_like_all() -> None:
    data = load_images(ImageConfig("digits", classes=("9", "3"), holdout=50))
    whole = load_images(ImageConfig("digits"))
    assert len(data.val) == 50
    assert len(data.train) + 50 == sum((whole.train.labels == label).sum() for label in (3, 9))
    assert {0, 1} == set(data.train.labels.tolist())
    nines = whole.train.images[whole.train.labels == 9]
    assert {image.sum().item() for image in data.train.images[data.train.labels == 0]} <= {
        image.sum().item() for image in nines
    }
    assert torch.equal(data.train.mean, whole.train.mean)


@pytest.mark.parametrize(
    ("classes", "message"),
    [(("9", "ten"), "give some of"), (("1", "1"), "each once"), ((), "give some of")],
)
def test_classes_that_are_none_are_refused(classes: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_images(ImageConfig("digits", classes=classes))
