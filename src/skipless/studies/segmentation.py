"""Segmentation study (section 6.2.1, Tables 2 and 3): dense linear probes on the features of every block."""

from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import nn

from skipless.choices import MULTISCALE
from skipless.data.dense import SegmentationData, UnreadableItem
from skipless.display import Record, Table
from skipless.evaluators.features.extraction import FeatureConfig, ImageTransform
from skipless.evaluators.features.store_builder import files_identity, weights_hash
from skipless.evaluators.pictures.grids import save_png
from skipless.evaluators.probe.dense_set import DenseSet
from skipless.evaluators.probe.linear_probe import TrainedProbe
from skipless.evaluators.probe.pipeline import probe_model
from skipless.evaluators.probe.prediction_picture import prediction_picture
from skipless.evaluators.probe.protocols import DenseProtocol, protocol_named
from skipless.evaluators.probe.results import ProbeResult
from skipless.evaluators.probe.segmentation_metrics import SegmentationScores, segmentation_scores
from skipless.models.vit_view import find_vit
from skipless.progress import progress_bar
from skipless.studies.config import ProbeConfig
from skipless.studies.origin import UNSAID, Origin
from skipless.studies.pages.study_page import write_study_page
from skipless.studies.pages.text import PROBE, trust
from skipless.studies.study_folder import StudyFolder, rank_and_world_size

PICTURES = "pictures.png"
_PICTURES = {PICTURES: "The first images, their true masks, and what the best heads mark"}

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False)
class SegmentationResult(Record):
    """Segmentation scores of a model's features.

    Attributes:
        model: name of the model.
        data: name of the data set.
        probe: scores of the probe.
        majority: scores of predicting the most frequent training class everywhere, the trivial baseline.
        folder: with the files of the study; None where none were written.
    """

    model: str
    data: str
    probe: ProbeResult
    majority: SegmentationScores
    folder: Path | None = field(default=None, compare=False)

    def record(self) -> dict[str, Any]:
        """The whole result as plain values for JSON."""
        return {
            "model": self.model,
            "data": self.data,
            "probe": self.probe.record(),
            "majority": asdict(self.majority),
        }

    def _summary(self) -> str:
        best = self.probe.best
        found = (
            f"best mIoU {best.miou or 0:.2f} % (block {best.name}), most frequent class {self.majority.miou or 0:.2f} %"
        )
        return f"{self.model} on {self.data}, {found}, n = {self.probe.val}"

    def tables(self) -> tuple[Table, ...]:
        """A row for each set of blocks."""
        (table,) = self.probe.tables()
        best = self.probe.best
        compared = [
            f"best: {best.name} at {best.miou or 0:.2f} mIoU",
            f"most frequent class everywhere: {self.majority.miou or 0:.2f} mIoU",
        ]
        caption = f"{self.model} on {self.data}; {table.caption}"
        return (replace(table, caption=caption, notes=[*compared, *table.notes]),)

    def _draw(self, axes: "Axes") -> None:
        self.probe.draw_beside(axes, self.majority.miou)

    def __str__(self) -> str:
        best = self.probe.best
        return "\n".join(
            [
                f"{self.model} on {self.data}",
                str(self.probe),
                f"best: {'+'.join(map(str, best.blocks))} at {best.miou or 0:.2f} mIoU",
                f"most frequent class everywhere: {self.majority.miou or 0:.2f} mIoU",
            ]
        )


def segment(
    model: nn.Module,
    train: SegmentationData,
    val: SegmentationData,
    config: ProbeConfig | None = None,
    *,
    out: Path,
    name: str = "model",
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
    examples: int = 8,
    progress: bool = True,
    origin: Origin = UNSAID,
) -> SegmentationResult:
    """Probe a model's dense features for segmentation. Features are stored on disk, so the backbone runs only once.

    Args:
        model: a vision transformer that an adapter knows, on the device where it shall run.
        train: training images and masks.
        val: images and masks to score.
        config: settings of the study.
        out: parent of the study's folder; features go to `out/features`.
        name: name of the model in tables.
        statistics: mean and standard deviation of each channel; by default those of the model's configuration.
        examples: number of images in the picture.
        progress: whether to show a progress bar.
        origin: whose weights these are and which command asks for it, for the folder's name and its page.

    Raises:
        InputError: if most images of a set cannot be used, or a setting does not fit the model.
    """
    config = config or ProbeConfig()
    protocol, tokens = _resolved_protocol(config), find_vit(model)
    shown = statistics or (tokens.mean, tokens.std)
    identity = (files_identity(i.image for i in train.items), files_identity(i.image for i in val.items))
    settings = {"data": train.name, "images": identity, "masks": _masks(train, val), "weights": weights_hash(tokens)}
    settings |= {"statistics": shown, **asdict(config), "protocol": asdict(protocol)}
    folder = StudyFolder(out, f"linear-probe-{train.name}", settings, state=origin.state)
    with progress_bar("linear heads", "steps", show=progress) as heads:
        probe, judged = probe_model(
            model,
            train,
            val,
            folder=out / "features",
            identity=identity,
            protocol=protocol,
            config=FeatureConfig(config.blocks, (config.kind,), config.norm, config.precision),
            multiscale=_multiscale(config, len(tokens.views)),
            select=config.select,
            seed=config.seed,
            progress=heads,
            transform=ImageTransform.of(model, protocol.image_size, mean=shown[0], std=shown[1]),
        )
    result = SegmentationResult(name, train.name, probe.result, majority_scores(train, val), folder.path)
    folder.finish(result.record(), str(result))
    _write_picture(folder, probe, judged, examples)
    _write_page(folder, result, model, config, origin)
    return result


def _write_picture(folder: StudyFolder, probe: TrainedProbe, judged: DenseSet, images: int) -> None:
    if rank_and_world_size()[0] == 0 and (picture := prediction_picture(probe, judged, images=images)) is not None:
        save_png(picture, folder.path / PICTURES)


def _multiscale(config: ProbeConfig, depth: int) -> tuple[int, ...] | None:
    """Blocks whose features are probed together; none by default where the model has fewer than the default names."""
    return None if config.multiscale == MULTISCALE and depth < len(MULTISCALE) else config.multiscale


def _write_page(
    folder: StudyFolder, result: SegmentationResult, model: nn.Module, config: ProbeConfig, origin: Origin
) -> None:
    notes = trust(PROBE, origin, len(result.probe.skipped), config.select)
    shown = {"name": result.model, "data": result.data, "config": config, "pictures": _PICTURES}
    write_study_page(folder, PROBE, result, model=model, notes=notes, origin=origin, **shown)


def _masks(*sets: SegmentationData) -> list[str]:
    """Which masks these are, by path, size and time of change."""
    return [files_identity(item.mask for item in data.items) for data in sets]


def _resolved_protocol(config: ProbeConfig) -> DenseProtocol:
    """The protocol with the changes of the config."""
    protocol = protocol_named(config.protocol)
    if config.size is not None:
        protocol = replace(protocol, image_size=config.size)
    return protocol if config.epochs is None else replace(protocol, epochs=config.epochs, iterations=None)


def majority_scores(train: SegmentationData, val: SegmentationData) -> SegmentationScores:
    """Scores of predicting the most frequent class of the training masks everywhere.

    Unreadable masks are left out, as in the probe.
    """
    counts = [_pixel_counts(data) for data in (train, val)]
    confusion = np.zeros((len(val.classes), len(val.classes)), dtype=np.int64)
    confusion[:, counts[0].argmax()] = counts[1]
    return segmentation_scores(torch.from_numpy(confusion))


def _pixel_counts(data: SegmentationData) -> Int64[np.ndarray, " classes"]:
    counts = np.zeros(len(data.classes), dtype=np.int64)
    for index in range(len(data)):
        with suppress(UnreadableItem):
            labels = data.load_mask(index)
            counts += np.bincount(labels[labels != data.ignore], minlength=len(counts))
    return counts
