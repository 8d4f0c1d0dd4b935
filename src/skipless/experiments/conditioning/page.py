"""The pages of this room."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from skipless.choices import Row
from skipless.display import Table
from skipless.experiments.conditioning.text import DESCRIPTIONS, PAPER, TITLES, What, differences, notes
from skipless.report.labels import FILE_KINDS, OPTIMIZER_LABEL, duration, rate
from skipless.report.pages.markdown import markdown_html
from skipless.report.pages.page import Page
from skipless.report.pages.write_page import write_report
from skipless.report.run_records import Run, read_run
from skipless.training.run_folder.provenance import provenance


def write_conditioning(
    out: Path,
    what: What,
    files: Mapping[str, Any],
    *,
    scale: str,
    setting: str,
    seed: int,
    command: str,
    folders: Mapping[Row, Path] | None = None,
) -> dict[str, Path]:
    """Write a report's files and its page.

    Args:
        out: folder of the report.
        what: the table or figure; `files` has its Markdown under `WHAT.md`.
        files: contents by name.
        scale: at which it was made.
        setting: ours, in words.
        seed: of the models or draws.
        command: what makes it again.
        folders: of the runs behind it, by row.
    """
    runs: dict[Row, Run] = {row: read_run(folder) for row, folder in (folders or {}).items()}
    page = Page(
        title=f"{TITLES[what]}{f', at scale {scale}' if scale else ''}",
        description=DESCRIPTIONS[what],
        ours=setting,
        paper=PAPER[what],
        numbers=markdown_html(str(files[f"{what}.md"])),
        figures={_caption(name): content for name, content in files.items() if name.endswith(".png")},
        differences=differences(what, scale),
        notes=notes(what, seed=seed),
        made=provenance(torch.device("cpu")),
        command=command,
        files={name: FILE_KINDS[Path(name).suffix] for name in files},
        runs=_runs(runs) if runs else "",
        trained=list(runs.values()),
    )
    return write_report(out, what, files, page)


def _caption(name: str) -> str:
    """What a picture shows, by the name of its file."""
    kind, _, more = Path(name).stem.partition("-depth")
    if not name.startswith("table6"):
        return _PICTURES[kind]
    tokens = more.strip("-").replace("-", " ").replace("N 0 I", "N(0, I)")
    return f"{_PICTURES[kind]}{f', {tokens}' if tokens else ''}"


def _runs(runs: Mapping[Row, Run]) -> str:
    """The runs behind the numbers, as a table."""
    heads = ("model", "optimizer", "seed", "learning rate", "top-1, %", "final loss", "steps", "time", "state")
    rows: list[Sequence[str]] = []
    for row, run in runs.items():
        optimizer = run.record["recipe"]["optimizer"]["name"]
        rows.append((
            row,
            OPTIMIZER_LABEL.get(optimizer, optimizer),
            str(run.seed),
            rate(run.learning_rate),
            "–" if run.top1 is None else f"{run.top1:.2f}",
            "–" if run.final_loss is None else f"{run.final_loss:.3f}",
            f"{run.steps:,}",
            duration(run.seconds),
            f"diverged: {run.reason}" if run.diverged else "finished",
        ))  # fmt: skip
    return Table(
        heads, rows, "Final loss: mean training loss over the last tenth of the run.", align="llrrrrrrl"
    ).html()


_PICTURES = {
    "conditioning": "Condition numbers through training, a panel for each block and for each choice of rows of J",
    "table6": "Condition numbers by depth, at initialisation",
    "figure5": "One softmax matrix of each kind, and the condition numbers of all draws beside the paper's",
    "figure6": "Histograms of the tokens' entries beside N(0, 1)",
}
