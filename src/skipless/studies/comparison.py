"""Run one study on several models and compare them in a table. The first model is the one named on the command line."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from skipless.choices import BoxName, SegmentationName
from skipless.data import ImageConfig, load_images
from skipless.data.dense import (
    BoxData,
    LayoutMissing,
    SegmentationData,
    load_boxes,
    load_segmentation,
)
from skipless.errors import InputError
from skipless.models.vit_view import find_vit
from skipless.recipes import ModelSource
from skipless.studies.classifier import ClassifierResult, classify
from skipless.studies.config import ClassifierConfig, DiscoveryConfig, NeighbourConfig, PictureConfig, ProbeConfig
from skipless.studies.discovery import discover
from skipless.studies.feature_pictures import draw_features, find_pictures
from skipless.studies.formatting import feature_name, markdown_table
from skipless.studies.neighbours import NeighbourResult, nearest_neighbours
from skipless.studies.origin import Origin
from skipless.studies.segmentation import segment


@dataclass(frozen=True, eq=False)
class Comparison:
    """The models to compare, the data to use, and the folder for results.

    Attributes:
        study: name of the study, for messages.
        sources: the models.
        data: folder or name of the data; None for what the first model was trained on.
        home: folder for results.
        seed: seed of the samples.
        sample: number of images to use; None for all.
        dataset: name of the data set in the folder; None recognises it by its layout.
        command: the command line that asks for it.
    """

    study: str
    sources: Sequence[ModelSource]
    data: str | None
    home: Path
    seed: int = 0
    sample: int | None = None
    dataset: str | None = None
    command: str = ""

    def origin(self, source: ModelSource) -> Origin:
        """What a study of one of the models is told of it and of the call."""
        return Origin(source.state, self.command)

    @property
    def folder(self) -> Path:
        """The folder of the data.

        Raises:
            InputError: if none was given, or it does not exist.
        """
        if self.data is None:
            raise InputError(
                f"{self.study} needs --data, a folder; `skipless data scenes --out DIR` writes one to try it on"
            )
        folder = Path(self.data).expanduser()
        if not folder.is_dir():
            raise InputError(f"--data {self.data!r} is no folder")
        return folder


def compare_probes(comparison: Comparison, config: ProbeConfig) -> Iterator[str]:
    """Probe every model, then compare their best blocks with the majority class."""
    train, val = _load_masks(comparison)
    results = []
    for source in comparison.sources:
        results.append(
            segment(
                source.model,
                train,
                val,
                config,
                out=comparison.home,
                name=source.title,
                statistics=source.statistics,
                origin=comparison.origin(source),
            )
        )
        yield str(results[-1])
    bests = [(result.model, result.probe.best) for result in results]
    rows = [[name, f"{best.miou or 0:.1f}", "+".join(map(str, best.blocks))] for name, best in bests]
    majority = ["most frequent class", f"{results[0].majority.miou or 0:.1f}", "–"]
    yield markdown_table(["", "mIoU", "best blocks"], [*rows, majority])


def compare_discoveries(comparison: Comparison, config: DiscoveryConfig) -> Iterator[str]:
    """Run object discovery with every model, then compare last-block key and best feature with the whole image."""
    data = _load_boxes(comparison)
    results = []
    for source in comparison.sources:
        results.append(
            discover(
                source.model,
                data,
                config,
                out=comparison.home,
                name=source.title,
                statistics=source.statistics,
                origin=comparison.origin(source),
            )
        )
        yield str(results[-1])
    rows = []
    for result in results:
        last = "–" if result.last_key is None else f"{result.scores[result.last_key].percent:.1f}"
        rows.append([result.model, last, f"{result.scores[result.best].percent:.1f} ({feature_name(result.best)})"])
    whole = f"{results[0].whole_image.percent:.1f}"
    yield markdown_table(["CorLoc", "last block's key", "best"], [*rows, ["whole image", whole, whole]])


def compare_neighbours(comparison: Comparison, config: NeighbourConfig) -> Iterator[str]:
    """Run k-NN with every model, then compare their best blocks with the largest class."""
    results: list[NeighbourResult] = []
    for result in _classify_each(comparison, nearest_neighbours, config):
        results.append(result)
        yield str(result)
    rows = [
        [r.model, f"{r.scores[r.best[0]][r.best[1]].top1:.1f}", "block {}, k = {}".format(*r.best)] for r in results
    ]
    rows.append(["largest class", f"{results[0].pooled.majority:.1f}", "–"])
    yield markdown_table(["k-NN", "best top-1", "at"], rows)


def compare_classifiers(comparison: Comparison, config: ClassifierConfig) -> Iterator[str]:
    """Train linear classifiers on every model, then compare their best blocks with the largest class."""
    results: list[ClassifierResult] = []
    for result in _classify_each(comparison, classify, config):
        results.append(result)
        yield str(result)
    rows = [[result.model, f"{result.best[1]:.1f}", f"block {result.best[0]}"] for result in results]
    rows.append(["largest class", f"{results[0].pooled.majority:.1f}", "–"])
    yield markdown_table(["linear", "best top-1", "at"], rows)


def compare_pictures(comparison: Comparison, config: PictureConfig) -> Iterator[str]:
    """Draw the features of all models side by side."""
    images = find_pictures(comparison.folder, 8 if comparison.sample is None else comparison.sample)
    models = {source.title: (source.model, source.statistics) for source in comparison.sources}
    if len(models) < len(comparison.sources):
        names = ", ".join(source.title for source in comparison.sources)
        raise InputError(f"models of one name, {names}, cannot be told apart in a picture; rename a folder")
    folder = comparison.folder.resolve().name
    origin = comparison.origin(comparison.sources[0])
    for path in draw_features(models, images, config, out=comparison.home, data_name=folder, origin=origin):
        yield f"wrote {path}"


def _classify_each(comparison: Comparison, study: Callable[..., Any], config: Any) -> Iterator[Any]:
    """Run a study with every model on the given data, or on the data that the first model was trained on."""
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
        own = replace(images, train=train, val=val)
        yield study(
            source.model,
            own,
            config,
            out=comparison.home,
            name=source.title,
            data_name=Path(named).name,
            origin=comparison.origin(source),
        )


def _load_masks(comparison: Comparison) -> tuple[SegmentationData, SegmentationData]:
    def load(name: Any) -> tuple[SegmentationData, SegmentationData]:
        train = load_segmentation(name, comparison.folder, "train", sample=comparison.sample, seed=comparison.seed)
        return train, load_segmentation(name, comparison.folder, "val")

    return _load_recognised(comparison, get_args(SegmentationName), load)


def _load_boxes(comparison: Comparison) -> BoxData:
    def load(name: Any) -> BoxData:
        return load_boxes(name, comparison.folder, sample=comparison.sample, seed=comparison.seed)

    return _load_recognised(comparison, get_args(BoxName), load)


def _load_recognised(comparison: Comparison, names: Sequence[str], load: Callable[[str], Any]) -> Any:
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
