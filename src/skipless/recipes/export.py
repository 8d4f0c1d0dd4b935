"""Backbones as files: what `skipless export` writes and timm loads, and files that `skipless eval` takes for a run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from skipless.data.images import pixel_statistics
from skipless.errors import InputError
from skipless.models import REGISTERED, load_timm
from skipless.recipes.read import read_recipe
from skipless.recipes.source import ModelSource, check_library, open_model, sizes_of
from skipless.recipes.teacher_snapshots import kept_teachers
from skipless.tasks.dino.checkpoint import read_dino_checkpoint
from skipless.training.run_folder.checkpoint import check_safetensors_name, load_tensors_, save_weights

PICKLED = (".pth", ".pt", ".bin")
_NOTE = "skipless"  # under which a file's metadata says how to build its model
# What the published DINO models' images are normalised by (facebookresearch/dino, eval_knn.py); timm's ViT-S would say
# 0.5, for other weights.
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Exported:
    """A backbone in a file.

    Attributes:
        file: the file.
        name: timm's name of the model; `skipless_...` needs `import skipless`.
        kwargs: for `timm.create_model`, beside `num_classes=0`.
    """

    file: Path
    name: str
    kwargs: dict[str, Any]

    @property
    def python(self) -> str:
        """Lines that load it."""
        first = "import skipless, timm" if self.name.startswith("skipless_") else "import timm"
        words = "".join(f", {name}={value!r}" for name, value in self.kwargs.items())
        return (
            f"{first}; from safetensors.torch import load_file\n"
            f"model = timm.create_model({self.name!r}, num_classes=0{words})\n"
            f"model.load_state_dict(load_file({str(self.file)!r}))"
        )


def export_backbone(run: Path, out: Path, *, epoch: int | None = None) -> Exported:
    """Write a run's backbone (of DINO the teacher's) as a `.safetensors` file, once timm's model has taken it.

    Args:
        run: a run folder of `skipless train`.
        out: the file.
        epoch: the teacher after this epoch, if the run kept it; the last weights by default.

    Raises:
        InputError: if there is no such run or teacher, the file cannot be written, or timm has no such model.
    """
    check_safetensors_name(out)
    recipe, weights = read_recipe(run), None
    check_library(recipe, run)
    if epoch is not None:
        kept = kept_teachers(run)
        if epoch not in kept:
            raise InputError(f"{str(run)!r} kept no teacher of epoch {epoch}; it has {_listed(kept) or 'none'}")
        weights = kept[epoch]
    model = open_model(str(run), weights=weights).model
    tensors = {name: value for name, value in model.state_dict().items() if not name.startswith("head.")}
    name = recipe.model.name if recipe.model.skip else f"skipless_{recipe.model.name}"
    if not recipe.model.skip and name not in REGISTERED:
        raise InputError(f"{recipe.model.name!r} has no skipless twin in timm's registry: it cannot be loaded by name")
    sizes = sizes_of({key: value.shape for key, value in tensors.items()}, str(run))
    kwargs = {"img_size": sizes["image_size"], "in_chans": sizes["channels"], **recipe.model.kwargs}
    taken = load_tensors_(load_timm(name, num_classes=0, **kwargs), tensors, str(run))
    note = note_of(name, kwargs, pixel_statistics(recipe.data))
    return Exported(save_weights(taken, out, note=note), name, kwargs)


def note_of(
    name: str,
    kwargs: Mapping[str, Any] | None = None,
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
    *,
    trained: bool = True,
) -> dict[str, str]:
    """What a file of weights says of its model, for `open_file`; nothing where timm has no model of that name.

    Args:
        name: timm's.
        kwargs: for `timm.create_model`, beside `num_classes=0`.
        statistics: mean and standard deviation of each channel that images are normalised by, if not timm's.
        trained: whether the weights have seen data.
    """
    if name.startswith("skipless_") and name not in REGISTERED:
        return {}
    note = {"model": name, "kwargs": dict(kwargs or {}), "statistics": statistics, "trained": trained}
    return {_NOTE: json.dumps(note)}


def open_file(path: Path, name: str | None = None) -> ModelSource:
    """The model of a file of weights: one that `export_backbone` or `skipless init` wrote, or a published DINO `.pth`.

    Nothing in a `.pth` file is run: tensors are read, and the few plain values that DINO's files hold beside them.

    Args:
        path: the file.
        name: timm's name of the model; a file of `export_backbone` says it itself.

    Raises:
        InputError: if the file cannot be read, or is another model's, or no name is known.
    """
    note: dict[str, Any] = {"statistics": _IMAGENET}
    if path.suffix in PICKLED:
        tensors = read_dino_checkpoint(path)
    else:
        tensors, note = _read(path)
    chosen = name or note.get("model")
    if chosen is None:
        raise InputError(f"{str(path)!r} does not say what it is of; give --model, timm's name: vit_small_patch16_224")
    tensors = {key: value for key, value in tensors.items() if not key.startswith("head.")}
    sizes = sizes_of({key: value.shape for key, value in tensors.items()}, str(path))
    kwargs: dict[str, Any] = {"img_size": sizes["image_size"], "in_chans": sizes["channels"]}
    kwargs |= note.get("kwargs", {}) if name in (None, note.get("model")) else {}
    model = load_timm(chosen, num_classes=0, **kwargs)
    statistics = note.get("statistics")
    return ModelSource(
        path.stem,
        load_tensors_(model, tensors, str(path)).eval(),
        trained=note.get("trained", True),
        statistics=None if statistics is None else (tuple(statistics[0]), tuple(statistics[1])),
    )


def open_source(
    source: str, name: str | None = None, *, weights: Path | None = None, pretrained: bool = False, seed: int = 0
) -> ModelSource:
    """The model that a run folder, a timm name or a file of weights stands for; see `open_model` and `open_file`.

    Raises:
        InputError: as they do, and for options that are not for such a source.
    """
    path = Path(source).expanduser()
    if path.suffix not in (".safetensors", *PICKLED) and not path.is_file():
        if name is not None:
            raise InputError(f"--model is for a file of weights; {source!r} is none")
        return open_model(source, weights=weights, pretrained=pretrained, seed=seed)
    if weights is not None or pretrained:
        raise InputError(f"--weights and --pretrained are for runs and names; {source!r} has weights of its own")
    return open_file(path, name)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            note = (file.metadata() or {}).get(_NOTE)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{str(path)!r} is no file of weights ({error}); give a .safetensors or .pth file") from error
    return tensors, {} if note is None else dict(json.loads(note))


def _listed(kept: dict[int, Path]) -> str:
    return ", ".join(map(str, kept))
