"""How `skipless eval` runs each study, and what it prints of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from skipless.data import ImageConfig, load_images
from skipless.data.dense import (
    BoxData,
    BoxName,
    LayoutMissing,
    SegmentationData,
    SegmentationName,
    load_boxes,
    load_segmentation,
)
from skipless.errors import InputError
from skipless.models.tokens import token_model
from skipless.recipes import ModelSource
from skipless.studies.classifier import ClassifierConfig, ClassifierResult, classify
from skipless.studies.discovery import DiscoveryConfig, discover
from skipless.studies.names import key_name, markdown
from skipless.studies.neighbours import NeighbourConfig, NeighbourResult, nearest_neighbours
from skipless.studies.pictures import PictureConfig, draw_features, find_pictures
from skipless.studies.pooled import PoolConfig
from skipless.studies.segmentation import ProbeConfig, segment


@dataclass(frozen=True, eq=False)
class Asked:
    """One command: the study, the models (the first is the one that was named), where the data and results lie."""

    what: str
    sources: Sequence[ModelSource]
    data: str | None
    home: Path
    seed: int
    settings: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """The data's folder.

        Raises:
            InputError: if none was given, or it does not exist.
        """
        if self.data is None:
            raise InputError(
                f"{self.what} needs --data, a folder; `skipless data scenes --out DIR` writes one to try it on"
            )
        folder = Path(self.data).expanduser()
        if not folder.is_dir():
            raise InputError(f"--data {self.data!r} is no folder")
        return folder

    def config(self, **fields: Any) -> dict[str, Any]:
        """What was given of some settings, by the names that the study has for them."""
        return {ours: self.settings[theirs] for ours, theirs in fields.items() if theirs in self.settings}


def linear_probe(asked: Asked) -> Iterator[str]:
    """Probe every model, then lay their best beside the majority class."""
    kinds = asked.settings.get("kinds", ("tokens",))
    if len(kinds) != 1:
        raise InputError(f"--kinds {' '.join(kinds)}: a linear probe takes one kind of feature")
    shared = ("protocol", "blocks", "multiscale", "norm", "select", "size", "epochs", "precision")
    config = ProbeConfig(kind=kinds[0], seed=asked.seed, **asked.config(**dict(zip(shared, shared, strict=True))))
    train, val = _segmentation(asked)
    results = []
    for source in asked.sources:
        results.append(
            segment(source.model, train, val, config, out=asked.home, name=source.title, statistics=source.statistics)
        )
        yield str(results[-1])
    bests = [(result.model, result.probe.best) for result in results]
    rows = [[name, f"{best.miou or 0:.1f}", "+".join(map(str, best.blocks))] for name, best in bests]
    majority = ["most frequent class", f"{results[0].majority.miou or 0:.1f}", "–"]
    yield markdown(["", "mIoU", "best blocks"], [*rows, majority])


def discovery(asked: Asked) -> Iterator[str]:
    """Search by every model, then lay last-block key and best beside the whole image."""
    shared = ("blocks", "kinds", "norm", "size", "tau", "precision")
    config = DiscoveryConfig(method=_method(asked.what), **asked.config(**dict(zip(shared, shared, strict=True))))
    data = _boxes(asked)
    results = []
    for source in asked.sources:
        results.append(
            discover(source.model, data, config, out=asked.home, name=source.title, statistics=source.statistics)
        )
        yield str(results[-1])
    rows = []
    for result in results:
        last = "–" if result.last_key is None else f"{result.scores[result.last_key].percent:.1f}"
        rows.append([result.model, last, f"{result.scores[result.best].percent:.1f} ({key_name(result.best)})"])
    whole = f"{results[0].whole_image.percent:.1f}"
    yield markdown(["CorLoc", "last block's key", "best"], [*rows, ["whole image", whole, whole]])


def neighbours(asked: Asked) -> Iterator[str]:
    """Classify by every model's neighbours, then lay their best beside the largest class."""
    config = NeighbourConfig(pool=_pool(asked), **asked.config(ks="ks"))
    results: list[NeighbourResult] = []
    for result in _classified(asked, nearest_neighbours, config):
        results.append(result)
        yield str(result)
    rows = [
        [r.model, f"{r.scores[r.best[0]][r.best[1]].top1:.1f}", "block {}, k = {}".format(*r.best)] for r in results
    ]
    rows.append(["largest class", f"{results[0].pooled.majority:.1f}", "–"])
    yield markdown(["k-NN", "best top-1", "at"], rows)


def classifier(asked: Asked) -> Iterator[str]:
    """Classify by linear heads on every model, then lay their best beside the largest class."""
    config = ClassifierConfig(pool=_pool(asked), seed=asked.seed, **asked.config(epochs="epochs", select="select"))
    results: list[ClassifierResult] = []
    for result in _classified(asked, classify, config):
        results.append(result)
        yield str(result)
    rows = [[result.model, f"{result.best[1]:.1f}", f"block {result.best[0]}"] for result in results]
    rows.append(["largest class", f"{results[0].pooled.majority:.1f}", "–"])
    yield markdown(["linear", "best top-1", "at"], rows)


def pictures(asked: Asked) -> Iterator[str]:
    """Draw the features of every model side by side."""
    names = {"kinds": "kinds", "blocks": "blocks", "norm": "norm", "size": "size", "precision": "precision"}
    config = PictureConfig(**asked.config(**names))
    images = find_pictures(asked.folder, asked.settings.get("sample", 8))
    models = {source.title: (source.model, source.statistics) for source in asked.sources}
    if len(models) < len(asked.sources):
        names = ", ".join(source.title for source in asked.sources)
        raise InputError(f"models of one name, {names}, cannot be told apart in a picture; rename a folder")
    for path in draw_features(models, images, config, out=asked.home):
        yield f"wrote {path}"


STUDIES: dict[str, Callable[[Asked], Iterator[str]]] = {
    "linear-probe": linear_probe,
    "tokencut": discovery,
    "lost": discovery,
    "knn": neighbours,
    "linear-classifier": classifier,
    "pca": pictures,
}


def _pool(asked: Asked) -> PoolConfig:
    shared = ("blocks", "pooling", "norm", "precision")
    return PoolConfig(**asked.config(**dict(zip(shared, shared, strict=True))))


def _classified(asked: Asked, study: Callable[..., Any], config: Any) -> Iterator[Any]:
    """Run a study of every model on the named images, or on those that the first model was trained on."""
    first = asked.sources[0]
    if asked.data is None and first.recipe is None:
        raise InputError(f"{asked.what} needs --data: digits, fashion, or a folder with train/CLASS and val/CLASS")
    base = first.recipe.data if first.recipe is not None else ImageConfig(image_size=first.image_size)
    named = asked.data or base.data
    images = load_images(replace(base, data=named, augmentation="none", image_size=first.image_size))
    for source in asked.sources:
        tokens = token_model(source.model)
        mean, std = source.statistics or (tokens.mean, tokens.std)
        if len(mean) != images.channels:
            raise InputError(
                f"{source.title} takes images of {len(mean)} channels, those of {named!r} have {images.channels}"
            )
        train, val = images.train.normalised_by(mean, std), images.val.normalised_by(mean, std)
        own = replace(images, train=train, val=val)
        yield study(source.model, own, config, out=asked.home, name=source.title, data_name=Path(named).name)


def _method(what: str) -> Literal["tokencut", "lost"]:
    return "lost" if what == "lost" else "tokencut"


def _segmentation(asked: Asked) -> tuple[SegmentationData, SegmentationData]:
    def load(name: Any) -> tuple[SegmentationData, SegmentationData]:
        train = load_segmentation(name, asked.folder, "train", sample=asked.settings.get("sample"), seed=asked.seed)
        return train, load_segmentation(name, asked.folder, "val")

    return _found(asked, get_args(SegmentationName), load)


def _boxes(asked: Asked) -> BoxData:
    def load(name: Any) -> BoxData:
        return load_boxes(name, asked.folder, sample=asked.settings.get("sample"), seed=asked.seed)

    return _found(asked, get_args(BoxName), load)


def _found(asked: Asked, names: Sequence[str], load: Callable[[str], Any]) -> Any:
    """Read the data set that was named, or the first whose layout lies there."""
    folder = asked.folder
    if (name := asked.settings.get("dataset")) is not None:
        if name not in names:
            raise InputError(f"--dataset {name} is not for {asked.what}, which takes {', '.join(names)}")
        return load(name)
    refusals = []
    for candidate in names:
        try:
            return load(candidate)
        except LayoutMissing as error:
            refusals.append(f"{candidate}: {error}")
    raise InputError("\n  ".join([f"--data {str(folder)!r} has none of the known layouts:", *refusals]))
