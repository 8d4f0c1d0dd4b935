"""Table 1 with Muon beside the paper's two optimizers."""

import csv
import json
from pathlib import Path

import pytest
from reference.command import skipless
from reference.run_folders import write_run

from skipless.choices import ALL_ROWS
from skipless.experiments.supervised.cells import CellRuns, table1_cells
from skipless.experiments.supervised.recipe import CELLS, GRID, LEARNING_RATE, PAPER_CELLS, Cell
from skipless.experiments.supervised.report import write_report
from skipless.experiments.supervised.run import reproduce_table1
from skipless.experiments.supervised.text import description, notes
from skipless.recipes import table1
from skipless.recipes.our_init import with_our_init
from skipless.report.run_records import Setting, read_run

SETTING = Setting("ViT, width 32", "digits", 30, 10)
TEXTS = {"title": "Runs", "description": "by three", "command": "skipless reproduce table1"}


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> tuple[CellRuns, ...]:
    folder = tmp_path_factory.mktemp("runs")
    reached = {"skipless": 50.0, "skipless + init": 91.5}
    return table1_cells(
        {
            (row, optimizer): [read_run(write_run(folder / f"{row}{optimizer}", top1=top1))]
            for row, top1 in reached.items()
            for optimizer in ("SOAP", "Muon")
        }
    )


def test_the_papers_cells_are_the_papers() -> None:
    assert len(PAPER_CELLS) == 6
    assert {cell.optimizer for cell in PAPER_CELLS} == {"adamw", "soap"}
    assert len(CELLS) == 12
    assert {cell.optimizer for cell in table1_cells({})} == {"AdamW", "SOAP"}


def test_every_cell_of_muon_has_a_rate_and_a_grid_around_it() -> None:
    for scale, grids in GRID.items():
        for row in ALL_ROWS:
            rates, cell = grids[Cell(row, "muon")], Cell(row, "muon")
            assert rates[0] < LEARNING_RATE[scale][cell] < rates[-1]
            assert LEARNING_RATE[scale][cell] in rates


def test_the_report_has_a_column_and_a_panel_for_it(cells, tmp_path: Path) -> None:
    files = write_report(cells, tmp_path, setting=SETTING, **TEXTS)
    rows = list(csv.DictReader(files["table1.csv"].read_text().splitlines()))
    assert [row["optimizer"] for row in rows] == ["AdamW", "SOAP", "Muon"] * 4
    assert {row["paper_top1"] for row in rows if row["optimizer"] == "Muon"} == {""}
    page = files["index.html"].read_text()
    assert page.count('scope="colgroup"') == 3
    assert page.count("Training loss with") == 3
    assert "+41.5 points with SOAP (the paper: +3.8) and +41.5 points with Muon (not in the paper)" in page
    assert "none of ours or by Muon" in page


def test_the_page_says_whose_rates_muon_has(cells) -> None:
    recipe = table1("digits", "skip", "muon")
    for tuned in (False, True):
        said = " ".join(notes(recipe, cells, 400, as_tuned=True, tuned=tuned))
        assert ("Muon's were not: they are AdamW's" in said) != tuned
    without = [cell for cell in cells if cell.optimizer != "Muon"]
    assert "Muon" not in " ".join(notes(recipe, without, 400, as_tuned=True, tuned=False))
    assert description(("muon", "soap", "adamw")).startswith("Twelve runs")
    assert "each trained by AdamW, by SOAP and by Muon." in description(("adamw", "soap", "muon"))
    assert "Muon" not in description(("adamw", "soap"))


def test_the_paper_scale_names_its_runs(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / "imagenet" / split / "cat").mkdir(parents=True)
        (tmp_path / "imagenet" / split / "cat" / "1.jpg").touch()
    data = str(tmp_path / "imagenet")
    with pytest.raises(ValueError, match="--optimizer muon") as told:
        reproduce_table1("paper", tmp_path / "out", data=data, optimizers=("muon",))
    assert str(told.value).count("--optimizer muon") == 3
    with pytest.raises(ValueError, match="--optimizers: give at least one"):
        reproduce_table1("digits", tmp_path / "out", optimizers=())


def test_digits_learn_by_it(tmp_path: Path) -> None:
    """Two blocks without skips; chance is 10 %, and one run at this rate had 90 % after four epochs."""
    recipe = table1("digits", "skipless + ours", "muon")
    shallow = with_our_init(recipe.with_(model__kwargs={**recipe.model.kwargs, "depth": 2}))
    result = shallow.with_(fit__epochs=3, fit__progress="none").run(tmp_path)
    assert result.metrics["top1"] > 75


def test_the_command_line_trains_by_it_and_lists_the_run(capsys, tmp_path: Path) -> None:
    words = ("train", "table1", "--ours", "--optimizer", "muon", "--epochs", "1", "--batch-size", "512")
    code, _, told = skipless(capsys, *words, "--out", str(tmp_path / "run"), "--progress", "none")
    assert code == 0, told
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert (record["recipe"]["optimizer"]["name"], record["recipe"]["optimizer"]["lr"]) == ("muon", 1e-3)
    assert skipless(capsys, "report", str(tmp_path))[0] == 0
    assert "<td>Muon</td>" in (tmp_path / "index.html").read_text()
    code, _, told = skipless(capsys, *words, "--out", str(tmp_path / "run"), "--lr", "0.1")  # another recipe
    assert code == 2
    assert "lr" in told
