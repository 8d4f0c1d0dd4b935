"""Command lines of README and docs: those that the commit 3672518 had, and those of now, are understood to the word."""

import re
import shlex
from pathlib import Path

import pytest

from skipless import cli

ROOT = Path(__file__).parents[2]
EARLIER = (ROOT / "tests/fixtures/commands-3672518.txt").read_text().splitlines()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# `load` is what a verb calls once its words are understood, before anything heavy is imported.
AFTER_PARSING = ("call", "verbs.train", "verbs.reproduce", "verbs.evaluate", "verbs.doctor")


class Understood(Exception):
    pass


def lines_of(page: Path) -> list[str]:
    """Commands in a page's blocks of shell code, whole and without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [re.sub(r"\s+#.*$", "", line) for line in lines if line.startswith("skipless ") and "..." not in line]


NOW = sorted({line for page in PAGES for line in lines_of(page)})


def test_there_are_some_to_try() -> None:
    assert len(EARLIER) > 50
    assert len(NOW) > 25


@pytest.mark.parametrize("line", sorted({*EARLIER, *NOW}))
def test_it_is_understood(line, monkeypatch) -> None:
    def understood(*_, **__):
        raise Understood

    for module in AFTER_PARSING:
        monkeypatch.setattr(f"skipless.cli.{module}.load", understood)
    monkeypatch.setattr("skipless.report.runs_index.write.write_index", understood)  # the one verb that loads nothing
    with pytest.raises(Understood):
        cli.main(shlex.split(line)[1:])
