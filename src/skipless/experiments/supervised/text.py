"""What the report of Table 1 says in words."""

from collections.abc import Sequence

from skipless.choices import OPTIMIZERS, OptimizerName
from skipless.display.values import in_a_row
from skipless.experiments.supervised.cells import CellRuns
from skipless.recipes.recipe import Recipe
from skipless.report.labels import OPTIMIZER_LABEL
from skipless.report.trust import ONE_THREAD, held_out, image_noise

_COUNTED = {1: "Four", 2: "Eight", 3: "Twelve"}  # runs, by the number of optimizers


def description(optimizers: Sequence[OptimizerName]) -> str:
    """The page's first paragraph.

    Example:
        >>> description(("adamw", "soap"))[:40]
        'Eight runs of one vision transformer: wi'
    """
    names = [f"by {OPTIMIZER_LABEL[name]}" for name in OPTIMIZERS if name in optimizers]
    said = (
        f"{_COUNTED[len(names)]} runs of one vision transformer: with skip connections, without them, and without them "
        f"but started by the paper's initialisation or by ours, each trained {in_a_row(names)}. The paper's claim is "
        "that a model without skips that its initialisation has started trains as well as a residual one. Ours is for "
        "any width and depth."
    )
    if "muon" in optimizers:
        said += " Muon, which the paper has not, updates the matrices of the blocks, and AdamW the rest."
    return said


def notes(recipe: Recipe, cells: Sequence[CellRuns], images: int, *, as_tuned: bool, tuned: bool) -> list[str]:
    """What a reader must know to trust the numbers neither too much nor too little.

    Args:
        recipe: of one of the runs.
        cells: of the table.
        images: that accuracies are on.
        as_tuned: whether the runs are those that learning rates were tuned for.
        tuned: whether rates were tuned for these runs.
    """
    said = [held_out(images)]
    if recipe.scale == "paper":
        muon = ", AdamW's for Muon" if any(cell.optimizer == "Muon" for cell in cells) else ""
        said.append(f"Learning rates were not tuned here: 4e-3 for AdamW as in the recipe, 3e-3 for SOAP{muon}.")
    else:
        other = "" if as_tuned else "the recipe's own data and length, not for these: "
        said.append(f"Learning rates were tuned for every cell on images held out of training; {other}see LOG.md.")
        if not as_tuned or any(cell.row == "skipless + ours" and cell.runs for cell in cells):
            said.append("Without --tune those of our initialisation were chosen by few runs, not on the grid.")
        if not tuned and any(cell.optimizer == "Muon" and cell.runs for cell in cells):
            said.append("Muon's were not: they are AdamW's for the model with skips. --tune finds its own.")
        said.append("The paper's numbers are of ViT-B on ImageNet-1k: compare orders and gaps, not values.")
    said += uncertainty(cells, images)
    if recipe.fit.device == "cpu":
        said.append(ONE_THREAD)
    return said


def uncertainty(cells: Sequence[CellRuns], images: int) -> list[str]:
    """How far these accuracies can be told apart, from the very numbers that the table shows.

    Args:
        cells: of the table.
        images: that accuracies are on.
    """
    said = image_noise((value for cell in cells for value in cell.accuracies), images)
    if not said:
        return []
    spread = [(cell.spread, cell) for cell in cells if cell.spread is not None]
    if spread:
        most, cell = max(spread, key=lambda pair: pair[0])
        said.append(
            f"Seeds move an accuracy by up to ± {most:.1f} points (sample standard deviation; {cell.row}, "
            f"{cell.optimizer}): a difference within its cells' spreads is none."
        )
    if any(cell.n == 1 for cell in cells):
        said.append("Where a cell has one seed, how far seeds move it is not known; --seeds 3 shows it.")
    return said
