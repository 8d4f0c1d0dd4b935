"""`skipless eval`."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from skipless import recipes
from skipless.cli.words import words
from skipless.data import load_images
from skipless.training import load_weights
from skipless.training.devices import launch


def evaluate(
    run: Positional[Path],
    what: Positional[Literal["top1"]] = "top1",
    *,
    data: str | None = None,
    weights: Path | None = None,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
) -> None:
    """Measure a trained model.

    Args:
        run: a run folder of `skipless train`.
        what: top1, the accuracy on the validation images.
        data: other data than the run's.
        weights: other weights than the run's checkpoint, a safetensors file.
        device: where to compute, in the run's precision.
    """
    recipe = recipes.read_recipe(run).with_(data__data=data)
    images = load_images(recipe.data)
    fabric = launch(device, recipe.fit.precision)
    model = replace(recipe.model, init=None).build(images, recipe.fit.seed)  # its weights are loaded anyway
    load_weights(model, weights or run)
    with fabric.autocast():
        print(words(recipes.evaluate_top1(fabric.to_device(model), images, recipe.fit)))
