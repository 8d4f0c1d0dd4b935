"""Object discovery (section 6.2.2, Tables 3 and 4): TokenCut or LOST on every block and kind of feature, in one go."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from skipless.data.dense import BoxData
from skipless.errors import InputError
from skipless.evaluators.discovery import CorLoc, Discovery, corloc, draw_discoveries, lost, tokencut
from skipless.evaluators.features.extraction import FeatureConfig, Features, ImageTransform, Key, features
from skipless.evaluators.features.store_builder import files_identity, weights_hash
from skipless.models.tokens import token_model
from skipless.studies.config import DiscoveryConfig
from skipless.studies.formatting import feature_name, markdown_table
from skipless.studies.progress_bar import progress_bar
from skipless.studies.study_folder import StudyFolder, barrier, rank_and_world_size

WHOLE_IMAGE = "whole image"


@dataclass(frozen=True)
class DiscoveryResult:
    """What was found.

    Attributes:
        model: its name.
        data: the set.
        config: how.
        scores: CorLoc of every block and kind.
        last_key: the published choice, keys of the last block; None where it was not asked for.
        best: the block and kind with the highest CorLoc, chosen on these very images, as the paper does.
        whole_image: CorLoc of a box around everything: what must be beaten.
        n: images that count.
        without_boxes: images without an object: they count nowhere.
        unreadable: images that could not be used, and why.
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

    def record(self) -> dict[str, Any]:
        """Everything as JSON."""
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

    def __str__(self) -> str:
        kinds = self.config.kinds
        blocks = dict.fromkeys(block for block, _ in self.scores)
        rows = [[f"block {b}", *(f"{self.scores[b, kind].percent:.1f}" for kind in kinds)] for b in blocks]
        lines = [markdown_table([f"CorLoc, {self.model}", *kinds], rows), ""]
        if self.last_key is not None:
            lines.append(f"last block's key: {self.scores[self.last_key].percent:.1f}")
        lines.append(f"best ({feature_name(self.best)}, chosen on these images): {self.scores[self.best].percent:.1f}")
        lines.append(f"whole image as the box: {self.whole_image.percent:.1f}")
        lines.append(f"{self.data}, n = {self.n}, {self.config.method}; per cent of images with an IoU of at least 0.5")
        lines += [f"! {len(self.unreadable)} images could not be used, see result.json"] if self.unreadable else []
        return "\n".join(lines)


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
) -> DiscoveryResult:
    """Look for the object of every image by every block and kind of feature; go on where an earlier call stopped.

    Under `torchrun` the images are shared out. An image that cannot be read is recorded and left out.

    Args:
        model: any plain ViT of timm's, where it shall run.
        data: images with boxes.
        config: how.
        out: the study gets a folder of its own in it: `result.json`, `table.md`, `pictures.png` and a journal.
        name: of the model, for tables.
        statistics: mean and standard deviation of each channel; the model's own configuration says by default.
        examples: images in the picture.
        progress: show it.

    Returns:
        CorLoc of every block and kind.

    Raises:
        InputError: if no image can be used, or a setting does not fit the model.
    """
    config = config or DiscoveryConfig()
    tokens = token_model(model)
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
    folder = StudyFolder(out, f"{config.method}-{data.name}", settings)
    search.run(folder, show=progress)
    barrier()
    result = _collect_result(folder, name, data, config, keys, last=len(tokens.views) - 1)
    folder.finish(result.record(), str(result))
    if rank_and_world_size()[0] == 0 and examples:
        search.draw(folder, result, examples)
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
        """Search the images that no journal has."""
        rank, world = rank_and_world_size()
        done = {line["image"] for line in folder.read_journal()}
        barrier()  # all have read before one writes
        left = [i for i, item in enumerate(self.data.items) if item.id not in done][rank::world]
        with progress_bar(f"{self.config.method} on {self.data.name}", show=show) as report:
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
        """The picture at the size that is asked for, and by how much it was scaled."""
        if self.config.size is None:
            return image, 1.0
        scale = self.config.size / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        return image.resize((width, height), Image.Resampling.BICUBIC), scale

    def discoveries(self, shown: Image.Image) -> dict[Key, Discovery]:
        """What every block and kind finds in one picture."""
        wanted = FeatureConfig(self.config.blocks, self.config.kinds, self.config.norm, self.config.precision)
        device = next(self.model.parameters()).device
        made = features(self.model, self.transform(shown)[None].to(device), wanted)
        found: dict[Key, Discovery] = {}
        for kind in self.config.kinds:  # every block of a kind has the same width: one stack
            own = [key for key in self.keys if key[1] == kind]
            stack = torch.cat([made[key].patches for key in own])
            found |= zip(own, self._discover(stack, made[own[0]], (shown.height, shown.width)), strict=True)
        return {key: found[key] for key in self.keys}

    def _discover(self, stack: torch.Tensor, like: Features, size: tuple[int, int]) -> list[Discovery]:
        if self.config.method == "lost":
            return lost(stack, like.grid, k=self.config.k, patch=self.patch, image_size=size)
        return tokencut(stack, like.grid, tau=self.config.tau, patch=self.patch, image_size=size)

    def draw(self, folder: StudyFolder, result: DiscoveryResult, examples: int) -> None:
        """Draw what the last block's key and the best feature find in the first images."""
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
        draw_discoveries(folder.path / "pictures.png", images, found, boxes_true=true, names=names, patch=self.patch)


def _collect_result(
    folder: StudyFolder, name: str, data: BoxData, config: DiscoveryConfig, keys: Sequence[Key], last: int
) -> DiscoveryResult:
    lines = {line["image"]: line for line in folder.read_journal()}
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
    )


def _corloc_record(score: CorLoc) -> dict[str, float]:
    return {"percent": score.percent, "hits": score.hits, "n": score.n}
