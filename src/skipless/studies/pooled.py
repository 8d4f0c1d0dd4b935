"""One feature vector for each image, for k-NN and linear classifiers."""

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
from skipless.display import Record
from skipless.display.values import counted
from skipless.errors import InputError
from skipless.evaluators.features.extraction import FeatureConfig, features
from skipless.evaluators.features.store_builder import files_identity, weights_hash
from skipless.models.vit_view import find_vit
from skipless.progress import progress_bar, tell_kept
from skipless.studies.config import PoolConfig
from skipless.studies.origin import UNSAID, Origin
from skipless.studies.study_folder import StudyFolder, barrier, rank_and_world_size
from skipless.training.run_folder.atomic import atomic_write

SHARD = 512  # images in a shard, the most that an interruption loses
_UNREADABLE_LABEL = -1  # label of an image that could not be read


@dataclass(frozen=True, eq=False, repr=False)
class PooledData(Record):
    """Feature vectors of a training and a validation set.

    Attributes:
        train, val: for each block, one row for each image.
        train_labels, val_labels: class indices.
        classes: number of classes.
        pooling: how the tokens of an image become one vector.
        unreadable: for each image that could not be used, the reason.
        identity: a name for the vectors, which ends in a hash of everything that they depend on.
    """

    train: dict[int, Float[Tensor, "n d"]]
    train_labels: Int64[Tensor, " n"]
    val: dict[int, Float[Tensor, "m d"]]
    val_labels: Int64[Tensor, " m"]
    classes: int
    pooling: Pooling
    unreadable: dict[str, str]
    identity: str

    def _summary(self) -> str:
        sizes = f"{len(self.train_labels):,} training and {len(self.val_labels):,} validation images"
        return f"{sizes}, {self.classes} classes, {counted(len(self.train), 'block')}, {self.pooling} token"

    @property
    def majority(self) -> float:
        """Accuracy in percent of always predicting the largest training class, the trivial baseline."""
        return 100 * (self.val_labels == self.train_labels.bincount().argmax()).double().mean().item()

    def remark(self) -> list[str]:
        """A line about images that could not be used; an empty list if there are none."""
        count = len(self.unreadable)
        return [f"! {counted(count, 'image')} could not be used, see result.json"] if count else []


def pool(
    model: nn.Module,
    data: ImageData,
    config: PoolConfig,
    *,
    out: Path,
    data_name: str,
    progress: bool = True,
    origin: Origin = UNSAID,
) -> PooledData:
    """Compute one feature vector for each image and block, for both splits. Vectors on disk are reused.

    Args:
        model: a vision transformer that an adapter knows, on the device where it shall run.
        data: images without augmentation.
        config: which features, and how they are pooled.
        out: parent of the folder of the vectors.
        data_name: name of the data set.
        progress: whether to show a progress bar.
        origin: whose weights these are, for the folder's name.

    Raises:
        InputError: if no image of a split can be read, or there is no class token.
    """
    tokens = find_vit(model)
    if config.pooling == "class" and not tokens.class_token:
        raise InputError("pooling='class': this model has no class token; choose 'mean'")
    pooling: Pooling = config.pooling or ("class" if tokens.class_token else "mean")
    settings = {
        "images": [split_identity(data.train), split_identity(data.val), data.image_size],
        "weights": weights_hash(tokens),
        **(asdict(config) | {"pooling": pooling, "batch_size": None}),
    }
    folder = StudyFolder(out, f"pooled-{data_name}", settings, state=origin.state)
    wanted = FeatureConfig(config.blocks, ("tokens",), config.norm, config.precision)
    blocks = [block for block, _ in wanted.keys(len(tokens.views))]
    pool = _PooledExtractor(model, wanted, blocks, pooling, config.batch_size)
    (train, train_labels, failed), (val, val_labels, also_failed) = (
        pool.features(split, folder.path / part, f"features of {data_name}, {part}", show=progress)
        for part, split in (("train", data.train), ("val", data.val))
    )
    unreadable, classes = failed | also_failed, len(data.classes)
    return PooledData(train, train_labels, val, val_labels, classes, pooling, unreadable, folder.identity)


@dataclass(frozen=True, eq=False)
class _PooledExtractor:
    model: nn.Module
    config: FeatureConfig
    blocks: Sequence[int]
    pooling: Pooling
    batch_size: int

    def features(
        self, data: BatchedDataset, folder: Path, what: str, *, show: bool
    ) -> tuple[dict[int, Float[Tensor, "n d"]], Tensor, dict[str, str]]:
        """Pooled features of a split by block, the labels, and the unreadable images with the reasons."""
        folder.mkdir(parents=True, exist_ok=True)
        rank, world = rank_and_world_size()
        shards = list(torch.arange(len(data)).split(SHARD))
        left = [number for number in range(len(shards)) if not (folder / f"{number:05d}.npz").exists()]
        tell_kept(what, len(data) - sum(len(shards[number]) for number in left), len(data), "images", show=show)
        barrier()  # every process must have looked before any writes
        own = [number for number in left if number % world == rank]
        ends = np.cumsum([len(shards[number]) for number in own])
        with progress_bar(what, "images", show=show and bool(own)) as report:
            for number, end in zip(own, ends, strict=True):
                self._write_shard(data, shards[number], folder / f"{number:05d}.npz")
                report(int(end), int(ends[-1]))
        barrier()
        parts = [dict(np.load(folder / f"{number:05d}.npz")) for number in range(len(shards))]
        labels = torch.from_numpy(np.concatenate([part["labels"] for part in parts]))
        rows = torch.from_numpy(np.concatenate([part["features"] for part in parts]))
        failed = {str(key): str(why) for part in parts for key, why in zip(part["failed"], part["why"], strict=True)}
        good = labels != _UNREADABLE_LABEL
        if not good.any():
            raise InputError(f"none of the {len(data)} images can be read: {next(iter(failed.values()))}")
        return {block: rows[good, i].float() for i, block in enumerate(self.blocks)}, labels[good], failed

    def _write_shard(self, data: BatchedDataset, indices: Tensor, path: Path) -> None:
        vectors, labels, failed, why = [], [], [], []
        for chunk in indices.split(self.batch_size):
            images, chunk_labels, errors = _read_batch(data, chunk)
            labels.append(chunk_labels)
            failed += [f"image {index}" for index in errors]
            why += list(errors.values())
            if len(errors) < len(chunk):
                vectors.append(self._pool_batch(images))
            else:
                vectors.append(torch.zeros(len(chunk), len(self.blocks), find_vit(self.model).dim))
        content = {
            "features": torch.cat(vectors).numpy(),
            "labels": torch.cat(labels).numpy(),
            "failed": np.array(failed, dtype=np.str_),
            "why": np.array(why, dtype=np.str_),
        }
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **content)

    def _pool_batch(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b l d"]:
        device = next(self.model.parameters()).device
        made = features(self.model, images.to(device), self.config, batch_size=self.batch_size)
        chosen = [made[block, "tokens"] for block in self.blocks]
        pooled = [f.prefix[:, 0] if self.pooling == "class" else f.patches.mean(1) for f in chosen]
        return torch.stack(pooled, 1).cpu()


def _read_batch(data: BatchedDataset, indices: Tensor) -> tuple[Tensor, Tensor, dict[int, str]]:
    """Read a batch. If that fails, read the images one by one, with blank images in place of unreadable ones."""
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
    labels = torch.cat([read[i][1] if i in read else torch.tensor([_UNREADABLE_LABEL]) for i in indices.tolist()])
    return images, labels, errors


def split_identity(data: MemoryImages | StoredImages) -> str:
    """A hash of a split: its files or pixels, their normalisation, and the labels."""
    digest = hashlib.sha256(data.labels.numpy().tobytes())
    if isinstance(data, MemoryImages):
        for tensor in (data.images, data.mean, data.std):
            digest.update(tensor.numpy().tobytes())
    else:
        digest.update(files_identity(data.source.stored_in()).encode())
        digest.update(data.files.tobytes() + repr(data.transform).encode())
    return digest.hexdigest()
