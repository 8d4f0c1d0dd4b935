"""Top-1 study: the accuracy of a run's own classifier, on its training data set or another one."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from skipless.choices import Device, ModelState
from skipless.data import ImageData, load_images, relabelled
from skipless.display import Record, Table
from skipless.display.axes import bars
from skipless.display.values import place_name
from skipless.errors import InputError
from skipless.evaluators.features.store_builder import tensors_hash
from skipless.recipes import Recipe
from skipless.recipes.read import read_recipe
from skipless.recipes.supervised import evaluate_top1, recorded_classes
from skipless.studies.config import Top1Config
from skipless.studies.origin import Origin
from skipless.studies.pages.study_page import write_study_page
from skipless.studies.pages.text import TOP1, trust
from skipless.studies.pooled import split_identity
from skipless.studies.study_folder import StudyFolder
from skipless.training import load_weights
from skipless.training.processes.launch import launch
from skipless.training.run_folder.weights_note import read_note

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False)
class Top1Result(Record):
    """Accuracy of a run's own classifier.

    Attributes:
        model: name of the run.
        data: name of the data set.
        scores: `top1` and, with at least five classes, `top5` in per cent; `loss`, the mean cross-entropy in nats;
            `n`, the number of images.
        majority: accuracy in per cent of always predicting the largest training class, the trivial baseline.
        folder: with the files of the study; None where none were written.
    """

    model: str
    data: str
    scores: Mapping[str, float]
    majority: float
    folder: Path | None = None

    def record(self) -> dict[str, Any]:
        """The whole result as plain values for JSON."""
        return {"model": self.model, "data": self.data, "accuracy": dict(self.scores), "majority": self.majority}

    def _summary(self) -> str:
        return f"{self.model} on {self.data}, top-1 {self.scores['top1']:.2f} %, n = {self.scores['n']:.0f}"

    def tables(self) -> tuple[Table, ...]:
        """A row for each score."""
        names = {"top1": "top-1, %", "top5": "top-5, %"}
        rows = [(said, f"{self.scores[name]:.2f}") for name, said in names.items() if name in self.scores]
        rows += [("cross-entropy, nats", f"{self.scores['loss']:.4f}"), ("largest class, %", f"{self.majority:.2f}")]
        return (
            Table(
                ("score", self.model), rows, f"{self.data}, n = {self.scores['n']:.0f} validation images", align="lr"
            ),
        )

    def _draw(self, axes: "Axes") -> None:
        shown = {"top-1": "top1", "top-5": "top5"}
        values = {name: self.scores[key] for name, key in shown.items() if key in self.scores}
        bars(axes, values | {"largest class": self.majority}, "images that get the right class, %")

    def __str__(self) -> str:
        (table,) = self.tables()
        return "\n".join([table.markdown(), "", table.caption])


def top1_of_run(
    run: Path,
    *,
    data: str | None = None,
    weights: Path | None = None,
    device: Device = "auto",
    out: Path | None = None,
    command: str = "",
) -> Top1Result:
    """Evaluate a run's classifier on validation images; what was found before is read from its folder.

    Args:
        run: folder of the run.
        data: another data set or folder; its classes are matched by name.
        weights: file of other weights than the run's last.
        device: device to compute on.
        out: parent of the study's folder; `eval/` in the run's folder by default.
        command: the command line that makes it again, for its page.

    Raises:
        InputError: if there is no such run, it has no classifier, data or weights cannot be used, or nothing can be
            written.
    """
    if not run.is_dir():
        raise InputError(f"{str(run)!r} is no run folder, which top1 needs; for a model, choose knn or another study")
    recipe = read_recipe(run).with_(data__data=data)
    if recipe.reads_text:
        raise InputError(f"{str(run)!r} is a model of text, which has no classes: `skipless eval {run} language`")
    if not recipe.classifies:
        raise InputError(
            f"{str(run)!r} is a run of {recipe.name}, which has no classifier: see its features with knn and others"
        )
    images = load_images(recipe.data)
    if (classes := recorded_classes(run)) is not None:
        images = relabelled(images, classes)
    fabric = launch(device, recipe.fit.precision)
    model = recipe.model.build(images, recipe.fit.seed, blank=True)
    load_weights(model, weights or run)
    origin = Origin(_state(recipe, weights), command)
    title, config = place_name(recipe.data.data), Top1Config(recipe.fit.precision)
    folder = StudyFolder(out or run / "eval", f"top1-{title}", _settings(recipe, images, model), state=origin.state)
    scores = _kept(folder)
    if scores is None:
        with fabric.autocast():
            scores = evaluate_top1(fabric.to_device(model), images, recipe.fit)
    majority = 100 * (images.val.labels == images.train.labels.bincount().argmax()).double().mean().item()
    name = place_name(run) + (", untrained" if origin.state == "untrained" else "")
    result = Top1Result(name, title, scores, majority, folder.path)
    folder.finish(result.record(), str(result))
    shown = {"name": name, "data": title, "config": config, "notes": trust(TOP1, origin, 0)}
    write_study_page(folder, TOP1, result, model=model, origin=origin, **shown)
    return result


def _state(recipe: Recipe, weights: Path | None) -> ModelState:
    """Whose weights are measured: the run's own, or those that a file says it holds."""
    note = None if weights is None else read_note(weights)
    return recipe.outcome if note is None or note.trained else "untrained"


def _settings(recipe: Recipe, images: ImageData, model: nn.Module) -> dict[str, Any]:
    """Everything that the scores depend on."""
    return {
        "images": [split_identity(images.val), images.image_size],
        "classes": images.classes,
        "model": recipe.as_json()["model"],
        "weights": tensors_hash(model),
        **asdict(Top1Config(recipe.fit.precision)),
    }


def _kept(folder: StudyFolder) -> Mapping[str, float] | None:
    """The scores that an earlier call has written; None where there are none that can be read."""
    scores = (folder.kept() or {}).get("accuracy")
    if not isinstance(scores, dict) or not {"top1", "loss", "n"} <= scores.keys():
        return None
    return scores if all(isinstance(value, float) for value in scores.values()) else None
