"""The data that models are compared on, by its layout or by the run that the first model is of."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, get_args

from skipless.choices import BoxName, SegmentationName
from skipless.data import ImageConfig, ImageData, load_images
from skipless.data.dense import BoxData, LayoutMissing, SegmentationData, load_boxes, load_segmentation
from skipless.display.values import place_name
from skipless.errors import InputError
from skipless.models.vit_view import find_vit
from skipless.recipes import ModelSource
from skipless.studies.comparison.asked import Comparison


def load_masks(comparison: Comparison) -> tuple[SegmentationData, SegmentationData]:
    """Training and validation images with masks, of the layout that the folder has."""

    def load(name: Any) -> tuple[SegmentationData, SegmentationData]:
        train = load_segmentation(name, comparison.folder, "train", sample=comparison.sample, seed=comparison.seed)
        return train, load_segmentation(name, comparison.folder, "val")

    return _recognised(comparison, get_args(SegmentationName), load)


def load_found_boxes(comparison: Comparison) -> BoxData:
    """Images with boxes, of the layout that the folder has."""

    def load(name: Any) -> BoxData:
        return load_boxes(name, comparison.folder, sample=comparison.sample, seed=comparison.seed)

    return _recognised(comparison, get_args(BoxName), load)


def _recognised(comparison: Comparison, names: Sequence[str], load: Callable[[str], Any]) -> Any:
    """Load the data set that was named, or the first one whose layout the folder has."""
    folder = comparison.folder
    if (name := comparison.dataset) is not None:
        if name not in names:
            raise InputError(f"--dataset {name} is not for {comparison.study}, which takes {', '.join(names)}")
        return load(name)
    refusals = []
    for candidate in names:
        try:
            return load(candidate)
        except LayoutMissing as error:
            refusals.append(f"{candidate}: {error}")
    raise InputError("\n  ".join([f"--data {str(folder)!r} has none of the known layouts:", *refusals]))


def load_classified(comparison: Comparison) -> Iterator[tuple[ModelSource, ImageData, str]]:
    """Each model with the images normalised as it wants them, and the data's name.

    The images are those that were given, or those that the first model was trained on.

    Raises:
        InputError: if none were given and the first model is of no run, or a model takes other channels.
    """
    first = comparison.sources[0]
    if comparison.data is None and first.recipe is None:
        raise InputError(
            f"{comparison.study} needs --data: digits, fashion, or a folder with train/CLASS and val/CLASS"
        )
    base = first.recipe.data if first.recipe is not None else ImageConfig(image_size=first.image_size)
    named = comparison.data or base.data
    images = load_images(replace(base, data=named, augmentation="none", image_size=first.image_size))
    for source in comparison.sources:
        tokens = find_vit(source.model)
        mean, std = source.statistics or (tokens.mean, tokens.std)
        if len(mean) != images.channels:
            raise InputError(
                f"{source.title} takes images of {len(mean)} channels, those of {named!r} have {images.channels}"
            )
        train, val = images.train.normalised_by(mean, std), images.val.normalised_by(mean, std)
        yield source, replace(images, train=train, val=val), place_name(named)
