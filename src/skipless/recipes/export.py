"""Backbones as files: what `skipless export` writes and timm loads, and files that `skipless eval` takes for a run."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from skipless.data.images import pixel_statistics
from skipless.display import Record, Table
from skipless.errors import InputError
from skipless.models import REGISTERED, AttentionConfig, block_views, load_timm
from skipless.models.libraries.finish import finish_
from skipless.models.libraries.hf_tokenizer import fast_tokenizer
from skipless.recipes.language import LanguageRecipe
from skipless.recipes.read import read_recipe
from skipless.recipes.source import (
    ModelSource,
    noted_model,
    open_model,
    sized,
    sizes_of,
    statistics_of,
    twin_name,
)
from skipless.recipes.teacher_snapshots import kept_teachers
from skipless.recipes.text_models import run_tokenizer
from skipless.tasks.dino.checkpoint import read_dino_checkpoint
from skipless.training.run_folder.checkpoint import (
    check_safetensors_name,
    load_tensors_,
    read_weights,
    save_weights,
)
from skipless.training.run_folder.weights_note import Statistics, WeightsNote, check_model, check_name, read_note

PICKLED = (".pth", ".pt", ".bin")
# What the published DINO models' images are normalised by (facebookresearch/dino, eval_knn.py); timm's ViT-S would say
# 0.5, for other weights.
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True, repr=False)
class Exported(Record):
    """A backbone in a file.

    Attributes:
        file: the file.
        name: timm's name of the model; `skipless_...` needs `import skipless`.
        kwargs: for `timm.create_model`, beside `num_classes=0`.
        loading: lines that load what is no model of timm's.
        surgery: lines that give the library's model its attention and its skips; empty where it has its own.
    """

    file: Path
    name: str
    kwargs: dict[str, Any]
    loading: str = ""
    surgery: str = ""

    def _summary(self) -> str:
        return f"{self.file.name}, {self.name}"

    def tables(self) -> tuple[Table, ...]:
        """The file, its model, and the lines that load it."""
        rows = [("file", str(self.file)), ("timm's name" if not self.loading else "class", self.name)]
        rows += [(name, str(value)) for name, value in self.kwargs.items()]
        return (Table(("backbone", "value"), rows, "to load it:", self.python.splitlines(), align="ll"),)

    @property
    def python(self) -> str:
        """Lines that load it."""
        if self.loading:
            return self.loading
        twin = self.name.startswith("skipless_")
        first = "import skipless, timm" if twin or self.surgery else "import timm"
        init = ", init=False" if twin else ""  # what is loaded need not be drawn
        words = init + "".join(f", {name}={value!r}" for name, value in self.kwargs.items())
        return (
            f"{first}; from safetensors.torch import load_file\n"
            f"model = timm.create_model({self.name!r}, num_classes=0{words})\n"
            f"{self.surgery}"
            f"model.load_state_dict(load_file({str(self.file)!r}))"
        )


def export_backbone(run: Path, out: Path, *, epoch: int | None = None) -> Exported:
    """Write a run's backbone (of DINO the teacher's) as a `.safetensors` file, once timm's model has taken it.

    A language model becomes a folder instead, as Hugging Face's `save_pretrained` writes it, with its tokenizer. One
    without skips comes back without, by `skipless.models.from_pretrained`, or by transformers once skipless has been
    imported.

    Args:
        run: a run folder of `skipless train`.
        out: the file; of a language model, the folder.
        epoch: the teacher after this epoch, if the run kept it; the last weights by default.

    Raises:
        InputError: if there is no such run or teacher, the file cannot be written, or timm has no such model.
    """
    recipe, weights = read_recipe(run), None
    if isinstance(recipe, LanguageRecipe):
        if epoch is not None:
            raise InputError(f"--epoch {epoch} is for teachers of DINO; {str(run)!r} is a run of a language model")
        return _export_language(recipe, run, out)
    check_safetensors_name(out)
    if recipe.model.library != "timm":
        raise InputError(
            f"{str(run)!r} is a run of {recipe.model.library}'s {recipe.model.name!r}; backbones are written for timm. "
            f"Load it in Python: skipless.open_model({str(run)!r}).model, and save its state_dict()"
        )
    if epoch is not None:
        kept = kept_teachers(run)
        if epoch not in kept:
            raise InputError(f"{str(run)!r} kept no teacher of epoch {epoch}; it has {_listed(kept) or 'none'}")
        weights = kept[epoch]
    model = open_model(str(run), weights=weights).model
    tensors = {name: value for name, value in model.state_dict().items() if not name.startswith("head.")}
    name = twin_name(recipe)
    if not recipe.model.skip and name not in REGISTERED:
        raise InputError(f"{recipe.model.name!r} has no skipless twin in timm's registry: it cannot be loaded by name")
    sizes = sizes_of({key: value.shape for key, value in tensors.items()}, str(run))
    kwargs = {"img_size": sizes["image_size"], "in_chans": sizes["channels"], **recipe.model.kwargs}
    attention, gain = recipe.model.attention, recipe.model.skip_gain
    bare = load_timm(name, num_classes=0, blank=True, **kwargs)
    blank = finish_(bare, attention=attention, skip_gain=gain, blank=True)
    taken = load_tensors_(blank, tensors, str(run))
    note = note_of(name, kwargs, pixel_statistics(recipe.data), attention=attention, skip_gain=gain)
    return Exported(save_weights(taken, out, note=note), name, kwargs, surgery=_surgery(taken, gain))


def _surgery(model: Any, skip_gain: float) -> str:
    """Lines that give a library's model what this one has in place of softmax and plain skips."""
    views, lines = block_views(model), ""
    if skip_gain != 1:
        lines += f"skipless.models.set_skip_gains_(model, skipless.models.decayed_gains({len(views)}, {skip_gain}))\n"
    core = views[0].core
    if core is None:
        return lines
    return f"{lines}skipless.replace_attention_(model, skipless.nn.{core!r})\n"


def _export_language(recipe: LanguageRecipe, run: Path, out: Path) -> Exported:
    """A language model and its tokenizer as a folder of Hugging Face's."""
    out = out.expanduser()
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(f"{str(out)!r} is there already: a language model is written as a new folder")
    model: Any = open_model(str(run)).model
    if not hasattr(model, "save_pretrained"):
        raise InputError(f"{str(run)!r} holds a `{type(model).__name__}`, which is none of transformers' models")
    tokenizer: Any = run_tokenizer(recipe, run)
    file = getattr(tokenizer, "file", None)
    fast = fast_tokenizer() if file is None else fast_tokenizer(file, tokenizer.end_token)
    model.config.bos_token_id = model.config.eos_token_id = tokenizer.end
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.bos_token_id = model.generation_config.eos_token_id = tokenizer.end
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent) as place:
            model.save_pretrained(Path(place) / "model")
            fast.save_pretrained(Path(place) / "model")
            (Path(place) / "model").replace(out)
    except OSError as error:
        raise InputError(f"cannot write {str(out)!r} ({error.strerror or error}); choose another --out") from error
    lines = (
        "from skipless.models import from_pretrained, load_tokenizer\n"
        f"model, tokenizer = from_pretrained({str(out)!r}), load_tokenizer({str(out)!r})"
    )
    return Exported(out, type(model).__name__, {}, lines)


def note_of(
    name: str,
    kwargs: Mapping[str, Any] | None = None,
    statistics: Statistics | None = None,
    *,
    trained: bool = True,
    attention: AttentionConfig | None = None,
    skip_gain: float = 1.0,
) -> dict[str, str]:
    """What a file of weights says of its model, for `open_file`, `open_model` and `load_weights`.

    Args:
        name: timm's; `skipless_` before the name of a model whose skips are left out, a registered twin or not.
        kwargs: for `timm.create_model`, beside `num_classes=0`.
        statistics: mean and standard deviation of each channel that images are normalised by, if not timm's.
        trained: whether the weights have seen data.
        attention: what stands for the softmax, if anything does.
        skip_gain: what the skips of the last block multiply their tokens by.
    """
    note = WeightsNote(name, dict(kwargs or {}), statistics, trained=trained, skip_gain=skip_gain)
    return replace(note, attention=attention or AttentionConfig()).as_metadata()


def open_file(path: Path, name: str | None = None) -> ModelSource:
    """The model of a file of weights: one that `export_backbone` or `skipless init` wrote, or a published DINO `.pth`.

    Nothing in a `.pth` file is run: tensors are read, and the few plain values that DINO's files hold beside them.

    Args:
        path: the file.
        name: timm's name of the model; a file of `export_backbone` says it itself, and takes no other.

    Raises:
        InputError: if the file cannot be read, or is another model's, or no name is known.
    """
    pickled = path.suffix in PICKLED
    note = None if pickled else read_note(path)
    tensors = read_dino_checkpoint(path) if pickled else read_weights(path)
    if note is None:
        if name is None:
            raise InputError(
                f"{str(path)!r} does not say what it is of; give --model, timm's name: vit_small_patch16_224"
            )
        blank = sized(name, {key: value.shape for key, value in tensors.items()}, str(path))
        if blank is not None:
            return ModelSource(path.stem, load_tensors_(blank, tensors, str(path)).eval(), trained=True)
        note = WeightsNote(name, statistics=_IMAGENET if pickled else None)
    elif name is not None:
        check_name(note, name, str(path))
    tensors = {key: value for key, value in tensors.items() if not key.startswith("head.")}
    model = noted_model(note, {key: value.shape for key, value in tensors.items()}, str(path))
    check_model(note, model, str(path))
    loaded = load_tensors_(model, tensors, str(path)).eval()
    return ModelSource(path.stem, loaded, trained=note.trained, statistics=statistics_of(note))


def of_images(source: ModelSource, named: str) -> ModelSource:
    """Refuse a model of text where one of images is evaluated.

    Raises:
        InputError: that says how it is evaluated.
    """
    if source.context is not None:
        raise InputError(f"{named!r} is a model of text, and this study takes images: `skipless eval {named} language`")
    return source


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
        return of_images(open_model(source, weights=weights, pretrained=pretrained, seed=seed), source)
    if weights is not None or pretrained:
        raise InputError(f"--weights and --pretrained are for runs and names; {source!r} has weights of its own")
    return open_file(path, name)


def _listed(kept: dict[int, Path]) -> str:
    return ", ".join(map(str, kept))
