"""The tutorial runs, and leaves nothing behind; `make docs` runs it in Jupyter, and here it needs no Jupyter."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs/tutorial.md"
CELL = re.compile(r"^```\{code-cell\} python\n(?::tags:[^\n]*\n\n)?(.*?)^```$", re.S | re.M)


def cells() -> list[str]:
    return CELL.findall(PAGE.read_text(encoding="utf-8"))


def test_the_cells_are_python() -> None:
    assert len(cells()) > 10
    for number, cell in enumerate(cells()):
        compile(cell, f"cell {number}", "exec")


def test_the_build_of_the_docs_runs_it_and_fails_if_it_raises() -> None:
    head = PAGE.read_text(encoding="utf-8").split("---")[1]
    assert "format_name: myst" in head
    assert "name: python3" in head
    settings = (PAGE.parent / "conf.py").read_text(encoding="utf-8")
    assert 'nb_execution_mode = "force"' in settings
    assert "nb_execution_raise_on_error = True" in settings


def test_no_output_is_kept_in_it() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert "```{code-cell}" in text
    assert "base64" not in text
    assert not list(PAGE.parent.rglob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_runs(tmp_path) -> None:
    script = tmp_path / "tutorial.py"
    script.write_text("\n".join(cells()), encoding="utf-8")
    place = tmp_path / "here"
    place.mkdir()
    environment = os.environ | {"MPLBACKEND": "agg", "TMPDIR": str(tmp_path), "MPLCONFIGDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, script], cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"top-1 +[\d.]+ %", done.stdout)) == 6
    assert not list(place.iterdir())
