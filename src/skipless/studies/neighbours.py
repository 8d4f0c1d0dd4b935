"""k-NN classification by frozen features, DINO's evaluation, for every block: skipless models peak in the middle."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from skipless.data.images import ImageData
from skipless.data.loader import BatchedDataset, BatchKey
from skipless.errors import InputError
from skipless.evaluators.feature_build import weights_hash
from skipless.evaluators.features import FeatureConfig, features
from skipless.evaluators.knn import KnnAccuracy, knn_blocks
from skipless.models.tokens import token_model
from skipless.studies.folder import StudyFolder, process, wait_for_all
from skipless.studies.names import markdown
from skipless.studies.progress import counted
from skipless.training.files import replacing

Pooling = Literal["class", "mean"]
SHARD = 512  # images: what an interruption costs
_UNREADABLE = -1  # label of an image that could not be read


@dataclass(frozen=True)
class NeighbourConfig:
    """Which features vote, and how.

    Attributes:
        ks: numbers of neighbours; 10, 20, 100 and 200 are DINO's.
        temperature: of the votes.
        blocks: from 0, negative ones from the last; None is every block.
        pooling: the class token, as DINO does, or the mean of the patches; None is the class token where there is one.
        norm: with the model's last norm on every block, as DINO does, or without.
        batch_size: images at a time.
        precision: of the backbone.
    """

    ks: tuple[int, ...] = (10, 20)
    temperature: float = 0.07
    blocks: tuple[int, ...] | None = None
    pooling: Pooling | None = None
    norm: Literal["final", "none"] = "final"
    batch_size: int = 64
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"


@dataclass(frozen=True)
class NeighbourResult:
    """Accuracy of every block.

    Attributes:
        model: its name.
        data: the set.
        config: how.
        pooling: what stood for an image.
        scores: by block, then by k.
        majority: per cent of the test images in the largest class of the training images: what must be beaten.
        unreadable: images that could not be used, and why.
    """

    model: str
    data: str
    config: NeighbourConfig
    pooling: Pooling
    scores: Mapping[int, Mapping[int, KnnAccuracy]]
    majority: float
    unreadable: Mapping[str, str] = field(default_factory=dict)

    @property
    def best(self) -> tuple[int, int]:
        """Block and k of the highest top-1, chosen on these very images."""
        return max(((b, k) for b, by_k in self.scores.items() for k in by_k), key=lambda at: self._top1(*at))

    def _top1(self, block: int, k: int) -> float:
        return self.scores[block][k].top1

    def record(self) -> dict[str, Any]:
        """Everything as JSON."""
        return {
            "model": self.model,
            "data": self.data,
            "config": asdict(self.config),
            "pooling": self.pooling,
            "knn": {f"block {b}": {f"k {k}": asdict(s) for k, s in by_k.items()} for b, by_k in self.scores.items()},
            "majority": self.majority,
            "unreadable": dict(self.unreadable),
        }

    def __str__(self) -> str:
        head = [f"k-NN top-1, {self.model}", *(f"k = {k}" for k in self.config.ks)]
        rows = [[f"block {b}", *(f"{s.top1:.1f}" for s in by_k.values())] for b, by_k in self.scores.items()]
        block, k = self.best
        last = max(self.scores)
        first = self.scores[last][self.config.ks[0]]
        lines = [
            markdown(head, rows),
            "",
            f"best (block {block}, k = {k}, chosen on these images): {self._top1(block, k):.1f}",
            f"last block asked for (block {last}, k = {first.k}): {first.top1:.1f}",
            f"largest class: {self.majority:.1f}",
            f"{self.data}, {first.n_train} training images, n = {first.n}, {self.pooling} token, "
            f"T = {first.temperature}",
        ]
        lines += [f"! {len(self.unreadable)} images could not be used, see result.json"] if self.unreadable else []
        return "\n".join(lines)


def nearest_neighbours(
    model: nn.Module,
    data: ImageData,
    config: NeighbourConfig | None = None,
    *,
    out: Path,
    name: str = "model",
    data_name: str = "data",
    progress: bool = True,
) -> NeighbourResult:
    """Classify the validation images by the nearest training images; features are kept, so that none is made twice.

    Args:
        model: any plain ViT of timm's, where it shall run.
        data: images, never augmented.
        config: how.
        out: the study gets a folder of its own in it.
        name: of the model, for tables.
        data_name: of the set, for tables.
        progress: show it.

    Raises:
        InputError: if no image of a split can be read, or there are fewer than k.
    """
    config = config or NeighbourConfig()
    tokens = token_model(model)
    if config.pooling == "class" and not tokens.prefix:
        raise InputError(f"pooling='class': {name} has no class token; choose 'mean'")
    pooling: Pooling = config.pooling or ("class" if tokens.prefix else "mean")
    settings = {
        "data": data_name,
        "images": [_identity(data.train), _identity(data.val), data.image_size],
        "weights": weights_hash(tokens),
        "pooling": pooling,
        **{key: value for key, value in asdict(config).items() if key not in ("ks", "temperature", "batch_size")},
    }
    folder = StudyFolder(out, f"knn-{data_name}", settings)
    wanted = FeatureConfig(config.blocks, ("tokens",), config.norm, config.precision)
    blocks = [block for block, _ in wanted.keys(len(tokens.views))]
    pool = _Pool(model, wanted, blocks, pooling, config.batch_size)
    made = [
        pool.features(split, folder.path / part, f"k-NN features, {part}", show=progress)
        for part, split in (("train", data.train), ("val", data.val))
    ]
    (x_train, y_train, failed_train), (x_val, y_val, failed_val) = made
    scores = knn_blocks(x_train, y_train, x_val, y_val, ks=config.ks, temperature=config.temperature)
    majority = 100 * (y_val == y_train.bincount().argmax()).double().mean().item()
    result = NeighbourResult(name, data_name, config, pooling, scores, majority, failed_train | failed_val)
    folder.finish(result.record(), str(result))
    return result


@dataclass(frozen=True, eq=False)
class _Pool:
    model: nn.Module
    config: FeatureConfig
    blocks: Sequence[int]
    pooling: Pooling
    batch_size: int

    def features(
        self, data: BatchedDataset, folder: Path, what: str, *, show: bool
    ) -> tuple[dict[int, Float[Tensor, "n d"]], Tensor, dict[str, str]]:
        """Pooled features of a split by block, the labels, and what could not be read."""
        folder.mkdir(parents=True, exist_ok=True)
        rank, world = process()
        shards = list(torch.arange(len(data)).split(SHARD))
        own = [number for number in range(len(shards)) if number % world == rank]
        with counted(what, show=show) as report:
            for count, number in enumerate(own, 1):
                if not (folder / f"{number:05d}.npz").exists():
                    self._write(data, shards[number], folder / f"{number:05d}.npz")
                report(count, len(own))
        wait_for_all()
        parts = [dict(np.load(folder / f"{number:05d}.npz")) for number in range(len(shards))]
        labels = torch.from_numpy(np.concatenate([part["labels"] for part in parts]))
        rows = torch.from_numpy(np.concatenate([part["features"] for part in parts]))
        failed = {str(key): str(why) for part in parts for key, why in zip(part["failed"], part["why"], strict=True)}
        good = labels != _UNREADABLE
        if not good.any():
            raise InputError(f"none of the {len(data)} images can be read: {next(iter(failed.values()))}")
        return {block: rows[good, i].float() for i, block in enumerate(self.blocks)}, labels[good], failed

    def _write(self, data: BatchedDataset, indices: Tensor, path: Path) -> None:
        features, labels, failed, why = [], [], [], []
        for chunk in indices.split(self.batch_size):
            images, chunk_labels, errors = _read(data, chunk)
            labels.append(chunk_labels)
            failed += [f"image {index}" for index in errors]
            why += list(errors.values())
            features.append(self._pooled(images))
        content = {
            "features": torch.cat(features).half().numpy(),
            "labels": torch.cat(labels).numpy(),
            "failed": np.array(failed, dtype=np.str_),
            "why": np.array(why, dtype=np.str_),
        }
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **content)

    def _pooled(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b l d"]:
        device = next(self.model.parameters()).device
        made = features(self.model, images.to(device), self.config, batch_size=self.batch_size)
        chosen = [made[block, "tokens"] for block in self.blocks]
        pooled = [f.prefix[:, 0] if self.pooling == "class" else f.patches.mean(1) for f in chosen]
        return torch.nn.functional.normalize(torch.stack(pooled, 1), dim=-1).cpu()  # the cosine's own scale; fits fp16


def _read(data: BatchedDataset, indices: Tensor) -> tuple[Tensor, Tensor, dict[int, str]]:
    """A batch; where one image fails, the others are read one by one."""
    with suppress(InputError):
        images, labels = data.__getitems__(BatchKey(0, 0, indices))
        return images, labels, {}
    read, errors = {}, {}
    for index in indices.tolist():
        try:
            read[index] = data.__getitems__(BatchKey(0, 0, torch.tensor([index])))
        except InputError as error:
            errors[index] = str(error)
    blank = next((images for images, _ in read.values()), torch.zeros(1, 1, 1, 1)) * 0
    if not read:
        raise InputError(next(iter(errors.values())))
    images = torch.cat([read[i][0] if i in read else blank for i in indices.tolist()])
    labels = torch.cat([read[i][1] if i in read else torch.tensor([_UNREADABLE]) for i in indices.tolist()])
    return images, labels, errors


def _identity(data: Any) -> str:
    """What identifies a split: its files, or its pixels."""
    pixels = getattr(data, "images", None)
    if pixels is not None:
        return hashlib.sha256(pixels.numpy().tobytes()).hexdigest()
    return hashlib.sha256(
        str(data.root.resolve()).encode() + data.files.tobytes() + repr(data.transform).encode()
    ).hexdigest()
