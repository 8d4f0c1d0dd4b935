"""Libraries that may be missing: messages name a command that works, and it is what the extras say."""

import re
import tomllib
from pathlib import Path

import pytest

from skipless.optional import REQUIREMENT, how_to_install

ROOT = Path(__file__).parents[1]


def test_bounds_are_those_of_the_extras() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = [
        line
        for extra in ("demo", "loggers", "text", "parquet", "hf", "int8", "lm-eval", "adapters")
        for line in extras[extra]
    ]
    assert sorted(REQUIREMENT.values()) == sorted(named)


@pytest.mark.parametrize("module", REQUIREMENT)
def test_a_command_asks_no_index_for_this_package(module: str) -> None:
    assert re.fullmatch(r"pip install '[a-z-]+(\[hf\])?[>=]=[\d.]+(,<[\d.]+)?'", how_to_install(module))


def test_no_text_installs_the_package_from_an_index() -> None:
    """It is on none: `pip install .` in a checkout is what works."""
    places = [*(ROOT / "src").rglob("*.py"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.py")]
    places += [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    wrong = re.compile(r"(?:pip|uv add|uv pip) install[^\n`]*?[ '\"]skipless\b")
    assert not [str(file) for file in places if wrong.search(file.read_text(encoding="utf-8"))]
