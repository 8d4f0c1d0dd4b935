"""The files of the depth report: tables, pictures and the page."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from skipless.display import Table
from skipless.display.values import counted
from skipless.experiments.depth.recipe import DepthCell
from skipless.experiments.depth.text import DESCRIPTION, TITLE, notes
from skipless.recipes.recipe import Recipe
from skipless.report.labels import FILE_KINDS, OPTIMIZER_LABEL, duration, rate
from skipless.report.pages.page import Page
from skipless.report.pages.write_page import write_report
from skipless.report.run_records import Run
from skipless.report.write_files import drawing


@dataclass(frozen=True, eq=False)
class DepthRuns:
    """One cell: its runs, one a seed, and what became of tokens in the first of them.

    Attributes:
        cell: model, optimizer and number of blocks.
        runs: one a seed.
        cosine_untrained, cosine_trained: mean cosine between an image's tokens after each block; trained is empty where
            the run diverged.
        diagonal_untrained, diagonal_trained: mean attention diagonal of each block.
    """

    cell: DepthCell
    runs: tuple[Run, ...]
    cosine_untrained: Sequence[float] = ()
    cosine_trained: Sequence[float] = ()
    diagonal_untrained: Sequence[float] = ()
    diagonal_trained: Sequence[float] = ()

    @property
    def accuracies(self) -> tuple[float, ...]:
        """Top-1 of every run that was finished, in percent."""
        return tuple(run.top1 for run in self.runs if run.top1 is not None)

    @property
    def shown(self) -> str:
        """Mean and sample standard deviation of the accuracies, or that all runs diverged."""
        reached = self.accuracies
        if not reached:
            return "diverged"
        spread = f" ± {statistics.stdev(reached):.1f}" if len(reached) > 1 else ""
        return f"{statistics.fmean(reached):.1f}{spread}"


def accuracy_table(found: Sequence[DepthRuns]) -> Table:
    """Accuracy and learning rate, a row for each model and optimizer, a column for each depth."""
    depths = sorted({one.cell.depth for one in found})
    lines: dict[tuple[str, str], list[str]] = {}
    for one in found:  # depths come in order
        said = f"{one.shown} (n {len(one.accuracies)}, {rate(one.runs[0].learning_rate)})"
        lines.setdefault((one.cell.row, OPTIMIZER_LABEL[one.cell.optimizer]), []).append(said)
    rows = [(*names, *values) for names, values in lines.items()]
    heads = ("model", "optimizer", *(counted(depth, "block") for depth in depths))
    caption = "Validation top-1 in percent, mean ± sample standard deviation over n seeds, and the peak learning rate."
    return Table(heads, rows, caption, align="ll" + "r" * len(depths))


def token_table(found: Sequence[DepthRuns]) -> Table:
    """Token cosine after the last block, and the first block at which tokens have collapsed."""
    rows = []
    for one in found:
        if one.cosine_untrained:
            after = f"{one.cosine_trained[-1]:.2f}" if one.cosine_trained else "–"
            values = (f"{one.cosine_untrained[-1]:.2f}", after, _collapsed(one.cosine_untrained))
            rows.append((one.cell.row, OPTIMIZER_LABEL[one.cell.optimizer], str(one.cell.depth), *values))
    heads = ("model", "optimizer", "blocks", "cosine before training", "after", "collapsed before training at block")
    return Table(heads, rows, "Mean cosine between an image's tokens after the last block, seed 0.", align="llrrrr")


def runs_table(found: Sequence[DepthRuns]) -> Table:
    """Every run."""
    rows = []
    for one in found:
        for run in one.runs:
            top1 = "diverged" if run.top1 is None else f"{run.top1:.2f}"
            loss = "–" if run.final_loss is None else f"{run.final_loss:.4f}"
            numbers = (str(run.seed), rate(run.learning_rate), top1, loss, duration(run.seconds))
            rows.append((one.cell.row, OPTIMIZER_LABEL[one.cell.optimizer], str(one.cell.depth), *numbers))
    heads = ("model", "optimizer", "blocks", "seed", "learning rate", "top-1, %", "final loss", "time")
    return Table(heads, rows, "Final loss: mean training loss over the last tenth of the run.", align="llrrrrrr")


def _collapsed(cosines: Sequence[float]) -> str:
    from skipless.models.inspection.token_report import COLLAPSED

    return next((str(block) for block, value in enumerate(cosines) if value >= COLLAPSED), "none")


def write_depth(
    found: Sequence[DepthRuns], out: Path, *, first: Recipe, images: int, tuned: bool, command: str
) -> dict[str, Path]:
    """Write tables, pictures and page.

    Args:
        found: the cells.
        out: folder of the report.
        first: recipe of one of the runs.
        images: that accuracies are on.
        tuned: whether rates were tuned for these runs.
        command: what makes the report again.

    Returns:
        The path of each file by its name.
    """
    figures = drawing("skipless.experiments.depth.figures")
    tables = (accuracy_table(found), token_table(found))
    pictures = {
        "depth-accuracy.png": figures.accuracy_png(found),
        "depth-tokens.png": figures.tokens_png(found),
        "depth-loss.png": figures.loss_png(found),
    }
    files: dict[str, object] = {
        "depth.md": "\n\n".join(table.markdown() for table in tables) + "\n",
        "depth.json": json.dumps([_as_json(one) for one in found], indent=1),
        **pictures,
    }
    page = Page(
        title=f"{TITLE}, at scale {first.scale}",
        description=DESCRIPTION,
        ours=f"{first.data.data}, {first.fit.epochs} epochs",
        numbers="\n".join(table.html() for table in tables),
        figures={figures.CAPTIONS[name]: content for name, content in pictures.items()},
        notes=notes(
            images,
            [len(one.accuracies) for one in found],
            tuned=tuned,
            muon=any(one.cell.optimizer == "muon" for one in found),
        ),
        command=command,
        files={name: FILE_KINDS[Path(name).suffix] for name in files},
        runs=runs_table(found).html(),
        trained=[run for one in found for run in one.runs],
    )
    return write_report(out, "depth", files, page)


def _as_json(one: DepthRuns) -> Mapping[str, object]:
    return {
        "row": one.cell.row,
        "optimizer": one.cell.optimizer,
        "depth": one.cell.depth,
        "learning_rate": one.runs[0].learning_rate,
        "top1": [run.top1 for run in one.runs],
        "final_loss": [run.final_loss for run in one.runs],
        "cosine_untrained": one.cosine_untrained,
        "cosine_trained": one.cosine_trained,
        "diagonal_untrained": one.diagonal_untrained,
        "diagonal_trained": one.diagonal_trained,
    }
