"""Pretraining runs as their folders tell them: losses, and what k-NN said of the teacher on the way (Figure 9)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from skipless.choices import OptimizerName, Row
from skipless.report.labels import OPTIMIZER_LABEL, duration
from skipless.report.pages.html_page import run_row, runs_table
from skipless.report.run_records import Run, number_at, read_lines, read_record, training_curve


@dataclass(frozen=True, eq=False)
class Pretraining:
    """One run of DINO.

    Attributes:
        row: the model.
        optimizer: `adamw` or `soap`.
        depth: number of blocks.
        run: loss by epoch and all else that a run folder says; it has no top-1.
        neighbours: (epoch, per cent) of the best block's k-NN on the way; empty where images had no labels.
        unlearnt: ln(out_dim), the loss of a teacher and a student that say nothing.
    """

    row: Row
    optimizer: OptimizerName
    depth: int
    run: Run
    neighbours: tuple[tuple[float, float], ...]
    unlearnt: float


def read_pretraining(folder: Path, row: Row, optimizer: OptimizerName, depth: int) -> Pretraining:
    """Read a run of DINO that has ended, one way or the other.

    Raises:
        InputError: if a file is missing, cannot be parsed or lacks a value; the message names the file.
    """
    record, result = read_record(folder / "run.json"), read_record(folder / "result.json")
    lines = folder / "metrics.jsonl"
    epoch, loss = training_curve(lines)
    found = [
        (number_at(line, "epoch", lines), float(line["evaluation"]["knn_best"]))
        for line in read_lines(lines)
        if "knn_best" in line.get("evaluation", {})
    ]
    run = Run(
        folder=folder,
        seed=int(number_at(record, "seed", folder / "run.json")),
        learning_rate=number_at(record, "recipe.optimizer.lr", folder / "run.json"),
        top1=None,
        steps=int(number_at(result, "steps", folder / "result.json")),
        seconds=number_at(result, "seconds", folder / "result.json"),
        diverged=bool(result.get("diverged", False)),
        reason=str(result.get("reason") or ""),
        epoch=epoch,
        loss=loss,
        record=record,
    )
    out_dim = number_at(record, "recipe.task.out_dim", folder / "run.json")
    return Pretraining(row, optimizer, depth, run, tuple(found), math.log(out_dim))


def pretraining_table(runs: Sequence[Pretraining]) -> str:
    """Every run as a table of a page."""
    remarks = any(one.run.diverged for one in runs)
    heads = ["model", "optimizer", "blocks", "seed", "learning rate", "k-NN, %", "final loss", "steps", "time"]
    return runs_table(
        heads + ["remark"] * remarks,
        [_row(one, remarks) for one in runs],
        "k-NN: of the teacher’s best block at the last evaluation, chosen on the same images. Final loss: mean "
        "training loss over the last tenth of the run.",
    )


def _row(one: Pretraining, remarks: bool) -> str:
    run = one.run
    knn = f"{one.neighbours[-1][1]:.1f}" if one.neighbours else "–"
    loss = "–" if run.final_loss is None else f"{run.final_loss:.3f}"
    rate = f"{run.learning_rate:.3g}"
    values = (str(one.depth), str(run.seed), rate, knn, loss, f"{run.steps:,}", duration(run.seconds))
    remark = f"stopped: {run.reason or 'no reason recorded'}" if run.diverged else ""
    return run_row(one.row, OPTIMIZER_LABEL[one.optimizer], values, remark if remarks else None)
