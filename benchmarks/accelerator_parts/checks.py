"""The tests marked `accelerator`, on the device."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

from accelerator_parts.record import Record

ROOT = Path(__file__).parents[2]


def files() -> list[str]:
    """The files of tests that take `device`, those of the folder of its own first."""
    takes = re.compile(r"^def test_\w+\([^)]*\bdevice\b(?! *: *str)", re.MULTILINE)
    others = [file for file in (ROOT / "tests").rglob("test_*.py") if file.parent.name != "accelerator"]
    return ["tests/accelerator", *sorted(str(file) for file in others if takes.search(file.read_text()))]


def run(record: Record) -> None:
    """Run them in a process of their own, bounded in time, and keep what it said of each that failed."""
    if importlib.util.find_spec("pytest") is None or not (ROOT / "tests" / "accelerator").is_dir():
        record.note("left out: the tests need pytest and a checkout")
        return
    if importlib.util.find_spec("beartype") is None:
        record.note("beartype is not installed: shapes in signatures were not checked")
    # Of its own: pyproject.toml asks for plugins that a borrowed machine may lack, and makes every warning an error.
    config = record.file.with_name("pytest.ini")
    config.write_text(f"[pytest]\npythonpath = {ROOT / 'tests'} {ROOT / 'src'}\nmarkers =\n  slow\n  accelerator\n")
    some = ["tests/accelerator/test_factorisations.py"] if record.tiny else files()  # CI runs them anyway
    chosen = [*some, "-m", "accelerator", *(["-k", "bases"] if record.tiny else [])]
    command = [sys.executable, "-m", "pytest", *chosen, "--device", record.device.type, "-q", "--tb=short", "-rfEs"]
    command += ["-p", "no:cacheprovider", "--import-mode=importlib", "--rootdir", str(ROOT), "-c", str(config)]
    log = record.file.with_suffix(".log")
    with log.open("w") as out:
        try:
            subprocess.run(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, timeout=record.left(), check=False)
        except subprocess.TimeoutExpired:
            record.cut("cut off by the time limit")
    said = log.read_text(errors="replace")
    counts = {word: int(found[1]) for word in ("passed", "failed", "skipped", "error")
              if (found := re.search(rf"(\d+) {word}", said.splitlines()[-1] if said else ""))}  # fmt: skip
    record.values["rows"] = []
    for word, count in counts.items():
        record.row(f"tests {word}", "tests", lambda count=count: [float(count)])
    if not counts:
        record.cut("the tests did not come to an end: " + " ".join(said.split()[-40:]))
    for line in said.splitlines():
        if line.startswith(("FAILED", "ERROR", "SKIPPED")):
            record.note(line[:300])
