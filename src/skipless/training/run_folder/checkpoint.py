"""Checkpoints: one safetensors file with all tensors, and everything else as JSON in its header. No pickle."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.training.processes.sharding import load_full_state_dict_
from skipless.training.run_folder.atomic import atomic_write, create_writable_folder
from skipless.training.run_folder.serialization import join_tensors, split_tensors
from skipless.training.run_folder.weights_note import check_model, read_note

FORMAT = "skipless checkpoint 1"
CHECKPOINT = "checkpoint.safetensors"
PREVIOUS = "checkpoint-previous.safetensors"
CORRUPT = "checkpoint-corrupt.safetensors"
MODEL_PREFIX = "task/model."
"""Prefix of the model's tensors in a checkpoint: the model is attribute `model` of the task."""
_MAX_LISTED = 4  # names of each kind in an error message


@dataclass(frozen=True)
class Snapshot:
    """A copy of a training state at one moment.

    Attributes:
        text: the state as JSON, with references to the tensors.
        tensors: the tensors by name, on the CPU, none of which share memory.
    """

    text: str
    tensors: Mapping[str, Tensor]


def snapshot(state: Mapping[str, Any], *, copied: bool = True) -> Snapshot:
    """Take a snapshot of a state.

    Args:
        state: a nested state, as `split_tensors` takes it.
        copied: False does not copy tensors that are on the CPU; for a state that does not change meanwhile.
    """
    tree, tensors = split_tensors(state)
    return Snapshot(json.dumps(tree), _to_cpu(tensors, copied=copied))


def write_snapshot(folder: Path, taken: Snapshot) -> Path:
    """Write a snapshot as the folder's checkpoint, and keep the previous one as `checkpoint-previous`.

    Raises:
        InputError: if it cannot be written; the previous checkpoint is then unchanged.
    """
    metadata = {"format": FORMAT, "state": taken.text, "sha256": _digest(taken.text, taken.tensors)}
    path = folder / CHECKPOINT
    with atomic_write(path, keep=folder / PREVIOUS) as temporary:
        save_file(dict(taken.tensors), temporary, metadata)
    return path


def save_checkpoint(folder: Path, state: Mapping[str, Any]) -> Path:
    """Write a nested state, as `split_tensors` takes it, as the folder's checkpoint; see `write_snapshot`."""
    return write_snapshot(folder, snapshot(state, copied=False))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint and verify its checksum.

    Raises:
        InputError: if the file is missing, truncated, altered, or not a checkpoint of this library.
    """
    remedy = "remove it to start afresh"
    if path.name != PREVIOUS and path.with_name(PREVIOUS).exists():
        remedy += f", or put {PREVIOUS} in its place"
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Cloned: the tensors are views of the file, and an optimizer would keep them.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as error:
        raise InputError(f"checkpoint {str(path)!r} is corrupt or cut off ({error}); {remedy}") from error
    if metadata.get("format") != FORMAT or not metadata.keys() >= {"state", "sha256"}:
        raise InputError(
            f"{str(path)!r} is no checkpoint of this version (format {metadata.get('format')!r}); {remedy}"
        )
    if _digest(metadata["state"], tensors) != metadata["sha256"]:
        raise InputError(f"checkpoint {str(path)!r} is corrupt (its checksum does not match); {remedy}")
    return join_tensors(json.loads(metadata["state"]), tensors)


def latest_checkpoint(folder: Path) -> tuple[dict[str, Any] | None, str]:
    """Read the folder's checkpoint, or the previous one if that is damaged.

    Returns:
        The state (None in a new folder), and a line that says what was damaged, or an empty one.

    Raises:
        InputError: if there are checkpoints but all are damaged.
    """
    path, previous = folder / CHECKPOINT, folder / PREVIOUS
    if not path.exists() and not previous.exists():
        return None, ""
    if not path.exists():
        return load_checkpoint(previous), ""  # killed between the two renames of a save
    try:
        return load_checkpoint(path), ""
    except InputError as error:
        if not previous.exists():
            raise
        return load_checkpoint(previous), f"{error}. Going on from {PREVIOUS}"


def set_aside_corrupt(folder: Path) -> None:
    """Move a damaged checkpoint away, so that the next save does not overwrite the good previous one with it."""
    if (folder / CHECKPOINT).exists():
        os.replace(folder / CHECKPOINT, folder / CORRUPT)


def load_weights(model: nn.Module, path: Path | str) -> nn.Module:
    """Load a model's weights. Names and shapes are checked first; if they do not match, the model is unchanged.

    Args:
        model: the network (not the task).
        path: a run folder, a checkpoint, or a plain `.safetensors` file of weights.

    Returns:
        The model.

    Raises:
        InputError: if there is no such file, it is corrupt, or its weights are those of another model: by names and
            shapes, or because the file says that its model's blocks have other skips or heads.
    """
    tensors = read_weights(path)
    if (note := read_note(Path(path))) is not None:
        check_model(note, model, str(path))
    return load_tensors_(model, tensors, str(path))


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """Read a model's weights by name; takes what `load_weights` takes.

    Raises:
        InputError: if there is no such file, or it is corrupt.
    """
    file = _weights_file(path)
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{str(file)!r} is corrupt or cut off ({error}); copy or train it again") from error
    ours = {name.removeprefix(MODEL_PREFIX): value for name, value in tensors.items() if name.startswith(MODEL_PREFIX)}
    if ours:
        load_checkpoint(file)  # verifies the checksum
    return ours or tensors


def weight_shapes(path: Path | str) -> dict[str, torch.Size]:
    """Return the shape of every weight by name, without reading the weights; takes what `load_weights` takes.

    Raises:
        InputError: if there is no such file, or it is not a safetensors file.
    """
    file = _weights_file(path)
    try:
        with safe_open(file, framework="pt") as opened:
            shapes = {name: torch.Size(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"{str(file)!r} is corrupt or cut off ({error}); copy or train it again") from error
    ours = {name.removeprefix(MODEL_PREFIX): shape for name, shape in shapes.items() if name.startswith(MODEL_PREFIX)}
    return ours or shapes


def _weights_file(path: Path | str) -> Path:
    path = Path(path)
    file = path / CHECKPOINT if path.is_dir() else path
    if not file.exists():
        raise InputError(f"no weights at {str(file)!r}; give a run folder, a checkpoint, or a .safetensors file")
    if file.suffix != ".safetensors":
        raise InputError(f"{str(file)!r} is no .safetensors file; convert pickled weights with safetensors first")
    return file


def check_safetensors_name(path: Path) -> None:
    """Raise `InputError` unless a file's name ends in `.safetensors`, by which readers recognise the format."""
    if path.suffix != ".safetensors":
        raise InputError(f"--out {str(path)!r}: give a name that ends in .safetensors")


def save_weights(model: nn.Module, path: Path | str, *, note: Mapping[str, str] | None = None) -> Path:
    """Write a model's weights, and nothing else, to a plain `.safetensors` file.

    Args:
        model: the network (not the task).
        path: the file.
        note: further entries of the file's metadata.

    Raises:
        InputError: if the file cannot be written.
    """
    path = Path(path)
    create_writable_folder(path.parent)
    with atomic_write(path) as temporary:
        save_file(_to_cpu(model.state_dict()), temporary, {"format": "pt", **(note or {})})
        _sort_metadata_(temporary)
    return path


def _sort_metadata_(file: Path) -> None:
    """Put a file's metadata in order, in place: safetensors writes it in any, but equal weights make equal files."""
    with file.open("r+b") as opened:
        size = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= size:  # what is shorter is padded by spaces, as the format has it
            opened.seek(8)
            opened.write(text.ljust(size))


def load_tensors_(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> nn.Module:
    """Copy tensors into a module that must have the same names and shapes.

    Raises:
        InputError: if they differ; it says which.
    """
    check_tensors(module, tensors, source)
    load_full_state_dict_(module, tensors)
    return module


def check_tensors(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise `InputError` that lists the differences unless the tensors have the module's names and shapes."""
    wanted = module.state_dict()
    shapes = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in tensors and tensors[name].shape != wanted[name].shape
    ]
    kinds = {
        "missing": [name for name in wanted if name not in tensors],
        "unexpected": [name for name in tensors if name not in wanted],
        "of another shape": shapes,
    }
    if any(kinds.values()):
        listed = "; ".join(f"{kind}: {_list_names(names)}" for kind, names in kinds.items() if names)
        raise InputError(f"{source!r} holds the weights of another model ({listed}); build the model it was made with")


def _to_cpu(tensors: Mapping[str, Tensor], *, copied: bool = False) -> dict[str, Tensor]:
    """Move tensors to the CPU, contiguous and without shared memory: tied weights share it, but safetensors forbids it.

    With `copied`, they do not share memory with the given tensors, either.
    """
    owned, seen = {}, set()
    for name, tensor in tensors.items():
        on_cpu = tensor.detach().cpu().contiguous()
        if copied and on_cpu.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr():
            on_cpu = on_cpu.clone()
        storage = on_cpu.untyped_storage()
        owned[name] = on_cpu.clone() if storage.data_ptr() in seen or storage.nbytes() != on_cpu.nbytes else on_cpu
        seen.add(storage.data_ptr())
    return owned


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _list_names(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + more
