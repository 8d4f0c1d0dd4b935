"""The family's room: what its two reports train, what they say, and that they go on where they were cut off."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from skipless.display import Table
from skipless.errors import InputError
from skipless.experiments.family import AttentionOptions, ShortcutsOptions, runs
from skipless.experiments.family.attention import reproduce_attention
from skipless.experiments.family.paper import ATTENTION, SHORTCUTS
from skipless.experiments.family.recipe import DECAYED, METHODS, SOURCE, FamilyCell, family_recipe
from skipless.experiments.family.runs import CellRuns
from skipless.experiments.family.scales import AttentionKind, AttentionRow, FamilyScale, Method
from skipless.experiments.family.shortcuts import reproduce_shortcuts
from skipless.experiments.family.tables import method_of, paper_table, steps_table
from skipless.experiments.supervised.recipe import LEARNING_RATE, Cell
from skipless.models import block_views
from skipless.recipes import table1
from skipless.recipes.our_init import BLOCK_LR
from skipless.report.run_records import Run
from skipless.sweep import Job
from skipless.sweep.rates import best_rate, tune_learning_rates

CELLS = {
    *(FamilyCell(kind, row, "soap") for kind in get_args(AttentionKind)[:5] for row in get_args(AttentionRow)),
    *(FamilyCell("orthogonal", row, "soap") for row in get_args(AttentionRow)),
    *(FamilyCell(*pair, "soap") for pair in METHODS.values()),
}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of two blocks and two steps an epoch."""

    def small(*arguments: Any, **named: Any) -> Any:
        made = family_recipe(*arguments, **named)
        return made.with_(model__kwargs={**made.model.kwargs, "depth": 2}, fit__batch_size=512)

    monkeypatch.setattr(runs, "family_recipe", small)


@pytest.mark.parametrize("cell", sorted(CELLS), ids=lambda cell: cell.slug)
@pytest.mark.parametrize("scale", ["digits", pytest.param("fashion", marks=pytest.mark.slow)])
def test_every_cell_can_be_built(scale: FamilyScale, cell: FamilyCell) -> None:
    """At its whole depth: some scales cannot be solved, and some schemes are refused beside some cores."""
    recipe = family_recipe(scale, cell)
    size = {"digits": 8, "fashion": 28}[scale]
    views = block_views(recipe.model.build_for(size, 1, 10, seed=0))
    assert len(views) == 12
    assert all((view.core is None) == (cell.attention == "softmax") for view in views)
    assert {view.skips for view in views} == {("attn", "mlp") if cell.row in ("skip", "skip, decayed") else ()}
    assert views[-1].gain("mlp") == pytest.approx({"skip": 1.0, "skip, decayed": DECAYED}.get(cell.row, 0.0))


def test_a_cell_of_softmax_is_that_of_table_1() -> None:
    for row in get_args(AttentionRow):
        for scale in get_args(FamilyScale):
            assert family_recipe(scale, FamilyCell("softmax", row, "adamw")) == table1(scale, row, "adamw")


def test_what_is_otherwise_is_the_attention_the_start_and_the_length() -> None:
    plain = table1("digits", "skipless + ours", "soap")
    ours = family_recipe("digits", FamilyCell("shaped", "skipless + ours", "soap", 5))
    assert ours.fit.epochs == 5 * plain.fit.epochs
    assert ours.model.init == replace(plain.model.init, attention_diagonal=None, last_diagonal=None)
    assert (ours.optimizer, ours.optimizer.block_lr) == (plain.optimizer, BLOCK_LR / 12)
    source = family_recipe("digits", FamilyCell("E-SPA", "skipless + source", "soap"), epochs=2)
    assert (source.model.init, source.fit.epochs) == (SOURCE, 2)
    assert source.optimizer.lr == LEARNING_RATE["digits"][Cell("skipless + init", "soap")]
    scales = {
        row: family_recipe("digits", FamilyCell("polynomial 3", row, "soap")).model.attention.scale
        for row in get_args(AttentionRow)
    }
    assert scales == {"skip": None, "skipless": None, "skipless + init": "solved", "skipless + ours": "solved"}
    slugs = [cell.slug for cell in CELLS] + [cell._replace(length=5).slug for cell in CELLS]
    assert len(set(slugs)) == len(slugs)
    assert {method_of(FamilyCell(*pair, "soap")) for pair in METHODS.values()} == set(get_args(Method))


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (FamilyCell("shaped", "skip", "soap", 0), "--lengths 0: give 1 or more"),
        (FamilyCell("softmax", "skipless + source", "soap"), "has no source that does without skips"),
        (FamilyCell("polynomial 2", "skipless + source", "soap"), "has no source that does without skips"),
    ],
)
def test_what_is_no_cell_is_refused(cell: FamilyCell, message: str) -> None:
    with pytest.raises(InputError, match=message):
        family_recipe("digits", cell)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (AttentionOptions(attentions=()), "give at least one of each"),
        (AttentionOptions(seeds=0), "--seeds 0: give at least 1"),
        (AttentionOptions(tune=True, grid=()), "--grid : give factors above 0"),
        (AttentionOptions(tune=True, grid=(1.0, 0.0)), "--grid 1 0: give factors above 0"),
        (ShortcutsOptions(lengths=()), "give at least one of each"),
        (ShortcutsOptions(lengths=(1, 0)), "--lengths 0"),
    ],
)
def test_what_makes_no_sense_is_refused(options: Any, message: str, tmp_path: Path) -> None:
    make = reproduce_attention if isinstance(options, AttentionOptions) else reproduce_shortcuts
    with pytest.raises(InputError, match=message):
        make(options, tmp_path)


@pytest.mark.slow
def test_attention_is_tuned_reported_and_made_again_from_what_is_there(tmp_path: Path, short: None) -> None:
    options = AttentionOptions(
        attentions=("softmax", "polynomial 2"), rows=("skip", "skipless + init"), epochs=1, jobs=1, tune=True,
        grid=(1.0, 3.0), seeds=2,
    )  # fmt: skip
    written = reproduce_attention(options, tmp_path, command="skipless reproduce attention")
    pictures = {"attention-accuracy.png", "attention-loss.png"}
    assert {"attention.md", "attention.json", "index.html", *pictures} <= written.keys()
    found = json.loads(written["attention.json"].read_text())
    assert [(one["attention"], one["row"]) for one in found] == [
        (kind, row) for kind in options.attentions for row in options.rows
    ]
    tuned = {one["cell"]: one["top1"] for one in json.loads((tmp_path / "tuning.json").read_text())}
    for one in found:
        cell = FamilyCell(one["attention"], one["row"], one["optimizer"])
        scores = {float(rate): top1 for rate, top1 in tuned[cell.slug].items()}
        assert one["learning_rate"] == max(scores, key=scores.__getitem__)
        assert len(scores) == len(one["top1"]) == len(one["top1_by_epoch"]) == 2
        assert len(one["cosine_untrained"]) == len(one["diagonal_trained"]) == 2
    lines = written["attention.md"].read_text().splitlines()
    assert any(line.startswith("| attention | optimizer | skip | skipless + init |") for line in lines)
    assert any(line.startswith("| polynomial 2 | SOAP |") and line.count("(n 2, ") == 2 for line in lines)
    page = written["attention.html"].read_text()
    for words in ("79.6", "arXiv 2602.05996", "scale is solved", "best of 2 (1, 3 times"):
        assert words in page
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/*.*[!k]")}  # locks are touched
    again = reproduce_attention(options, tmp_path, command="skipless reproduce attention")
    assert json.loads(again["attention.json"].read_text()) == found
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}


def test_shortcuts_have_a_column_for_each_length_and_a_line_for_each_run(tmp_path: Path, short: None) -> None:
    options = ShortcutsOptions(
        methods=("skip", "skip, decayed", "U-SPA", "shaped + ours"), lengths=(2, 1), epochs=1, jobs=1
    )
    written = reproduce_shortcuts(options, tmp_path, command="skipless reproduce shortcuts")
    found = json.loads(written["shortcuts.json"].read_text())
    assert [one["length"] for one in found] == [1, 2] * 4
    assert [one["steps"] for one in found] == [[2], [4]] * 4
    lines = written["shortcuts.md"].read_text().splitlines()
    assert any(line.startswith("| method | optimizer | 1x | 2x |") for line in lines)
    for method in options.methods:
        assert any(line.startswith(f"| {method} | SOAP |") for line in lines)
    page = written["shortcuts.html"].read_text()
    for words in ("not public: here 1 - rho", "Learning rates are those of Table 1", "about 5x", "fall from 1 to 0.6"):
        assert words in page


def _cell(method: Method, length: int, *curves: tuple[float, ...]) -> CellRuns:
    runs_ = tuple(_run(curve[-1], index) for index, curve in enumerate(curves))
    by_epoch = tuple(tuple((float(i), top1) for i, top1 in enumerate(curve, 1)) for curve in curves)
    return CellRuns(FamilyCell(*METHODS[method], "soap", length), runs_, by_epoch, {})


def _run(top1: float, seed: int) -> Run:
    none = np.zeros(0)
    return Run(Path("run"), seed, 1e-3, top1, 1, 1.0, False, "", none, none, {})


def test_steps_are_counted_to_the_residual_models_accuracy() -> None:
    cells = [
        _cell("skip", 1, (50.0, 80.0), (60.0, 90.0)),  # 85 on average
        _cell("E-SPA", 1, (10.0, 84.0), (10.0, 20.0)),
        _cell("E-SPA", 5, (10.0, 20.0, 86.0, 84.0), (10.0, 30.0, 40.0, 85.0)),
    ]
    table: Table = steps_table(cells)
    assert [row[-2:] for row in table.rows] == [("2", "1 of 2"), ("never", "0 of 2"), ("4", "2 of 2")]
    assert not steps_table(cells[1:]).rows


def test_what_papers_print_is_as_in_their_sources() -> None:
    for printed in (ATTENTION, SHORTCUTS):
        assert len(paper_table(printed).rows) == len(printed)
        assert all(one.value and one.source for one in printed)


def test_a_grid_that_diverges_whole_is_a_result_where_it_may_be(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    recipe = table1("digits")

    def diverge(jobs: Any, **_: Any) -> None:
        for job in jobs:
            job.state = "diverged"

    monkeypatch.setattr("skipless.sweep.rates.run_jobs", diverge)
    grids = {("model", "soap"): {rate: Job(("x",), recipe, tmp_path, 1) for rate in (1e-3, 3e-3)}}
    with pytest.raises(InputError, match="every learning rate of .* diverged; extend its grid"):
        tune_learning_rates(grids)
    reached = tune_learning_rates(grids, all_may_diverge=True)
    assert reached == {("model", "soap"): {1e-3: None, 3e-3: None}}
    assert "note: every rate of model, soap diverged" in capsys.readouterr().err
    with pytest.raises(InputError, match="every learning rate"):
        best_rate(("model", "soap"), reached["model", "soap"])
