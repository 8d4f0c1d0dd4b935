"""Object discovery study (section 6.2.2, Tables 3 and 4): TokenCut or LOST on every block and kind of feature."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from skipless.data.dense import BoxData
from skipless.display import Record, Table
from skipless.display.axes import from_zero, legend, level, lines_by_name
from skipless.display.values import counted
from skipless.errors import InputError
from skipless.evaluators.discovery import CorLoc, Discovery, corloc, draw_discoveries, lost, tokencut
from skipless.evaluators.features.extraction import FeatureConfig, Features, ImageTransform, Key, features
from skipless.evaluators.features.store_builder import files_identity, weights_hash
from skipless.models.vit_view import find_vit
from skipless.progress import progress_bar, tell_kept
from skipless.studies.config import DiscoveryConfig
from skipless.studies.formatting import feature_name
from skipless.studies.origin import UNSAID, Origin
from skipless.studies.pages.study_page import write_study_page
from skipless.studies.pages.text import LOST, TOKENCUT, trust
from skipless.studies.study_folder import StudyFolder, barrier, rank_and_world_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WHOLE_IMAGE = "whole image"
PICTURES = "pictures.png"
_PICTURES = {PICTURES: "The first images, with true boxes, found boxes, and what the boxes are found by"}


@dataclass(frozen=True, repr=False)
class DiscoveryResult(Record):
    """CorLoc of a model's features.

    Attributes:
        model: name of the model.
        data: name of the data set.
        config: settings of the study.
        scores: CorLoc of every block and kind.
        last_key: the published choice, the keys of the last block; None if they were not searched with.
        best: the block and kind with the highest CorLoc, chosen on the scored images themselves, as in the paper.
        whole_image: CorLoc of a box around the whole image, the trivial baseline.
        n: number of images scored.
        without_boxes: number of images without an object, which are not scored.
        unreadable: for each image that could not be used, the reason.
        folder: with the files of the study; None where none were written.
    """

    model: str
    data: str
    config: DiscoveryConfig
    scores: Mapping[Key, CorLoc]
    last_key: Key | None
    best: Key
    whole_image: CorLoc
    n: int
    without_boxes: int
    unreadable: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = field(default=None, compare=False)

    def record(self) -> dict[str, Any]:
        """The whole result as plain values for JSON."""
        return {
            "model": self.model,
            "data": self.data,
            "config": asdict(self.config),
            "corloc": {feature_name(key): _corloc_record(score) for key, score in self.scores.items()},
            "last_key": self.last_key and feature_name(self.last_key),
            "best": feature_name(self.best),
            "whole_image": _corloc_record(self.whole_image),
            "n": self.n,
            "without_boxes": self.without_boxes,
            "unreadable": dict(self.unreadable),
        }

    def _summary(self) -> str:
        best = f"best {self.scores[self.best].percent:.1f} % ({feature_name(self.best)})"
        whole = f"whole image {self.whole_image.percent:.1f} %"
        return f"{self.model} on {self.data}, {self.config.method}, CorLoc: {best}, {whole}; n = {self.n}"

    @property
    def _blocks(self) -> list[int]:
        return list(dict.fromkeys(block for block, _ in self.scores))

    def tables(self) -> tuple[Table, ...]:
        """A row for each block, a column for each kind of feature; CorLoc in per cent."""
        kinds = self.config.kinds
        rows = [[f"block {b}", *(f"{self.scores[b, kind].percent:.1f}" for kind in kinds)] for b in self._blocks]
        notes, about, remark = self._notes()
        return (Table([f"CorLoc, {self.model}", *kinds], rows, about, [*notes, *remark], align=f"l{'r' * len(kinds)}"),)

    def _draw(self, axes: "Axes") -> None:
        series = {kind: [self.scores[b, kind].percent for b in self._blocks] for kind in self.config.kinds}
        lines_by_name(axes, [str(block) for block in self._blocks], dict(series), "CorLoc, %")
        level(axes, self.whole_image.percent, "whole image")
        from_zero(axes)
        legend(axes)

    def __str__(self) -> str:
        (table,) = self.tables()
        notes, about, remark = self._notes()
        return "\n".join([table.markdown(), "", *notes, about, *remark])

    def _notes(self) -> tuple[list[str], str, list[str]]:
        """What stands below the table: the chosen features, what it is of, and the images that were left out."""
        lines = []
        if self.last_key is not None:
            lines.append(f"last block's key: {self.scores[self.last_key].percent:.1f}")
        lines.append(f"best ({feature_name(self.best)}, chosen on these images): {self.scores[self.best].percent:.1f}")
        lines.append(f"whole image as the box: {self.whole_image.percent:.1f}")
        about = f"{self.data}, n = {self.n}, {self.config.method}; per cent of images with an IoU of at least 0.5"
        lost = (
            [f"! {counted(len(self.unreadable), 'image')} could not be used, see result.json"]
            if self.unreadable
            else []
        )
        return lines, about, lost


def discover(
    model: nn.Module,
    data: BoxData,
    config: DiscoveryConfig | None = None,
    *,
    out: Path,
    name: str = "model",
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
    examples: int = 8,
    progress: bool = True,
    origin: Origin = UNSAID,
) -> DiscoveryResult:
    """Discover an object in every image with every block and kind of feature; resumes an interrupted call.

    Under `torchrun` the images are distributed over the processes. An image that cannot be read is recorded and left
    out.

    Args:
        model: a vision transformer that an adapter knows, on the device where it shall run.
        data: images with boxes.
        config: settings of the study.
        out: parent of the study's folder, which gets `result.json`, `table.md`, `pictures.png` and a journal.
        name: name of the model in tables.
        statistics: mean and standard deviation of each channel; by default those of the model's configuration.
        examples: number of images in the picture.
        progress: whether to show a progress bar.
        origin: whose weights these are and which command asks for it, for the folder's name and its page.

    Returns:
        CorLoc of every block and kind.

    Raises:
        InputError: if no image can be used, or a setting does not fit the model.
    """
    config = config or DiscoveryConfig()
    tokens = find_vit(model)
    if tokens.patch[0] != tokens.patch[1]:
        raise InputError(f"patches of {tokens.patch[0]} x {tokens.patch[1]}: object discovery takes square ones")
    keys = FeatureConfig(config.blocks, config.kinds, config.norm, config.precision).keys(len(tokens.views))
    mean, std = statistics or (tokens.mean, tokens.std)
    search = _Search(model, data, config, keys, ImageTransform(mean, std, tokens.patch), tokens.patch[0])
    settings = {
        "data": data.name,
        "images": files_identity(item.image for item in data.items),
        "annotations": files_identity(dict.fromkeys(item.annotation for item in data.items)),
        "weights": weights_hash(tokens),
        "statistics": (mean, std),
        **asdict(config),
    }
    folder = StudyFolder(out, f"{config.method}-{data.name}", settings, state=origin.state)
    search.run(folder, show=progress)
    barrier()
    result = _collect_result(folder, name, data, config, keys, last=len(tokens.views) - 1)
    folder.finish(result.record(), str(result))
    if rank_and_world_size()[0] == 0 and examples:
        search.draw(folder, result, examples)
    text = TOKENCUT if config.method == "tokencut" else LOST
    notes = trust(text, origin, len(result.unreadable))
    shown = {"name": name, "data": result.data, "config": config, "pictures": _PICTURES}
    write_study_page(folder, text, result, model=model, notes=notes, origin=origin, **shown)
    return result


@dataclass(frozen=True, eq=False)
class _Search:
    model: nn.Module
    data: BoxData
    config: DiscoveryConfig
    keys: tuple[Key, ...]
    transform: ImageTransform
    patch: int

    def run(self, folder: StudyFolder, *, show: bool) -> None:
        """Search the images that are in no journal yet."""
        rank, world = rank_and_world_size()
        done = _searched(folder).keys()
        barrier()  # every process must have read the journals before any writes
        what = f"{self.config.method} on {self.data.name}"
        tell_kept(what, len(done), len(self.data), "images", show=show)
        left = [i for i, item in enumerate(self.data.items) if item.id not in done][rank::world]
        with progress_bar(what, "images", show=show and bool(left)) as report:
            for count, index in enumerate(left, 1):
                folder.append_journal({"image": self.data.items[index].id} | self._search_image(index))
                report(count, len(left))

    def _search_image(self, index: int) -> dict[str, Any]:
        try:
            image, objects = self.data.load(index)
            if not len(objects):
                return {"true": []}
            shown, scale = self._resized(image)
            found = self.discoveries(shown)
        except InputError as error:
            return {"failed": str(error)}
        limits = np.tile(image.size, 2)
        boxes = {
            feature_name(key): np.minimum(np.round(np.array(discovery.box) / scale), limits).astype(int).tolist()
            for key, discovery in found.items()
        }
        return {"true": objects.boxes.tolist(), "found": boxes | {WHOLE_IMAGE: [0, 0, image.width, image.height]}}

    def _resized(self, image: Image.Image) -> tuple[Image.Image, float]:
        """The picture at the configured size, and the scale factor."""
        if self.config.size is None:
            return image, 1.0
        scale = self.config.size / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        return image.resize((width, height), Image.Resampling.BICUBIC), scale

    def discoveries(self, shown: Image.Image) -> dict[Key, Discovery]:
        """The discovery of every block and kind in one picture."""
        wanted = FeatureConfig(self.config.blocks, self.config.kinds, self.config.norm, self.config.precision)
        device = next(self.model.parameters()).device
        made = features(self.model, self.transform(shown)[None].to(device), wanted)
        found: dict[Key, Discovery] = {}
        for kind in self.config.kinds:  # blocks have equal widths for one kind, so they form one batch
            own = [key for key in self.keys if key[1] == kind]
            stack = torch.cat([made[key].patches for key in own])
            found |= zip(own, self._discover(stack, made[own[0]], (shown.height, shown.width)), strict=True)
        return {key: found[key] for key in self.keys}

    def _discover(self, stack: torch.Tensor, like: Features, size: tuple[int, int]) -> list[Discovery]:
        if self.config.method == "lost":
            return lost(stack, like.grid, k=self.config.k, patch=self.patch, image_size=size)
        return tokencut(stack, like.grid, tau=self.config.tau, patch=self.patch, image_size=size)

    def draw(self, folder: StudyFolder, result: DiscoveryResult, examples: int) -> None:
        """Draw the discoveries of the last block's key and of the best feature in the first images."""
        chosen = list(dict.fromkeys(key for key in (result.last_key, result.best) if key is not None))
        images, true, names, found = [], [], [], {feature_name(key): [] for key in chosen}
        for index, item in enumerate(self.data.items):
            if len(images) == examples:
                break
            if item.id in result.unreadable:
                continue
            image, objects = self.data.load(index)
            shown, scale = self._resized(image)
            discoveries = self.discoveries(shown)
            images.append(torch.from_numpy(np.array(shown)).permute(2, 0, 1))
            true.append((objects.boxes * scale).tolist())
            names.append(item.id)
            for key in chosen:
                found[feature_name(key)].append(discoveries[key])
        draw_discoveries(folder.path / PICTURES, images, found, boxes_true=true, names=names, patch=self.patch)


def _searched(folder: StudyFolder) -> dict[str, dict[str, Any]]:
    """The journal's line of every image. An earlier version searched images with boxes that end before they start."""
    return {
        line["image"]: line
        for line in folder.read_journal()
        if all(xmin <= xmax and ymin <= ymax for xmin, ymin, xmax, ymax in line.get("true", ()))
    }


def _collect_result(
    folder: StudyFolder, name: str, data: BoxData, config: DiscoveryConfig, keys: Sequence[Key], last: int
) -> DiscoveryResult:
    lines = _searched(folder)
    ordered = [lines[item.id] for item in data.items if item.id in lines]
    failed = {line["image"]: line["failed"] for line in ordered if "failed" in line}
    usable = [line for line in ordered if line.get("found")]
    if not usable:
        reason = next(iter(failed.values()), "no image has an object")
        raise InputError(f"none of the {len(data)} images of {data.name} can be used: {reason}")
    true = [line["true"] for line in usable]
    scores = {key: corloc([line["found"][feature_name(key)] for line in usable], true) for key in keys}
    return DiscoveryResult(
        model=name,
        data=f"{data.name} {data.split}",
        config=config,
        scores=scores,
        last_key=(last, "k") if (last, "k") in scores else None,
        best=max(scores, key=lambda key: scores[key].percent),
        whole_image=corloc([line["found"][WHOLE_IMAGE] for line in usable], true),
        n=len(usable),
        without_boxes=len(ordered) - len(failed) - len(usable),
        unreadable=failed,
        folder=folder.path,
    )


def _corloc_record(score: CorLoc) -> dict[str, float]:
    return {"percent": score.percent, "hits": score.hits, "n": score.n}
