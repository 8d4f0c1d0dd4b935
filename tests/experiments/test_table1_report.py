"""Table, page and the files of a whole report."""

import csv
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from reference.run_folders import write_run

from skipless.errors import InputError
from skipless.experiments.supervised.cells import CellRuns as Cell, table1_cells
from skipless.experiments.supervised.report import write_report
from skipless.experiments.supervised.table import learning_rate, table1_csv, table1_markdown
from skipless.experiments.supervised.text import uncertainty
from skipless.report.pages.html_page import GENERATOR
from skipless.report.pages.page import Page
from skipless.report.pages.write_page import write_report as write_any
from skipless.report.run_records import Setting, read_run

SETTING = Setting("ViT, width 32", "digits", 30, 10)
TEXTS = {"title": "Six <models>", "description": "A & B", "command": "skipless reproduce table1 --scale digits"}


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cell, ...]:
    folder = tmp_path_factory.mktemp("runs")

    def run(name: str, **values):
        return read_run(write_run(folder / name, **values))

    return table1_cells(
        {
            ("skip", "AdamW"): [run(f"a{seed}", seed=seed, lr=1e-3, top1=95.0 + seed) for seed in range(3)],
            ("skip", "SOAP"): [run("b", top1=95.5)],
            ("skipless", "AdamW"): [run("c", top1=None, diverges_at=60)],
            ("skipless", "SOAP"): [run("d0", top1=10.0), run("d1", seed=1, top1=None, diverges_at=60)],
            ("skipless + init", "SOAP"): [run("e", top1=94.0)],
        }
    )


def test_markdown_shows_every_case(cells) -> None:
    head, _, *rows = table1_markdown(cells, SETTING).splitlines()
    assert "paper: ViT-B, ImageNet-1k, 300 epochs" in head
    assert "ours: ViT, width 32, digits, 30 epochs" in head
    assert rows[:6] == [
        "| skip | AdamW | 80.3 | 96.0 ± 1.0 | 3 | 1e-3 | 0 of 3 |",
        "| skip | SOAP | 80.1 | 95.5 | 1 | 3e-3 | 0 of 1 |",
        "| skipless | AdamW | 61.4 | diverged | 0 | 3e-3 | 1 of 1 |",
        "| skipless | SOAP | 77.0 | 10.0 | 1 | 3e-3 | 1 of 2 |",
        "| skipless + init | AdamW | 78.1 | not run | 0 | – | 0 of 0 |",
        "| skipless + init | SOAP | 80.8 | 94.0 | 1 | 3e-3 | 0 of 1 |",
    ]


def test_the_caption_explains_only_what_is_there(cells) -> None:
    whole = table1_markdown(cells, SETTING)
    assert "over n seeds" in whole
    assert "no spread" in whole
    assert "diverged run has no accuracy" in whole
    empty = table1_markdown(table1_cells({}), SETTING)
    assert "seeds" not in empty
    assert "diverged run" not in empty


def test_csv_holds_the_numbers_unrounded(cells) -> None:
    rows = list(csv.DictReader(table1_csv(cells, SETTING).splitlines()))
    assert [float(row["paper_top1"]) for row in rows[:6]] == [80.3, 80.1, 61.4, 77.0, 78.1, 80.8]
    assert [(row["model"], row["paper_top1"]) for row in rows[6:]] == [("skipless + ours", "")] * 2
    assert (rows[0]["top1_mean"], rows[0]["top1_sd"], rows[0]["n"], rows[0]["seeds"]) == ("96.0", "1.0", "3", "0 1 2")
    assert (rows[2]["top1_mean"], rows[2]["diverged"]) == ("", "1")
    assert (rows[4]["top1_mean"], rows[4]["n"], rows[4]["learning_rate"]) == ("", "0", "")
    assert {row["setting"] for row in rows} == {str(SETTING)}


@pytest.mark.parametrize(("lr", "text"), [(1e-3, "1e-3"), (3e-4, "3e-4"), (0.0125, "1.25e-2"), (1.0, "1e0")])
def test_learning_rates_are_written_as_typed(tmp_path: Path, lr: float, text: str) -> None:
    assert learning_rate(Cell("skip", "AdamW", 80.3, (read_run(write_run(tmp_path / "a", lr=lr)),))) == text


def cells_of(folder: Path, *accuracies: tuple[float, ...]) -> tuple[Cell, ...]:
    """The rows skipless and skipless + init by AdamW, a run for each accuracy."""
    runs = {
        row: [read_run(write_run(folder / f"{row}{seed}", seed=seed, top1=top1)) for seed, top1 in enumerate(values)]
        for row, values in zip(("skipless", "skipless + init"), accuracies, strict=True)
    }
    return table1_cells({(row, "AdamW"): found for row, found in runs.items()})


@pytest.mark.parametrize(("one", "other"), [(62.45, 89.25), (10.05, 20.05), (63.849, 65.551), (70.0, 65.04)])
def test_a_difference_is_that_of_the_numbers_shown(tmp_path: Path, one: float, other: float) -> None:
    cells = cells_of(tmp_path / "runs", (one,), (other,))
    page = write_report(cells, tmp_path / "out", setting=SETTING, **TEXTS)["index.html"].read_text()
    shown = [float(value) for value in re.findall(r"<b>([\d.]+)</b>", page)]
    expected = f"{shown[1] - shown[0]:+.1f}".replace("-", "−")
    assert f"adds to the skipless model: {expected} points with AdamW (the paper: +16.7)" in page


def test_what_is_said_of_uncertainty_follows_from_the_numbers(tmp_path: Path) -> None:
    """One sentence, "differences of a point or two mean nothing", stood beside ± 10.0."""
    single = " ".join(uncertainty(cells_of(tmp_path / "one", (50.0,), (90.0,)), 400))
    assert "400 images alone leave a standard error of up to 2.5 points" in single
    assert "one seed" in single
    assert "±" not in single
    several = " ".join(uncertainty(cells_of(tmp_path / "three", (40.0, 50.0, 60.0), (90.0, 91.0, 92.0)), 10_000))
    assert "standard error of up to 0.5 points" in several
    assert "by up to ± 10.0 points (sample standard deviation; skipless, AdamW)" in several
    assert "one seed" not in several
    assert uncertainty(table1_cells({}), 400) == []


def test_the_caption_of_figure_1_says_what_the_dots_are(tmp_path: Path) -> None:
    for steps, words in ((60, "as logged"), (400, "averaged to at most 300 a run")):
        run = read_run(write_run(tmp_path / str(steps), steps=steps))
        cells = table1_cells({("skip", "AdamW"): [run]})
        page = write_report(cells, tmp_path / f"out{steps}", setting=SETTING, **TEXTS)["index.html"].read_text()
        assert f"Dots: the losses of every run, {words}." in page


class Outline(HTMLParser):
    """Collects what the page asks for, and holds every element to being closed."""

    VOID = frozenset({"meta", "col", "br", "link", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(cells, tmp_path_factory: pytest.TempPathFactory) -> str:
    files = write_report(cells, tmp_path_factory.mktemp("out"), setting=SETTING, notes=["n < 3"], **TEXTS)
    return files["index.html"].read_text()


def test_the_page_is_well_formed_and_asks_for_nothing(page: str) -> None:
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    tags = [tag for tag, _ in outline.seen]
    assert not {"script", "link", "img", "iframe", "object"} & set(tags)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert all(not attrs.get("xlink:href", "#").startswith("http") for _, attrs in outline.seen)
    assert tags.count("h1") == 1
    assert tags.count("svg") == 2
    assert [attrs.get("lang") for tag, attrs in outline.seen if tag == "html"] == ["en"]


def test_every_table_scrolls_in_a_box_of_its_own(page: str) -> None:
    tables = [match.start() for match in re.finditer("<table", page)]
    assert len(tables) == 2
    for start in tables:
        before = page[:start].rstrip()
        assert re.search(r'<div class="scroll" tabindex="0" role="region" aria-label="[^"]+">$', before)
    assert re.search(r"\.table1 \{[^}]*min-width", page)


def test_what_the_user_wrote_is_escaped(page: str) -> None:
    assert "Six &lt;models&gt;" in page
    assert "<models>" not in page
    assert "A &amp; B" in page
    assert "n &lt; 3" in page


def test_the_page_tells_each_case(page: str) -> None:
    assert '<b>96.0</b> <span class="spread">± 1.0</span>' in page
    assert '<b>95.5</b><span class="bar' in page  # n = 1: no spread
    assert "1 of 2 diverged" in page
    assert "not run" in page
    assert "diverged: loss is nan at step 60" in page
    assert "+84.0 points with SOAP (the paper: +3.8)" in page
    assert "points with AdamW" not in page  # one side diverged, the other was not run
    assert "0123456789abcdef" in page
    assert TEXTS["command"] in page


def test_runs_that_differ_in_their_versions_are_told_apart(cells, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "other", seed=5, lr=1e-3)
    file = folder / "run.json"
    file.write_text(file.read_text().replace("2.11.0", "2.12.0"))
    mixed = (Cell("skip", "AdamW", 80.3, (*cells[0].runs, read_run(folder))), *cells[1:])
    page = write_report(mixed, tmp_path / "out", setting=SETTING, **TEXTS)["index.html"].read_text()
    assert "torch 2.12.0, skipless 0.1.0 (1 of 9 runs)" in page
    assert "torch 2.11.0, skipless 0.1.0 (8 of 9 runs)" in page


def test_the_files_of_a_report_and_no_others(cells, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    for _ in range(2):  # writing again replaces
        files = write_report(cells, out, setting=SETTING, **TEXTS)
    assert sorted(files) == ["figure1.png", "figure1.svg", "index.html", "table1.csv", "table1.html", "table1.md"]
    assert sorted(out.iterdir()) == sorted(files.values())
    assert all(path.stat().st_size for path in files.values())


def test_a_report_of_nothing_says_so(tmp_path: Path) -> None:
    page = write_report(table1_cells({}), tmp_path, setting=SETTING, **TEXTS)["index.html"].read_text()
    assert page.count("not run") == 8
    assert "Every run" not in page


def test_a_folder_that_cannot_be_written_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write the report to .*file"):
        write_report(table1_cells({}), tmp_path / "file", setting=SETTING, **TEXTS)


def test_table_1_stands_beside_other_reports_in_either_order(tmp_path: Path) -> None:
    other = Page("Table 5", "", "", "", [])
    writers = [
        lambda out: write_report(table1_cells({}), out, setting=SETTING, **TEXTS),
        lambda out: write_any(out, "table5", {}, other),
    ]
    for place, order in (("a", writers), ("b", writers[::-1])):
        for write in order:
            files = write(tmp_path / place)
        index = files["index.html"].read_text(encoding="utf-8")
        assert re.findall(r'<li><a href="([^"]+)"', index) == ["table1.html", "table5.html"]


def test_a_page_of_table_1_of_an_earlier_version_is_kept_and_listed(tmp_path: Path) -> None:
    page = write_report(table1_cells({}), tmp_path, setting=SETTING, **TEXTS)["index.html"]
    (tmp_path / "table1.html").unlink()
    page.write_text(before := page.read_text(encoding="utf-8").replace(GENERATOR, ""), encoding="utf-8")
    files = write_any(tmp_path, "table5", {}, Page("Table 5", "", "", "", []))
    assert "table1.html" in files["index.html"].read_text(encoding="utf-8")
    assert (tmp_path / "table1.html").read_text(encoding="utf-8") == before


def test_table_1_leaves_a_page_of_something_else_alone(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    assert "index.html" not in write_report(table1_cells({}), tmp_path, setting=SETTING, **TEXTS)
    assert (tmp_path / "index.html").read_text() == "mine"
