"""The tutorial is text that Python takes; `make docs`, which CI calls, runs it."""

import re
from pathlib import Path

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
    kept = [path for path in PAGE.parent.rglob("*.ipynb") if "_build" not in path.parts]
    assert not kept
