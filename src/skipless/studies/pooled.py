"""One vector for each image: what k-NN and linear classifiers take."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from skipless.choices import Pooling
from skipless.data.images import ImageData
from skipless.data.loading.loader import BatchedDataset, BatchKey
from skipless.data.memory import MemoryImages
from skipless.data.on_disk import StoredImages
from skipless.errors import InputError
from skipless.evaluators.features.build import files_identity, weights_hash
from skipless.evaluators.features.extraction import FeatureConfig, features
from skipless.models.tokens import token_model
from skipless.studies.config import PoolConfig
from skipless.studies.folder import StudyFolder, process, wait_for_all
from skipless.studies.progress import counted
from skipless.training.run_folder.atomic import atomic_write

SHARD = 512  # images: what an interruption costs
_UNREADABLE = -1  # label of an image that could not be read


@dataclass(frozen=True, eq=False)
class PooledData:
    """Vectors of a training and a validation set, by block.

    Attributes:
        train, val: one row an image.
        train_labels, val_labels: classes.
        classes: their number.
        pooling: what stands for an image.
        unreadable: images that could not be used, and why.
        identity: the name of the folder that they lie in: a hash of all that they depend on.
    """

    train: dict[int, Float[Tensor, "n d"]]
    train_labels: Int64[Tensor, " n"]
    val: dict[int, Float[Tensor, "m d"]]
    val_labels: Int64[Tensor, " m"]
    classes: int
    pooling: Pooling
    unreadable: dict[str, str]
    identity: str

    @property
    def majority(self) -> float:
        """Per cent of the validation images in the training images' largest class: what must be beaten."""
        return 100 * (self.val_labels == self.train_labels.bincount().argmax()).double().mean().item()

    def remark(self) -> list[str]:
        """A line about images that could not be used, if there are any."""
        count = len(self.unreadable)
        return [f"! {count} images could not be used, see result.json"] if count else []


def pool(
    model: nn.Module, data: ImageData, config: PoolConfig, *, out: Path, data_name: str, progress: bool = True
) -> PooledData:
    """Give every image of both splits one vector a block; what is on disk is not computed again.

    Args:
        model: any plain ViT of timm's, where it shall run.
        data: images, never augmented.
        config: which vectors.
        out: they get a folder of their own in it.
        data_name: of the set.
        progress: show it.

    Raises:
        InputError: if no image of a split can be read, or there is no class token.
    """
    tokens = token_model(model)
    if config.pooling == "class" and not tokens.class_token:
        raise InputError("pooling='class': this model has no class token; choose 'mean'")
    pooling: Pooling = config.pooling or ("class" if tokens.class_token else "mean")
    settings = {
        "images": [_identity(data.train), _identity(data.val), data.image_size],
        "weights": weights_hash(tokens),
        **(asdict(config) | {"pooling": pooling, "batch_size": None}),
    }
    folder = StudyFolder(out, f"pooled-{data_name}", settings)
    wanted = FeatureConfig(config.blocks, ("tokens",), config.norm, config.precision)
    blocks = [block for block, _ in wanted.keys(len(tokens.views))]
    pool = _Pool(model, wanted, blocks, pooling, config.batch_size)
    (train, train_labels, failed), (val, val_labels, also_failed) = (
        pool.features(split, folder.path / part, f"features of {data_name}, {part}", show=progress)
        for part, split in (("train", data.train), ("val", data.val))
    )
    unreadable, classes = failed | also_failed, len(data.classes)
    return PooledData(train, train_labels, val, val_labels, classes, pooling, unreadable, folder.path.name)


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
        vectors, labels, failed, why = [], [], [], []
        for chunk in indices.split(self.batch_size):
            images, chunk_labels, errors = _read(data, chunk)
            labels.append(chunk_labels)
            failed += [f"image {index}" for index in errors]
            why += list(errors.values())
            if len(errors) < len(chunk):
                vectors.append(self._pooled(images))
            else:
                vectors.append(torch.zeros(len(chunk), len(self.blocks), token_model(self.model).dim))
        content = {
            "features": torch.cat(vectors).numpy(),
            "labels": torch.cat(labels).numpy(),
            "failed": np.array(failed, dtype=np.str_),
            "why": np.array(why, dtype=np.str_),
        }
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **content)

    def _pooled(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b l d"]:
        device = next(self.model.parameters()).device
        made = features(self.model, images.to(device), self.config, batch_size=self.batch_size)
        chosen = [made[block, "tokens"] for block in self.blocks]
        pooled = [f.prefix[:, 0] if self.pooling == "class" else f.patches.mean(1) for f in chosen]
        return torch.stack(pooled, 1).cpu()


def _read(data: BatchedDataset, indices: Tensor) -> tuple[Tensor, Tensor, dict[int, str]]:
    """A batch; where one image fails, the others are read one by one, and blank ones stand for those that fail."""
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
    images = torch.cat([read[i][0] if i in read else blank for i in indices.tolist()])
    labels = torch.cat([read[i][1] if i in read else torch.tensor([_UNREADABLE]) for i in indices.tolist()])
    return images, labels, errors


def _identity(data: MemoryImages | StoredImages) -> str:
    """What identifies a split: its files or pixels, how they are normalised, and the labels."""
    digest = hashlib.sha256(data.labels.numpy().tobytes())
    if isinstance(data, MemoryImages):
        for tensor in (data.images, data.mean, data.std):
            digest.update(tensor.numpy().tobytes())
    else:
        digest.update(files_identity(data.source.stored_in()).encode())
        digest.update(data.files.tobytes() + repr(data.transform).encode())
    return digest.hexdigest()
