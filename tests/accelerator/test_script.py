"""`benchmarks/accelerator.py` on a CPU: it ends in time, loses nothing when it is killed, and goes on."""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "accelerator.py"
PARTS = ("tokencut", "spectrum", "initialize")
pytestmark = pytest.mark.slow


def command(out: Path, *more: str) -> list[str]:
    chosen = [argument for name in PARTS for argument in ("--part", name)]
    return [sys.executable, str(SCRIPT), "--device", "cpu", "--minutes", "2", "--out", str(out), *chosen, *more]


def record(out: Path, name: str) -> dict[str, Any] | None:
    file = out / "parts" / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def test_it_is_killed_and_goes_on(tmp_path: Path) -> None:
    process = subprocess.Popen(command(tmp_path), stdout=subprocess.DEVNULL)
    end = time.monotonic() + 100
    while (record(tmp_path, "tokencut") or {}).get("status") != "done" and time.monotonic() < end:
        time.sleep(0.05)
    process.kill()
    process.wait()
    before = record(tmp_path, "tokencut")
    assert before is not None
    assert before["status"] == "done"
    assert before["rows"][0]["samples"]
    done = subprocess.run(command(tmp_path), capture_output=True, text=True, check=True, timeout=140)
    assert "tokencut: done before" in done.stdout
    assert record(tmp_path, "tokencut") == before
    assert {(record(tmp_path, name) or {}).get("status") for name in PARTS} == {"done"}, done.stdout
    page = (tmp_path / "accelerator.html").read_text()
    assert "TokenCut, 6 x 6 tokens" in page
    assert "nothing about speed" in page
    assert " ".join(command(tmp_path)[2:]) in page, "the command that goes on"
    assert "Not run: The whole loop." in (tmp_path / "accelerator.md").read_text()


def test_a_part_that_crashes_costs_that_part_alone(tmp_path: Path) -> None:
    for name in PARTS[:2]:
        (tmp_path / "work").mkdir(exist_ok=True)
        (tmp_path / "work" / name).write_text("a file where the part needs a folder")
    subprocess.run(command(tmp_path), capture_output=True, text=True, check=True, timeout=140)
    found = [record(tmp_path, name) or {} for name in PARTS]
    assert [values["status"] for values in found] == ["failed", "failed", "done"]
    assert found[0]["notes"] == ["ended with code 1: see tokencut.log"]
    assert "initialize_ of vit_tiny" in (tmp_path / "accelerator.md").read_text()


def test_a_part_that_hangs_is_ended_and_its_rows_are_kept(tmp_path: Path) -> None:
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        import accelerator
    finally:
        sys.path.remove(str(SCRIPT.parent))
    row = {"what": "before", "unit": "s", "samples": [1.5], "note": ""}
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "loop.json").write_text(json.dumps({"rows": [row], "notes": [], "status": "unfinished"}))
    start = time.monotonic()
    given = argparse.Namespace(device="cpu", minutes=2.0, out=tmp_path, typed_out=str(tmp_path), part=None)
    accelerator.in_process(given, "loop", 0.1 - accelerator.GRACE)  # it has not even imported torch by then
    assert time.monotonic() - start < 20
    found = record(tmp_path, "loop")
    assert found is not None
    assert (found["status"], found["rows"]) == ("unfinished", [row])
    assert found["notes"] == ["was cut off by the time limit"]
    assert "| before | 1.5 | s |" in (tmp_path / "accelerator.md").read_text()


def test_what_is_measured_is_there_when_a_part_is_cut_off(tmp_path: Path) -> None:
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        import torch
        from accelerator_parts.record import Record
    finally:
        sys.path.remove(str(SCRIPT.parent))
    one = Record(tmp_path / "one.json", torch.device("cpu"), 5.0)
    one.row("first", "ms", lambda: [1.0, 2.0])
    one.row("second", "ms", lambda: 1 / 0)
    kept = json.loads((tmp_path / "one.json").read_text())
    assert kept["status"] == "unfinished"
    assert [row["what"] for row in kept["rows"]] == ["first"]
    assert kept["notes"] == ["second: failed, ZeroDivisionError: division by zero"]
    again = Record(tmp_path / "one.json", torch.device("cpu"), 5.0)
    again.row("first", "ms", lambda: [9.0])
    again.row("second", "ms", lambda: [3.0])
    again.ratio("quotient", "first", "second")
    again.finish()
    kept = json.loads((tmp_path / "one.json").read_text())
    assert kept["status"] == "done"
    assert [row["samples"] for row in kept["rows"]] == [[1.0, 2.0], [3.0], [1 / 3]]
