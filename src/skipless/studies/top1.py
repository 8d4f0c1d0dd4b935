"""Top-1 accuracy of a run's own classifier, on its training data set or another one."""

from collections.abc import Mapping
from pathlib import Path

from skipless.choices import Device
from skipless.data import load_images, relabelled
from skipless.errors import InputError
from skipless.recipes.read import read_recipe
from skipless.recipes.recipe import without_init
from skipless.recipes.supervised import evaluate_top1, recorded_classes
from skipless.training import load_weights
from skipless.training.processes.launch import launch


def top1_of_run(
    run: Path, *, data: str | None = None, weights: Path | None = None, device: Device = "auto"
) -> Mapping[str, float]:
    """Evaluate a run's classifier on validation images.

    Args:
        run: folder of the run.
        data: another data set or folder; its classes are matched by name.
        weights: file of other weights than the run's last.
        device: device to compute on.

    Raises:
        InputError: if there is no such run, it has no classifier, or data or weights cannot be used.
    """
    if not run.is_dir():
        raise InputError(f"{str(run)!r} is no run folder, which top1 needs; for a model, choose knn or another study")
    recipe = read_recipe(run).with_(data__data=data)
    if not recipe.classifies:
        raise InputError(
            f"{str(run)!r} is a run of {recipe.name}, which has no classifier: see its features with knn and others"
        )
    images = load_images(recipe.data)
    if (classes := recorded_classes(run)) is not None:
        images = relabelled(images, classes)
    fabric = launch(device, recipe.fit.precision)
    model = without_init(recipe).model.build(images, recipe.fit.seed)
    load_weights(model, weights or run)
    with fabric.autocast():
        return evaluate_top1(fabric.to_device(model), images, recipe.fit)
