"""The page over all parts, as HTML and Markdown: medians with their range, hardware, versions, commit."""

import shlex
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

from skipless.report.pages.html_page import bullets
from skipless.report.pages.markdown import markdown_html
from skipless.report.pages.page import Page
from skipless.report.pages.write_page import write_report

TITLE = "Ten minutes on an accelerator"


def number(value: float) -> str:
    """Four digits, whole numbers as such."""
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e6 else f"{value:.4g}"


def spread(samples: list[float]) -> str:
    """Their range, empty for a single one."""
    return f"{number(min(samples))} to {number(max(samples))}" if len(samples) > 1 else ""


def table_markdown(rows: list[dict[str, Any]]) -> str:
    """A part's rows; empty if there are none."""
    if not rows:
        return ""
    lines = ["| what | median | unit | range | n | setting |", "|:--|--:|:--|--:|--:|:--|"]
    for row in rows:
        cells = [row["what"], number(median(row["samples"])), row["unit"], spread(row["samples"])]
        cells += [str(len(row["samples"])), row["note"]]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def part_markdown(title: str, values: dict[str, Any]) -> str:
    """One part's table, with its notes below."""
    notes = "\n".join(f"- {note}" for note in values["notes"])
    pieces = [f"**{title}** ({values['status']})", table_markdown(values["rows"]), notes]
    return "\n\n".join(piece for piece in pieces if piece) + "\n"


def part_html(title: str, values: dict[str, Any]) -> str:
    """The same for the page."""
    table = table_markdown(values["rows"])
    pieces = [f"<h3>{escape(title)}{'' if values['status'] == 'done' else ' (' + values['status'] + ')'}</h3>"]
    pieces += [markdown_html(table)] if table else []
    pieces += [bullets(values["notes"])] if values["notes"] else []
    return "\n".join(pieces)


def write_page(
    out: Path, parts: dict[str, dict[str, Any]], missing: list[str], made: dict[str, Any], command: list[str]
) -> None:
    """Write `accelerator.html` and `accelerator.md`.

    Args:
        out: the folder.
        parts: records by their title.
        missing: titles of the parts that have not been run.
        made: what `provenance` returned, in the process that measured.
        command: what was typed.
    """
    device = made["hardware"]["device"]
    tiny = device == "cpu"
    notes = [
        "Rows are medians with their range over n samples. Contenders of one row of quotients took turns.",
        "A part that is unfinished was cut off by its share of the time; the same command goes on with it.",
    ]
    if tiny:
        notes.insert(0, "Measured on a CPU at tiny sizes: this shows that the script works, and nothing about speed.")
    notes += [f"Not run: {title}." for title in missing]
    numbers = "\n".join(part_markdown(title, values) for title, values in parts.items())
    versions = ", ".join(f"{name} {value}" for name, value in made["versions"].items())
    hardware = ", ".join(f"{name} {value}" for name, value in made["hardware"].items())
    text = "\n".join([
        f"# {TITLE}", "", f"Commit {made['commit'] or 'unknown'}; {hardware}; {versions}; {made['started']}.", "",
        "Made by `" + shlex.join(command) + "`.", "", *(f"- {note}" for note in notes), "", numbers,
    ])  # fmt: skip
    html = "\n".join(part_html(title, values) for title, values in parts.items())
    page = Page(
        title=TITLE,
        description="Tests, speed and a small campaign on an accelerator, each part bounded in time.",
        ours=hardware,
        numbers=html,
        notes=notes,
        made=made,
        command=shlex.join(command),
        files={"accelerator.md": "this page as Markdown", "parts": "every sample of each part, as JSON"},
    )
    write_report(out, "accelerator", {"accelerator.md": text}, page)
