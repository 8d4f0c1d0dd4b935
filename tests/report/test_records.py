import json
import math
from pathlib import Path

import pytest
from reference.run_folders import write_run

from skipless.errors import InputError
from skipless.experiments.supervised.cells import CellRuns as Cell, table1_cells
from skipless.experiments.supervised.paper import PAPER_TABLE1
from skipless.report.run_records import read_run


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", seed=7, lr=1e-3, top1=91.25, steps=120, epochs=4))
    assert (run.seed, run.learning_rate, run.top1, run.steps, run.diverged) == (7, 1e-3, 91.25, 120, False)
    assert run.epoch.size == run.loss.size == 120  # the evaluation line is no training loss
    assert run.epoch[-1] == 4
    assert run.final_loss == pytest.approx(run.loss[-13:].mean())  # from step 108 of 120


def test_a_resumed_run_counts_a_step_once_and_the_later_line_wins(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", steps=10)
    file = folder / "metrics.jsonl"
    file.write_text(file.read_text() + json.dumps({"step": 5, "epoch": 15.0, "loss": 9.0}) + "\n")
    run = read_run(folder)
    assert run.loss.size == 10
    assert run.loss[4] == 9.0
    assert (run.epoch[1:] > run.epoch[:-1]).all()


def test_losses_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", steps=10, diverges_at=8, top1=None)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "epoch": 27.0, "loss": NaN}\n{"step": 10, "epoch": 30.0, "loss": null}\n')
    run = read_run(folder)
    assert run.diverged
    assert run.top1 is None
    assert run.loss.size == 8


@pytest.mark.parametrize("name", ["run.json", "result.json", "metrics.jsonl"])
@pytest.mark.parametrize("damage", ["missing", "cut", "binary", "list"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, damage: str) -> None:
    file = write_run(tmp_path / "a") / name
    whole = file.read_bytes()
    file.unlink()
    if damage != "missing":
        file.write_bytes({"cut": whole[:-5], "binary": b"\xff\xfe\x00", "list": b"[1, 2]"}[damage])
    with pytest.raises(InputError, match=name):
        read_run(tmp_path / "a")


@pytest.mark.parametrize(
    ("name", "path"), [("run.json", ("seed",)), ("run.json", ("recipe", "optimizer", "lr")), ("result.json", ("top1",))]
)
def test_a_missing_value_is_named(tmp_path: Path, name: str, path: tuple[str, ...]) -> None:
    file = write_run(tmp_path / "a") / name
    record = json.loads(file.read_text())
    inner = record
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    file.write_text(json.dumps(record))
    with pytest.raises(InputError, match=f"{name} has no number under '{'.'.join(path)}'"):
        read_run(tmp_path / "a")


def test_a_cell_has_mean_and_sample_deviation(tmp_path: Path) -> None:
    runs = tuple(read_run(write_run(tmp_path / str(seed), seed=seed, top1=90.0 + seed)) for seed in range(3))
    cell = Cell("skip", "AdamW", 80.3, runs)
    assert (cell.n, cell.mean, cell.spread, cell.diverged) == (3, 91.0, 1.0, 0)
    assert Cell("skip", "AdamW", 80.3, runs[:1]).spread is None
    assert Cell("skip", "AdamW", 80.3).mean is None


def test_a_diverged_run_is_counted_but_lends_no_accuracy(tmp_path: Path) -> None:
    was_good = read_run(write_run(tmp_path / "0", seed=0, top1=95.0, diverges_at=50))
    nothing = read_run(write_run(tmp_path / "1", seed=1, top1=None, diverges_at=50))
    good = read_run(write_run(tmp_path / "2", seed=2, top1=90.0))
    cell = Cell("skipless", "SOAP", 77.0, (was_good, nothing, good))
    assert (cell.n, cell.mean, cell.diverged) == (1, 90.0, 2)


def test_a_cell_refuses_runs_that_differ_in_more_than_the_seed(tmp_path: Path) -> None:
    first = read_run(write_run(tmp_path / "first", seed=0, lr=1e-3))
    with pytest.raises(InputError, match="repeat a seed"):
        Cell("skip", "AdamW", 80.3, (first, first))
    other = read_run(write_run(tmp_path / "other", seed=1, lr=3e-3))
    with pytest.raises(InputError, match=r"2 learning rates .*first has 0.001"):
        Cell("skip", "AdamW", 80.3, (first, other))


def test_table1_keeps_every_cell_and_the_papers_order(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a"))
    cells = table1_cells({("skipless + init", "SOAP"): [run]})
    assert [(cell.row, cell.optimizer) for cell in cells][:6] == list(PAPER_TABLE1)
    assert [len(cell.runs) for cell in cells] == [0, 0, 0, 0, 0, 1, 0, 0]
    assert math.isclose(sum(cell.paper or 0.0 for cell in cells), 80.3 + 80.1 + 61.4 + 77.0 + 78.1 + 80.8)
