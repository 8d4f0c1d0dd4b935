"""Building a feature store: each shard is computed once and written atomically.

A file gets its final name when it is complete, so an interrupted run resumes at the shard that it was computing. Each
file has a checksum. A file that does not match it is computed again, with a message.
"""

import hashlib
import json
import os
import shutil
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from skipless.data.folder import PILLOW_ERRORS
from skipless.errors import InputError
from skipless.evaluators.features.extraction import FeatureConfig, ImageTransform, Key, forward_features
from skipless.evaluators.features.store import (
    NUMPY_DTYPES,
    SHARD,
    FeatureStore,
    StoreDtype,
    array_folder,
    open_shard,
    store_bytes,
)
from skipless.models.token_graying import find_token_graying
from skipless.models.vit_view import ViTView, find_vit


def build_store(
    model: nn.Module,
    load: Callable[[int], Image.Image],
    count: int,
    *,
    data: str,
    transform: ImageTransform,
    folder: Path,
    config: FeatureConfig | None = None,
    dtype: StoreDtype = "fp16",
    notify: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FeatureStore:
    """Compute the features that are not on disk yet, and open the store.

    In a distributed run each process computes a part of the shards, and all processes open the whole store. The folder
    must be shared.

    Args:
        model: a vision transformer that an adapter knows, on the device where it shall run.
        load: maps an image number to a picture. If it raises `InputError` or what Pillow raises on damaged files, the
            image is recorded as unreadable and left out.
        count: number of images.
        data: identity of the images: the same string must mean the same pictures.
        transform: maps a picture to the model's input.
        folder: parent folder of all stores; each store has a folder of its own in it.
        config: which features. New blocks and kinds are added to an existing store.
        dtype: `"fp16"` halves the disk space, and its rounding of 5e-4 does not affect a probe. Use `"fp32"` if
            similarities are thresholded (TokenCut, LOST), or for values beyond 65504, the largest of fp16.
        notify: called with messages, such as the disk space needed; prints to standard error by default.
        progress: called with the number of shards done and the number of all shards.

    Raises:
        InputError: if no image can be read, features are not finite or too large for `dtype`, or the disk is full. What
            was written is kept, and the same call resumes from there.
    """
    if dtype not in NUMPY_DTYPES or count < 1:
        raise InputError(f"dtype={dtype!r} for {count} images: give 'fp16' or 'fp32', and at least one image")
    config = FeatureConfig() if config is None else config
    notify = _to_stderr if notify is None else notify
    tokens = find_vit(model)
    keys = config.keys(len(tokens.views))
    identity = {
        "format": 1,
        "weights": weights_hash(tokens),
        "data": data,
        "images": count,
        "transform": json.loads(json.dumps(asdict(transform))),
        "precision": config.precision,
        "dtype": dtype,
    }
    store_folder = folder / hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    builder = _StoreBuilder(tokens, load, count, transform, config, keys, store_folder, dtype, notify)
    with _disk_errors_as_input_errors(store_folder):
        store_folder.mkdir(parents=True, exist_ok=True)
        _write_atomically(store_folder / "key.json", json.dumps(identity, indent=2).encode())
        builder.build(progress)
    return builder.open()


def files_identity(files: Iterable[Path]) -> str:
    """A hash that identifies images on disk by the path, size and modification time of each file.

    Missing files count, too, because they may reappear.
    """
    digest = hashlib.sha256()
    for file in files:
        try:
            about = file.stat()
            digest.update(repr((str(file.resolve()), about.st_size, about.st_mtime_ns)).encode())
            if file.suffix.lower() in (".tif", ".tiff"):  # earlier versions read some of them too dark
                digest.update(b"white as the file says")
        except OSError:
            digest.update(repr((str(file), None)).encode())
    return digest.hexdigest()


def weights_hash(model: ViTView) -> str:
    """Hash everything in a model that the features depend on: module reprs, skips, head sizes and every parameter.

    The state dict alone is not enough: a skipless model has the same keys and shapes as the residual one, and Token
    Graying has neither parameters nor a name.
    """
    digest = hashlib.sha256(repr(model.transformer).encode())
    for graying in find_token_graying(model.transformer):
        digest.update(repr(graying).encode())
    for view in model.views:
        digest.update(repr((view.skips, view.heads, view.key_heads, view.head_dim, view.logit_scale)).encode())
        if view.is_decayed:  # said of these alone: hashes of before stay
            digest.update(repr(view.skip_gains).encode())
    _add_tensors(digest, model.transformer)
    return digest.hexdigest()


def tensors_hash(model: nn.Module) -> str:
    """Hash a model's state dict, whatever the model is; `weights_hash` adds what its tensors do not say."""
    digest = hashlib.sha256()
    _add_tensors(digest, model)
    return digest.hexdigest()


def _add_tensors(digest: Any, model: nn.Module) -> None:
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())


@dataclass(frozen=True, eq=False)
class _StoreBuilder:
    model: ViTView
    load: Callable[[int], Image.Image]
    count: int
    transform: ImageTransform
    config: FeatureConfig
    keys: tuple[Key, ...]
    store_folder: Path
    dtype: StoreDtype
    notify: Callable[[str], None]

    def build(self, progress: Callable[[int, int], None] | None) -> None:
        """Compute this process's part of the shards that are missing or damaged."""
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        missing: dict[int, list[Key]] = {}
        for shard in range(rank, -(-self.count // SHARD), world):
            records = {key: self._verified_record(key, shard) for key in self.keys}
            absent = [key for key, record in records.items() if record is None]
            grids = [record["grids"] for record in records.values() if record is not None]
            # An image may have been unreadable when one block was computed, and readable for another.
            if absent or any(other != grids[0] for other in grids):
                missing[shard] = absent if all(other == grids[0] for other in grids) else list(self.keys)
        if kept := [shard for shard in range(rank, -(-self.count // SHARD), world) if shard not in missing]:
            images = sum(min(SHARD, self.count - shard * SHARD) for shard in kept)
            self.notify(f"features of {images} of {self.count} images from before")
        if missing:
            self._report_size(missing)
        for done, (shard, keys) in enumerate(missing.items()):
            self._compute_shard(shard, keys)
            if progress is not None:
                progress(done + 1, len(missing))
        if world > 1:
            dist.barrier()

    def open(self) -> FeatureStore:
        """Open the store from the shards' records."""
        records: dict[Key, list[Any]] = {key: [] for key in self.keys}
        for key in self.keys:
            for shard in range(-(-self.count // SHARD)):
                _, meta = self._paths(key, shard)
                records[key].append(json.loads(meta.read_text(encoding="utf-8")))
        first = records[self.keys[0]]
        failures = {int(image): why for record in first for image, why in record["failures"].items()}
        if len(failures) == self.count:
            raise InputError(f"none of {self.count} images can be read; the first: {next(iter(failures.values()))}")
        open_shard.cache_clear()  # files may have been replaced
        return FeatureStore(
            folder=self.store_folder,
            keys=self.keys,
            norm=self.config.norm,
            prefix=self.model.prefix,
            class_token=self.model.class_token,
            dim={key: max(record["shape"][1] for record in records[key]) for key in self.keys},
            grids=tuple((grid[0], grid[1]) for record in first for grid in record["grids"]),
            failures=failures,
            nbytes=sum(record["bytes"] for key in self.keys for record in records[key]),
        )

    def _report_size(self, missing: dict[int, list[Key]]) -> None:
        """Report the size of the features to write; an `InputError` if they do not fit on the disk."""
        images = sum(min(SHARD, self.count - shard * SHARD) for shard in missing)
        size = self.transform.size
        if size is None:
            self.notify(f"features of {images} images go to {str(self.store_folder)!r}; each has its own size")
            return
        cells = (size[0] // self.model.patch[0]) * (size[1] // self.model.patch[1]) + self.model.prefix
        dims = [self._dim(key) for key in max(missing.values(), key=len)]
        needed, free = store_bytes(images, cells, dims, self.dtype), shutil.disk_usage(self.store_folder).free
        room = f"{needed / 1e9:.2f} GB in {str(self.store_folder)!r}, {free / 1e9:.2f} GB are free"
        text = f"features of {images} images need {room}"
        if needed > free:
            raise InputError(f"{text}; make room, name fewer blocks, or keep them as fp16")
        self.notify(text)

    def _dim(self, key: Key) -> int:
        view = self.model.views[key[0]]
        heads = {"tokens": None, "q": view.heads}.get(key[1], view.key_heads)
        return self.model.dim if heads is None else heads * view.head_dim

    def _paths(self, key: Key, shard: int) -> tuple[Path, Path]:
        folder = array_folder(self.store_folder, key, self.config.norm)
        return folder / f"{shard:05d}.npy", folder / f"{shard:05d}.json"

    def _verified_record(self, key: Key, shard: int) -> dict[str, Any] | None:
        """The record of a shard; None if the shard is missing or damaged."""
        array, meta = self._paths(key, shard)
        if not meta.exists():
            return None
        try:
            record = json.loads(meta.read_text(encoding="utf-8"))
            if record["bytes"] == array.stat().st_size and record["crc32"] == _checksum(array):
                return record
            why = "does not match its checksum"
        except (OSError, ValueError, KeyError) as error:
            why = f"cannot be read ({type(error).__name__})"
        self.notify(f"{str(array)!r} {why}; it is computed again")
        return None

    def _compute_shard(self, shard: int, keys: Sequence[Key]) -> None:
        numbers = range(shard * SHARD, min(self.count, (shard + 1) * SHARD))
        images, failures = self._load_images(numbers)
        if any(self._recorded_failures(key, shard) != set(failures) for key in self.keys if key not in keys):
            keys = self.keys
        by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for number, image in images.items():
            by_size[tuple(image.shape)].append(number)
        rows: dict[Key, dict[int, np.ndarray]] = {key: {} for key in keys}
        for same in by_size.values():
            found = forward_features(self.model, torch.stack([images[n] for n in same]), self.config, keys)
            for key, value in found.items():
                rows[key] |= dict(zip(same, self._cast(key, value), strict=True))
        patch = self.model.patch
        grids = [
            [images[n].shape[-2] // patch[0], images[n].shape[-1] // patch[1]] if n in images else [0, 0]
            for n in numbers
        ]
        for key in keys:
            empty = np.zeros((0, self._dim(key)), NUMPY_DTYPES[self.dtype])
            array = np.concatenate([empty, *(rows[key][n] for n in numbers if n in images)])
            self._save(key, shard, array, {"grids": grids, "failures": failures})

    def _recorded_failures(self, key: Key, shard: int) -> set[int]:
        return {int(image) for image in json.loads(self._paths(key, shard)[1].read_text(encoding="utf-8"))["failures"]}

    def _load_images(self, numbers: Sequence[int]) -> tuple[dict[int, Tensor], dict[int, str]]:
        images, failures = {}, {}
        for number in numbers:
            try:
                images[number] = self.transform(self.load(number))
            except (InputError, *PILLOW_ERRORS) as error:  # the caller's `load` may leave decoding to the transform
                failures[number] = str(error) or type(error).__name__
        return images, failures

    def _cast(self, key: Key, value: Float[Tensor, "b t d"]) -> np.ndarray:
        narrow = value.to(torch.float16 if self.dtype == "fp16" else torch.float32).cpu()
        if not narrow.isfinite().all():
            if value.isfinite().all():
                most = f"reach {value.abs().max():.3g}, beyond {self.dtype}; keep them as fp32"
                raise InputError(f"{key[1]} of block {key[0]} {most}")
            raise InputError(f"{key[1]} of block {key[0]} are not finite: these weights give no features")
        return narrow.numpy().astype(NUMPY_DTYPES[self.dtype], copy=False)

    def _save(self, key: Key, shard: int, array: np.ndarray, about: dict[str, Any]) -> None:
        path, meta = self._paths(key, shard)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                np.save(file, array)
            record = {"crc32": _checksum(temporary), "bytes": temporary.stat().st_size, "shape": array.shape} | about
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _write_atomically(meta, json.dumps(record).encode())


def _checksum(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 24):
            crc = zlib.crc32(chunk, crc)
    return crc


def _write_atomically(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _disk_errors_as_input_errors(store_folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        place = store_folder if store_folder.exists() else Path(store_folder.anchor)
        free = shutil.disk_usage(place).free / 1e6
        raise InputError(
            f"cannot write features to {str(store_folder)!r} ({error}; {free:.1f} MB free); make room there, then "
            "give the same command again: it goes on from here"
        ) from error


def _to_stderr(message: str) -> None:
    print(message, file=sys.stderr)
