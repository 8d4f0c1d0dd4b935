"""The runs behind both reports: tuned, made or resumed, and read."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from skipless.conditioning.measurement.tracking import first_images
from skipless.data import load_images
from skipless.errors import InputError
from skipless.experiments.family import AttentionOptions, ShortcutsOptions
from skipless.experiments.family.recipe import FamilyCell, family_recipe
from skipless.recipes.recipe import Recipe
from skipless.report.labels import OPTIMIZER_LABEL
from skipless.report.run_records import Run, read_lines, read_run
from skipless.studies.token_history import token_history
from skipless.sweep import Campaign
from skipless.sweep.campaign import steps_on

HOLDOUT = {"digits": 200, "fashion": 5000}  # training images that learning rates are tuned on
_IMAGES = 64  # whose tokens are measured


Asked = AttentionOptions | ShortcutsOptions
"""What either report is asked for."""


@dataclass(frozen=True, eq=False)
class CellRuns:
    """One cell: its runs, one a seed, how accuracy rose, and what became of tokens in the first of them.

    Attributes:
        cell: attention, row, optimizer and length.
        runs: one a seed.
        curves: of each run, epochs and top-1 in percent of every evaluation.
        tokens: as `token_history` has it, of the first seed.
    """

    cell: FamilyCell
    runs: tuple[Run, ...]
    curves: tuple[tuple[tuple[float, float], ...], ...]
    tokens: Mapping[str, Sequence[float]]

    @property
    def accuracies(self) -> tuple[float, ...]:
        """Top-1 of every run that was finished, in percent."""
        return tuple(run.top1 for run in self.runs if run.top1 is not None)

    @property
    def mean(self) -> float | None:
        """Mean top-1 over the seeds, in percent; None where all runs diverged."""
        return statistics.fmean(self.accuracies) if self.accuracies else None

    @property
    def shown(self) -> str:
        """Mean and sample standard deviation of the accuracies, or that all runs diverged."""
        reached = self.accuracies
        if not reached:
            return "diverged"
        spread = f" ± {statistics.stdev(reached):.1f}" if len(reached) > 1 else ""
        return f"{statistics.fmean(reached):.1f}{spread}"

    @property
    def labels(self) -> tuple[str, str, str]:
        """Attention, row and optimizer in words."""
        return self.cell.attention, self.cell.row, OPTIMIZER_LABEL[self.cell.optimizer]

    def epochs_to(self, accuracy: float) -> tuple[float, ...]:
        """Of each run that came to an accuracy, the epochs after which it first had it."""
        firsts = (next((epoch for epoch, top1 in curve if top1 >= accuracy), None) for curve in self.curves)
        return tuple(first for first in firsts if first is not None)


def measured_cells(cells: Sequence[FamilyCell], asked: Asked, out: Path) -> tuple[list[CellRuns], Recipe, int]:
    """Tune what is to be tuned, run what is missing, go on with what was cut off, and read all of it.

    Args:
        cells: the report's.
        asked: the report's options.
        out: folder of the report; runs go into `out/runs`, those of the tuning into `out/tuning`.

    Returns:
        The cells' runs, the recipe of the first, and the number of images that accuracies are on.

    Raises:
        InputError: for options that make no sense, data that cannot be used, runs that fail, or folders that hold other
            runs.
    """
    if asked.seeds < 1:
        raise InputError(f"--seeds {asked.seeds}: give at least 1")
    if asked.tune and not (asked.grid and all(factor > 0 for factor in asked.grid)):
        raise InputError(f"--grid {' '.join(f'{factor:g}' for factor in asked.grid)}: give factors above 0")
    images = load_images(_recipe(asked, cells[0], 0).data)
    campaign = Campaign(
        out,
        partial(_recipe, asked),
        lambda cell: (cell.attention, cell.row, f"{cell.length}x", OPTIMIZER_LABEL[cell.optimizer]),
        steps_on(images),
        asked.jobs,
    )
    held_out = partial(Recipe.with_, data__holdout=HOLDOUT[asked.scale])
    tuned = campaign.tune(cells, asked.grid, held_out, all_may_diverge=True) if asked.tune else {}
    folders = campaign.train(cells, asked.seeds, tuned)
    batch = first_images(images, min(_IMAGES, len(images.val)))
    found = [
        CellRuns(
            cell,
            tuple(read_run(folder) for folder in own),
            tuple(_curve(folder) for folder in own),
            token_history(own[0], batch),
        )
        for cell, own in folders.items()
    ]
    return found, _recipe(asked, cells[0], 0), len(images.val)


def _recipe(asked: Asked, cell: FamilyCell, seed: int) -> Recipe:
    return family_recipe(asked.scale, cell, seed=seed, data=asked.data, epochs=asked.epochs)


def _curve(folder: Path) -> tuple[tuple[float, float], ...]:
    """Epoch and top-1 of every evaluation; if a resumed run evaluates an epoch twice, the last counts."""
    points: dict[float, float] = {}
    for line in read_lines(folder / "metrics.jsonl"):
        top1 = line["evaluation"].get("top1") if "evaluation" in line else None
        if top1 is not None:
            points[float(line["epoch"])] = float(top1)
    return tuple(sorted(points.items()))
