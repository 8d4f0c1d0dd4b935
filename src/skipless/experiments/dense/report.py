"""From runs and scores to the files of a report: which lines a table has, which curves a figure, and what is to say."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from skipless.choices import MULTISCALE
from skipless.experiments.dense.layout.page import DensePage, dense_page
from skipless.experiments.dense.layout.table import DenseTable, Line, Value, dense_csv, dense_markdown
from skipless.experiments.dense.paper import (
    EARLY_EPOCH,
    PAPER_DEPTH,
    PAPER_EPOCHS,
    PAPER_FIGURE3,
    PAPER_TABLE2,
    PAPER_TABLE3,
    PAPER_TABLE4,
    Key,
)
from skipless.experiments.dense.pretraining.runs import Member, early_epoch
from skipless.experiments.dense.scores.evaluation import Found
from skipless.experiments.dense.scores.record import UNTRAINED, DenseRuns
from skipless.experiments.dense.text import (
    DESCRIPTIONS,
    METRICS,
    PAPER_SETTING,
    differences,
    notes,
    our_setting,
)
from skipless.experiments.dense.what import BY_DEPTH, TITLES, kind_of
from skipless.report.labels import FILE_KINDS, NOT_RUN, OPTIMIZER_LABEL
from skipless.report.write_files import drawing

Which = Literal["best", "last", "multiscale"]
GROUPS: dict[str, dict[Which, str]] = {
    "masks": {"best": "single feature: best block", "last": "single feature: last block", "multiscale": "multiscale"},
    "boxes": {"best": "best block and feature", "last": "last block’s keys"},
}


def report_scores(runs: DenseRuns) -> dict[str, Any]:
    """Files of Tables 2 to 4 and Figures 2 and 3: Markdown, CSV, SVG, PNG and the page."""
    figures = drawing("skipless.experiments.dense.layout.figures")
    table = scores_table(runs)
    by_depth = runs.what in BY_DEPTH
    drawn = _depth_figure(runs, figures) if by_depth else _epoch_figure(runs, figures)
    name = f"{runs.what}-depth" if by_depth else runs.what if runs.what.startswith("figure") else f"{runs.what}-epochs"
    pictures = _render(drawn, name)
    made = f"\nMade by `{runs.command}`.\n" if runs.command else ""
    points = "" if by_depth else " The points are the teachers that were evaluated; epoch 0 is before training."
    caption = f"{TITLES[runs.what]}.{points}"
    files = {f"{runs.what}.md": dense_markdown(table) + made, f"{runs.what}.csv": dense_csv(table), **pictures}
    return {**files, f"{runs.what}.html": _page(runs, {caption: pictures[f"{name}.svg"]}, files, table)}


def report_loss(runs: DenseRuns) -> dict[str, Any]:
    """Files of Figure 9."""
    figures = drawing("skipless.experiments.dense.layout.figures")
    classes = runs.recipe.task.out_dim
    words = figures.Words(TITLES["figure9"], "epoch", "training loss", f"nothing learnt, ln {classes}")
    pictures = _render(figures.loss_figure(runs.pretrained, words), "figure9")
    heads = ("model", "optimizer", "blocks", "seed", "final loss", "best k-NN, %", "epochs", "ended")
    lines = [f"| {' | '.join(heads)} |", "|:--|:--|--:|--:|--:|--:|--:|:--|"]
    for one in runs.pretrained:
        run = one.run
        loss = "–" if run.final_loss is None else f"{run.final_loss:.3f}"
        knn = f"{one.neighbours[-1][1]:.1f}" if one.neighbours else "–"
        epochs = f"{run.epoch[-1]:.3g}" if run.epoch.size else "0"
        values = (OPTIMIZER_LABEL[one.optimizer], one.depth, run.seed, loss, knn, epochs, run.reason or "as planned")
        lines.append(f"| {one.row} | {' | '.join(map(str, values))} |")
    said = (
        "Final loss: mean over the last tenth of the run. k-NN: of the teacher's best block at the last evaluation. "
        f"The paper shows curves without numbers. Paper: {PAPER_SETTING}. Ours: {our_setting(runs)}."
    )
    made = f"\nMade by `{runs.command}`.\n" if runs.command else ""
    files = {"figure9.md": "\n".join([*lines, "", said, ""]) + made, **pictures}
    return {**files, "figure9.html": _page(runs, {TITLES["figure9"]: pictures["figure9.svg"]}, files)}


def report_pictures(runs: DenseRuns, drawn: dict[str, bytes]) -> dict[str, Any]:
    """Files of Figures 4, 7 and 8."""
    captions = {name: f"{TITLES[runs.what]}: {name}" for name in drawn}
    made = f"\nMade by `{runs.command}`.\n" if runs.command else ""
    text = [f"# {TITLES[runs.what]}", "", DESCRIPTIONS[runs.what], ""]
    text += [f"![{captions[name]}]({name})" for name in drawn]
    text += ["", *(f"- {one}" for one in [*differences(runs), *notes(runs)])]
    files: dict[str, Any] = {f"{runs.what}.md": "\n".join([*text, ""]) + made, **drawn}
    return {**files, f"{runs.what}.html": _page(runs, {captions[n]: content for n, content in drawn.items()}, files)}


def scores_table(runs: DenseRuns) -> DenseTable:
    """The table of a table or figure, a line for each model, optimizer, depth and epoch."""
    kind = kind_of(runs.what)
    columns = tuple(runs.scale.masks if kind == "masks" else runs.scale.boxes)
    lines: list[Line] = []
    for which, group in GROUPS[kind].items():
        if runs.what in BY_DEPTH and which == "last":
            continue
        lines += [_line(runs, which, group, key, columns) for key in _keys(runs)]
    lines.append(_floor(runs, columns))
    highest = max([v.mean or 0 for line in lines for v in line.values.values()] + [1.0])
    paper = max([v.paper or 0 for line in lines for v in line.values.values()] + [1.0])
    return DenseTable(
        runs.what, TITLES[runs.what], METRICS[kind], columns, tuple(lines), PAPER_SETTING, our_setting(runs),
        legend=_LEGEND[kind], bars=max(highest, paper),
    )  # fmt: skip


def _keys(runs: DenseRuns) -> list[tuple[Member, int]]:
    """Members of the first seed with an epoch, in the table's order: the paper's first, then what it does not have."""
    first = min(member.seed for member in runs.recipes)
    members = [member for member in runs.recipes if member.seed == first]
    epochs = sorted((epoch for epoch in runs.epochs if epoch != UNTRAINED), reverse=True)
    keys = [(member, epoch) for member in members for epoch in epochs]
    optimizers = list(dict.fromkeys(member.optimizer for member in members))
    untrained = [(member, UNTRAINED) for member in members if member.optimizer == optimizers[0]]
    return [*keys, *untrained]


def _line(runs: DenseRuns, which: Which, group: str, key: tuple[Member, int], columns: Sequence[str]) -> Line:
    member, epoch = key
    values = {column: _value(runs, which, member, epoch, column) for column in columns}
    last = runs.recipe.fit.epochs
    detail = {"optimizer": OPTIMIZER_LABEL[member.optimizer] if epoch != UNTRAINED else "–"}
    if runs.what in BY_DEPTH:
        detail = {"blocks": str(member.depth)}
    detail["epoch"] = f"{epoch} of {last}" if epoch != UNTRAINED else "0"
    return Line(group, member.row, detail, values)


def _value(runs: DenseRuns, which: Which, member: Member, epoch: int, column: str) -> Value:
    """The paper's number and ours, over the seeds."""
    seeds = [one for one in runs.recipes if one[:3] == member[:3]]
    found = [runs.scores.get((one, epoch, column)) for one in seeds]
    pairs = [pair for one in found if one is not None and (pair := _pair(one, which)) is not None]
    failed = sum(one is None for one in found)
    paper = _paper(runs, which, member, epoch)
    numbers, where = tuple(v for v, _ in pairs), tuple(where for _, where in pairs)
    shallow = which == "multiscale" and member.depth < len(MULTISCALE)
    return Value(paper.get(column), numbers, failed, where, f"under {len(MULTISCALE)} blocks" if shallow else NOT_RUN)


def _pair(found: Found, which: Which) -> tuple[float, str] | None:
    return {"best": found.best, "last": found.last, "multiscale": found.multiscale}[which]


def _paper(runs: DenseRuns, which: Which, member: Member, epoch: int) -> dict[str, float]:
    """The paper's numbers that stand beside ours: two thirds of our run stand for 200 of its 300 epochs."""
    moments = {early_epoch(runs.recipe): EARLY_EPOCH, runs.recipe.fit.epochs: PAPER_EPOCHS}
    full = max(one.depth for one in runs.recipes)
    if epoch not in moments:
        return {}
    # The paper's shallower models are AdamW's; ours are by what suits the scale.
    optimizer = "adamw" if runs.what in BY_DEPTH else member.optimizer
    key = Key(member.row, optimizer, moments[epoch], PAPER_DEPTH - (full - member.depth))
    if runs.what in ("table2", "figure2"):
        kind = {"best": "single", "multiscale": "multiscale", "last": ""}[which]
        return dict(PAPER_TABLE2.get(kind, {}).get(key, {}))
    if runs.what == "table3":
        return dict(PAPER_TABLE3.get(key, {})) if which == "multiscale" else {}
    numbers = PAPER_FIGURE3 if runs.what == "figure3" else PAPER_TABLE4
    return dict(numbers.get(key, {})) if which == "best" else {}


def _floor(runs: DenseRuns, columns: Sequence[str]) -> Line:
    """What needs no features at all."""
    name = "most frequent class everywhere" if kind_of(runs.what) == "masks" else "a box around the whole image"
    found = {c: next((f for (_, _, column), f in runs.scores.items() if column == c and f), None) for c in columns}
    values = {c: Value(None, () if f is None or f.floor is None else (f.floor,)) for c, f in found.items()}
    return Line("what must be beaten", name, {}, values)


def _epoch_figure(runs: DenseRuns, figures: Any) -> Any:
    """Scores by epoch: a row of panels for each choice of features, a column for each data set."""
    kind = kind_of(runs.what)
    table_lines: list[Which] = ["best", "multiscale"] if kind == "masks" else ["best", "last"]
    columns = list(runs.scale.masks if kind == "masks" else runs.scale.boxes)
    floors = _floor(runs, columns).values
    grid = []
    for which in table_lines:
        panels = []
        for column in columns:
            curves = [
                figures.Curve(
                    member.row,
                    member.optimizer,
                    tuple((float(e), _value(runs, which, member, e, column)) for e in sorted(runs.epochs)),
                )
                for member in _first_seed(runs)
            ]
            panels.append(figures.Panel(f"{column}, {GROUPS[kind][which]}", tuple(curves), floors[column].mean))
        grid.append(panels)
    return figures.panels_figure(grid, _words(runs, figures, "epoch"))


def _depth_figure(runs: DenseRuns, figures: Any) -> Any:
    """Scores by depth: the paper's above, ours below."""
    which: Which = "multiscale" if runs.what == "table3" else "best"
    kind = kind_of(runs.what)
    columns = list(runs.scale.masks if kind == "masks" else runs.scale.boxes)
    floors = _floor(runs, columns).values
    full = max(member.depth for member in runs.recipes)

    def panel(column: str, paper: bool) -> Any:
        points: dict[str, list[tuple[float, Value]]] = {}
        for member in _first_seed(runs):
            epoch = _epoch_by_paper(runs, member, full)
            depth = PAPER_DEPTH - (full - member.depth) if paper else member.depth
            points.setdefault(member.row, []).append((float(depth), _value(runs, which, member, epoch, column)))
        curves = tuple(figures.Curve(row, "adamw", tuple(found)) for row, found in points.items())
        title = f"{column}, {'the paper' if paper else 'ours'}"
        return figures.Panel(title, curves, None if paper else floors[column].mean, paper=paper)

    grid = [[panel(column, True) for column in columns], [panel(column, False) for column in columns]]
    return figures.panels_figure(grid, _words(runs, figures, "blocks"), shared=False)


def _epoch_by_paper(runs: DenseRuns, member: Member, full: int) -> int:
    """Ours that stands for the epoch of the paper's number for this model."""
    late = member.row == "skip" or (runs.what == "table4" and member.depth == full)
    return runs.recipe.fit.epochs if late else early_epoch(runs.recipe)


def _first_seed(runs: DenseRuns) -> list[Member]:
    first = min(member.seed for member in runs.recipes)
    return [member for member in runs.recipes if member.seed == first]


def _words(runs: DenseRuns, figures: Any, x: str) -> Any:
    kind = kind_of(runs.what)
    floor = "most frequent class" if kind == "masks" else "whole image"
    return figures.Words(TITLES[runs.what], x, {"masks": "mIoU, %", "boxes": "CorLoc, %"}[kind], floor)


def _page(runs: DenseRuns, figures: dict[str, bytes], files: Mapping[str, Any], table: DenseTable | None = None) -> str:
    return dense_page(
        DensePage(
            title=f"{TITLES[runs.what]}, at scale {runs.scale.name}",
            description=DESCRIPTIONS[runs.what],
            ours=our_setting(runs),
            paper=PAPER_SETTING,
            differences=differences(runs),
            notes=notes(runs),
            command=runs.command,
            table=table,
            figures=figures,
            runs=runs.pretrained,
            files={name: FILE_KINDS[Path(name).suffix] for name in files},
        )
    )


def _render(figure: Any, name: str) -> dict[str, bytes]:
    return drawing("skipless.report.pictures.figure_style").render(figure, name)


_LEGEND: dict[str, tuple[str, ...]] = {
    "masks": (
        "The best block is chosen on the images that it is reported on, as is each head's learning rate; the paper's "
        "“single feature” does not say which block it is.",
    ),
    "boxes": (
        "The best block and feature are chosen on the images that they are reported on, as the paper's "
        "“best-performing”; TokenCut's authors take the last block's keys.",
    ),
}
