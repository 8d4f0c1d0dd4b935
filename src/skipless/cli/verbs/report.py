"""`skipless report`."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from skipless.cli.listing import examples
from skipless.cli.parse import parse
from skipless.cli.signature import arguments_of, build, summary
from skipless.options import Option


@dataclass(frozen=True, kw_only=True)
class Options:
    """Write a page that lists all runs below a folder: what each is, how it stands, its best number and its loss.

    No run need be whole; those of earlier versions, of sweeps and of skipless reproduce are read, too. The page says
    which places could not be read.

    Attributes:
        folder: folder of runs, at any depth below it.
        out: file of the page.
    """

    folder: Annotated[Path, Option(positional=True)]
    out: Annotated[Path | None, Option("index.html in the folder, or runs.html if taken", group="output")] = None


def main(words: list[str]) -> None:
    """Write an index page over a folder of runs, and print where it lies."""
    lines = ("skipless report runs/", "skipless report runs/ --out overview.html")
    described = f"{summary(Options)}\n\n{examples(lines)}"
    asked: Options = build(Options, parse(arguments_of(Options), words, prog="skipless report", description=described))
    from skipless.recipes import kinds  # noqa: F401  # makes the kinds known
    from skipless.recipes.recipe import KINDS
    from skipless.registry import reports
    from skipless.report.runs_index.write import write_index

    page, said = write_index(
        asked.folder,
        out=asked.out,
        reports={name: report.title for name, report in reports().items()},
        metrics=list(dict.fromkeys(kind.metric for kind in KINDS)),
        command=shlex.join(["skipless", "report", *words]),
    )
    print(f"{said}\nwrote {page}")
