"""The files of the report of few bits: tables, pictures and the page."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from skipless.display import Table
from skipless.evaluators.quantisation.rounding.grid import Per
from skipless.experiments.quantisation.recipe import QuantisationCell
from skipless.experiments.quantisation.text import DESCRIPTION, TITLE, notes
from skipless.recipes.recipe import Recipe
from skipless.report.labels import FILE_KINDS, OPTIMIZER_LABEL, rate
from skipless.report.pages.page import Page
from skipless.report.pages.write_page import write_report
from skipless.report.run_records import Run, read_lines
from skipless.report.write_files import drawing
from skipless.studies import QuantisationResult
from skipless.studies.quantisation.study import FULL

SITES = {"tokens": "the stream, or the tokens between blocks", "hidden": "the MLP's last input"}


@dataclass(frozen=True, eq=False)
class QuantisedCell:
    """One cell: its runs, one a seed, and what each of them scores at few bits.

    Attributes:
        cell: model and optimizer.
        runs: one a seed.
        results: one a seed.
        before: of the first seed's model before training.
    """

    cell: QuantisationCell
    runs: tuple[Run, ...]
    results: tuple[QuantisationResult, ...]
    before: QuantisationResult

    @property
    def name(self) -> tuple[str, str]:
        """Model and optimizer in words."""
        return self.cell.row, OPTIMIZER_LABEL[self.cell.optimizer]

    @cached_property
    def followed(self) -> tuple[tuple[tuple[float, Mapping[str, float]], ...], ...]:
        """For each run, mean kurtosis by site at shares of its training; empty for one that was trained elsewhere."""
        return tuple(_followed(run) for run in self.runs)

    def lost(self, precision: str) -> list[float]:
        """What a precision loses in the metric's unit, a number for each seed."""
        return [result.lost(precision)[0] for result in self.results]


def _followed(run: Run) -> tuple[tuple[float, Mapping[str, float]], ...]:
    file = run.folder / "measurements.jsonl"
    moments = []
    for line in read_lines(file) if file.exists() else ():
        if found := line["measurement"].get("activations"):
            by_site = {site: [one for one in found["kurtosis"][site] if one is not None] for site in SITES}
            means = {site: statistics.fmean(blocks) for site, blocks in by_site.items() if blocks}
            moments.append((line["step"] / run.steps, means))
    return tuple(moments)


def score_table(found: Sequence[QuantisedCell]) -> Table:
    """The score unquantised, and what each precision loses: absolute, and in per cent of the unquantised score."""
    first = found[0].results[0]
    precisions = [name for name in first.scores if name != FULL]
    rows = []
    for one in found:
        whole = _spread([result.scores[FULL] for result in one.results], 2)
        lost = [
            f"{_spread(one.lost(name), 2)} ({statistics.fmean(result.lost(name)[1] for result in one.results):.1f} %)"
            for name in precisions
        ]
        rows.append((*one.name, f"{whole} (n {len(one.results)}, {rate(one.runs[0].learning_rate)})", *lost))
    heads = ("model", "optimizer", first.metric.name, *(f"lost at {name}" for name in precisions))
    caption = (
        "Mean ± sample standard deviation over n seeds, and the peak learning rate; lost: in the score's unit, and in "
        "per cent of the score."
    )
    return Table(heads, rows, caption, align="ll" + "r" * (1 + len(precisions)))


def kurtosis_table(found: Sequence[QuantisedCell]) -> Table:
    """Excess kurtosis before training and after, the mean over blocks and the block where it is largest."""
    rows = []
    for one in found:
        cells = []
        for site in SITES:
            before = list(kurtosis(one.before, site).values())
            after = [list(kurtosis(result, site).values()) for result in one.results]
            cells += [
                f"{statistics.fmean(before):.2f}",
                _spread([statistics.fmean(blocks) for blocks in after], 2),
                _spread([max(blocks) for blocks in after], 1),
            ]
        rows.append((*one.name, *cells))
    heads = ("model", "optimizer")
    for site in SITES:
        heads += (f"{site}: before training", "after", "largest block")
    caption = "Excess kurtosis, mean over blocks; " + "; ".join(f"{site}: {said}" for site, said in SITES.items()) + "."
    return Table(heads, rows, caption, align="ll" + "r" * 3 * len(SITES))


def sqnr_table(found: Sequence[QuantisedCell]) -> Table:
    """SQNR of the inputs of linear maps, the mean over blocks and the three inputs, in decibels."""
    pers: tuple[Per, ...] = ("token", "tensor")
    columns: list[tuple[int, Per]] = [(bits, per) for bits in (8, 6, 4) for per in pers]
    rows = []
    for one in found:
        sites = [
            [site for site in result.statistics.sites if site.site in ("attention in", "heads", "MLP in", "hidden")]
            for result in one.results
        ]
        shown = [
            _spread([statistics.fmean(site.sqnr[bits][per] for site in of) for of in sites], 1) for bits, per in columns
        ]
        rows.append((*one.name, *shown))
    heads = ("model", "optimizer", *(f"{bits} bits, a {per}" for bits, per in columns))
    caption = (
        "Signal to rounding noise of the inputs of linear maps, dB, mean over blocks: a scale for each token, or one."
    )
    return Table(heads, rows, caption, align="ll" + "r" * len(columns))


def kurtosis(result: QuantisationResult, site: str) -> dict[str, float]:
    """Pooled excess kurtosis of a site by block."""
    return result.statistics.by_block(site, lambda one: one.kurtosis["pooled"])


def write_quantisation(found: Sequence[QuantisedCell], out: Path, *, first: Recipe, command: str) -> dict[str, Path]:
    """Write tables, pictures and page.

    Args:
        found: the cells.
        out: folder of the report.
        first: recipe of one of the runs.
        command: what makes the report again.

    Returns:
        The path of each file by its name.
    """
    figures = drawing("skipless.experiments.quantisation.figures")
    tables = (score_table(found), kurtosis_table(found), sqnr_table(found))
    pictures = {
        "quantisation-bits.png": figures.bits_png(found),
        "quantisation-kurtosis.png": figures.kurtosis_png(found),
    }
    if any(any(one.followed) for one in found):
        pictures["quantisation-training.png"] = figures.training_png(found)
    files: dict[str, object] = {
        "quantisation.md": "\n\n".join(table.markdown() for table in tables) + "\n",
        "quantisation.json": json.dumps([_as_json(one) for one in found], indent=1),
        **pictures,
    }
    result = found[0].results[0]
    page = Page(
        title=f"{TITLE}, at scale {first.scale}",
        description=DESCRIPTION,
        ours=f"{result.data}, {first.model.title}",
        numbers="\n".join(table.html() for table in tables),
        figures={figures.CAPTIONS[name]: content for name, content in pictures.items()},
        notes=notes(
            f"{result.n:,} {'tokens' if first.reads_text else 'images'}",
            [len(one.results) for one in found],
            static=result.config.static,
            language=first.reads_text,
        ),
        command=command,
        files={name: FILE_KINDS[Path(name).suffix] for name in files},
        trained=list({run.folder: run for one in found for run in one.runs}.values()),
    )
    return write_report(out, "quantisation", files, page)


def _spread(values: Sequence[float], digits: int) -> str:
    """Mean ± sample standard deviation; of one value that alone."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def _as_json(one: QuantisedCell) -> Mapping[str, object]:
    by_seed = {site: [kurtosis(result, site) for result in one.results] for site in SITES}
    return {
        "row": one.cell.row,
        "optimizer": one.cell.optimizer,
        "learning_rate": one.runs[0].learning_rate,
        "metric": one.results[0].metric.name,
        "scores": [dict(result.scores) for result in one.results],
        "kurtosis": by_seed,
        "kurtosis_in_training": [[{"share": share, **means} for share, means in of] for of in one.followed],
        "kurtosis_untrained": {site: kurtosis(one.before, site) for site in SITES},
    }
