"""Notes: what a file of weights says it is of. Names and shapes of tensors cannot say it: skips have no parameters."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from safetensors import SafetensorError, safe_open
from torch import nn

from skipless.errors import InputError
from skipless.frozen import from_json, to_json
from skipless.models import AttentionConfig, BlockView, SubBlock, block_views, decayed_gains

KEY = "skipless"  # under which the metadata of a safetensors file holds the note
TWIN = "skipless_"
_RUN_FILES = ("checkpoint*.safetensors", "teacher-epoch-*.safetensors")
# What the tensors themselves say; and that the model takes other sizes, too.
_IN_SHAPES = ("img_size", "in_chans", "num_classes", "dynamic_img_size")
_OF_TRAINING = "drop_rate"  # the end of the names of what acts in training only

Statistics = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class WeightsNote:
    """What a file of weights says of its model.

    Attributes:
        model: timm's name; `skipless_` before the name of a model whose skips are left out.
        kwargs: for `timm.create_model`.
        statistics: mean and standard deviation of each channel that images are normalised by, if not timm's.
        trained: whether the weights have seen data.
        run: the run folder that says all this, for a file without a note of its own.
        attention: what stands for the softmax.
        skip_gain: what the skips of the last block multiply their tokens by (`decayed_gains`).
    """

    model: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    statistics: Statistics | None = None
    trained: bool = True
    run: Path | None = None
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    skip_gain: float = 1.0

    @property
    def architecture(self) -> str:
        """The name without a pretrained tag."""
        return self.model.partition(".")[0]

    @property
    def skips(self) -> tuple[SubBlock, ...]:
        """The sub-blocks that have their skip connection."""
        without = self.kwargs.get("sub_blocks", get_args(SubBlock)) if self.model.startswith(TWIN) else ()
        return tuple(name for name in get_args(SubBlock) if name not in without)

    def as_metadata(self) -> dict[str, str]:
        """An entry for the metadata of a file."""
        named = {"model": self.model, "kwargs": dict(self.kwargs), "statistics": self.statistics}
        more = {} if self.attention.is_softmax else {"attention": to_json(self.attention)}
        more |= {} if self.skip_gain == 1 else {"skip_gain": self.skip_gain}
        return {KEY: json.dumps({**named, "trained": self.trained, **more})}


def read_note(path: Path) -> WeightsNote | None:
    """The note of a file of weights, or what the run folder says that the file is, or lies in, as a run's own.

    Args:
        path: a `.safetensors` file, or a run folder.

    Returns:
        None for a file of weights that does not say what it is of.

    Raises:
        InputError: if the file cannot be read, or its note cannot.
    """
    if path.is_dir():
        return _run_note(path)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{str(path)!r} is no file of weights ({error}); give a .safetensors file") from error
    if text is None:
        return _run_note(path.parent) if any(path.match(pattern) for pattern in _RUN_FILES) else None
    try:
        values = dict(json.loads(text))
        given = values["statistics"]
        statistics = None if given is None else (tuple(map(float, given[0])), tuple(map(float, given[1])))
        return WeightsNote(
            str(values["model"]),
            dict(values["kwargs"]),
            statistics,
            trained=bool(values.get("trained", True)),
            **_beyond(values),
        )
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(
            f"{str(path)!r} has a note {text[:80]!r} that cannot be read; write the file again by `skipless export`"
        ) from error


def check_name(note: WeightsNote, name: str, source: str) -> None:
    """Raise `InputError` unless weights are of the model of this name.

    Example:
        >>> check_name(WeightsNote("skipless_vit_tiny_patch16_224"), "vit_tiny_patch16_224", "w.safetensors")
        Traceback (most recent call last):
        ...
        skipless.errors.InputError: 'w.safetensors' holds weights of 'skipless_vit_tiny_patch16_224', ...
    """
    if note.architecture != name.partition(".")[0]:
        raise InputError(
            f"{source!r} holds weights of {note.model!r}, not of {name!r}: another network, though names and shapes of "
            f"the weights may fit; give {note.model!r}"
        )


def check_kwargs(note: WeightsNote, kwargs: Mapping[str, Any], source: str) -> None:
    """Raise `InputError` unless weights are of a model with these keywords, as far as shapes cannot tell."""
    theirs, ours = _deciding(note.kwargs), _deciding(kwargs)
    for name in sorted(theirs.keys() | ours.keys()):
        if theirs.get(name) != ours.get(name):
            raise InputError(
                f"{source!r} holds weights of a model with {name}={theirs.get(name)!r}, not {ours.get(name)!r}; give "
                "weights of this model, or the run that they are of"
            )


def check_model(note: WeightsNote, model: nn.Module, source: str) -> None:
    """Raise `InputError` if the blocks of a module cannot be those of the noted model: other skips, other heads."""
    try:
        views = block_views(model)
    except InputError:
        return  # no adapter knows it; names and shapes have to do
    wanted = decayed_gains(len(views), note.skip_gain)
    for view, gain in zip(views, wanted, strict=True):
        if set(view.skips) != set(note.skips):
            raise InputError(
                f"{source!r} holds weights of {note.model!r}, with skips of {_listed(note.skips)}; {view.name} of this "
                f"model has skips of {_listed(view.skips)}: build it as {note.model!r}"
            )
        if any(abs(view.gain(name) - gain) > 1e-6 for name in view.skips):
            raise InputError(
                f"{source!r} holds weights of a model whose skips carry {gain:.4g} of their tokens in {view.name}; "
                f"this model's carry {view.skip_gains}: skipless.models.set_skip_gains_ sets them"
            )
        _check_core(note, view, len(views), source)
        heads = note.kwargs.get("num_heads", view.heads)
        if heads != view.heads:
            raise InputError(
                f"{source!r} holds weights of a model with num_heads={heads}; {view.name} of this model has "
                f"{view.heads}: build it with num_heads={heads}"
            )


def check_beyond(note: WeightsNote, attention: AttentionConfig, skip_gain: float, source: str) -> None:
    """Raise `InputError` unless weights are of a model with this attention and these skips: weights need not tell."""
    if note.skip_gain != skip_gain:
        raise InputError(
            f"{source!r} holds weights of a model with skip_gain={note.skip_gain:g}, not {skip_gain:g}; give weights "
            "of this model, or the run that they are of"
        )
    if note.attention != attention:
        raise InputError(
            f"{source!r} holds weights of a model with {note.attention.title} attention, not {attention.title}; give "
            "weights of this model, or the run that they are of"
        )


def _check_core(note: WeightsNote, view: BlockView, depth: int, source: str) -> None:
    """Refuse a block whose attention is not the noted one."""
    found, wanted = "softmax" if view.core is None else repr(view.core), "softmax"
    if not note.attention.is_softmax:
        tokens = getattr(view.core, "tokens", 1)
        causal = bool(getattr(view.core, "causal", False))
        wanted = repr(note.attention.core_of(tokens=tokens, depth=depth, causal=causal))
    if found != wanted:
        raise InputError(
            f"{source!r} holds weights of a model whose attention is {wanted}; {view.name} of this model has {found}: "
            "call skipless.replace_attention_ or restore_attention_ before the weights are loaded"
        )


def _beyond(values: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of a model that is more than a library's with skips or without."""
    attention = from_json(AttentionConfig, values.get("attention") or {})
    return {"attention": attention, "skip_gain": float(values.get("skip_gain", 1.0))}


def _run_note(folder: Path) -> WeightsNote | None:
    """What a run folder's record says of its model, whichever kind of recipe it was made by."""
    try:
        model = json.loads((folder / "run.json").read_text(encoding="utf-8"))["recipe"]["model"]
        name = str(model["name"]) if model["skip"] else f"{TWIN}{model['name']}"
        return WeightsNote(name, dict(model["kwargs"]), run=folder, **_beyond(model))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no run of a recipe: nothing is known


def _deciding(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords that make another function of the same weights, as JSON values."""
    kept = {
        name: value
        for name, value in kwargs.items()
        if name not in _IN_SHAPES and not name.endswith(_OF_TRAINING) and value is not None
    }
    return json.loads(json.dumps(kept, default=str))


def _listed(skips: tuple[SubBlock, ...]) -> str:
    return " and ".join(skips) or "none"
