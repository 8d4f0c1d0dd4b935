"""Pages of reports: one file each, with all that a reader must know; a folder of several has a page of contents."""

import os
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from threading import Barrier, Thread

import pytest

from skipless.display import Table
from skipless.errors import InputError
from skipless.experiments.conditioning.run import reproduce_figure6, reproduce_tables
from skipless.experiments.conditioning.softmax import reproduce_figure5
from skipless.experiments.token_graying.run import reproduce_token_graying
from skipless.recipes import table1
from skipless.report.condition_number import ConditionNumber
from skipless.report.pages import write_page
from skipless.report.pages.markdown import markdown_html, tables_of
from skipless.report.pages.page import Page
from skipless.report.pages.write_page import write_report
from skipless.report.pictures.kappa_figure import depth_figure
from skipless.report.write_files import write_atomically

TINY = {"embed_dim": 8, "depth": 2, "num_heads": 2, "patch_size": 4}
COMMAND = "skipless reproduce x --out 'a b' & <more>"
REPORTS = {
    "table5": lambda out: reproduce_tables("table5", "init", out, command=COMMAND),
    "table6": lambda out: reproduce_tables("table6", "init", out, command=COMMAND),
    "figure5": lambda out: reproduce_figure5(out, draws=5, command=COMMAND),
    "figure6": lambda out: reproduce_figure6("init", out, command=COMMAND),
    "token-graying": lambda out: reproduce_token_graying("digits", out, command=COMMAND),
}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch) -> None:
    def small(*args, **kwargs):
        return table1(*args, **kwargs).with_(model__kwargs=TINY)

    for room in ("conditioning.recipe", "token_graying.run"):
        monkeypatch.setattr(f"skipless.experiments.{room}.recipe_named", {"table1": small}.__getitem__)
    monkeypatch.setattr("skipless.experiments.conditioning.run.evenly_spaced_blocks", lambda _: (0, 1))


def words(page: str) -> str:
    return unescape(re.sub(r"<[^>]*>", " ", page))


@pytest.mark.parametrize("name", list(REPORTS))
def test_a_report_has_a_page_with_all_that_a_reader_must_know(tmp_path, name) -> None:
    files = REPORTS[name](tmp_path)
    page = files[f"{name}.html"].read_text(encoding="utf-8")
    text = words(page)
    for part in (
        "Ours",
        "The paper’s",
        "How far to trust this",
        "Made with",
        "Commit",
        "Versions",
        "Hardware",
        COMMAND,
    ):
        assert part in text
    assert "n = 1" in text or name == "figure5"
    assert "What differs from the paper" in text
    for cell in [cell for table in tables_of(files[f"{name}.md"].read_text()) for row in table.rows for cell in row]:
        assert cell in text
    for file in files.values():
        assert f'href="{file.name}"' in page or file.suffix == ".html"
    assert page.count('class="scroll"') == page.count("<table")
    assert files["index.html"].read_text(encoding="utf-8") == page


def test_a_folder_of_several_reports_has_a_page_of_contents(tmp_path) -> None:
    REPORTS["table5"](tmp_path)
    index = REPORTS["figure5"](tmp_path)["index.html"].read_text(encoding="utf-8")
    assert re.findall(r'<li><a href="([^"]+)"', index) == ["figure5.html", "table5.html"]
    assert "Table 5: conditioning of the whole network, at scale init" in index
    assert index == REPORTS["table5"](tmp_path)["index.html"].read_text(encoding="utf-8")


@pytest.mark.parametrize("other", ["<title>Table 1</title>", "", "\x00"])
def test_a_page_of_something_else_stays(tmp_path, other) -> None:
    (tmp_path / "index.html").write_text(other)
    (tmp_path / "notes.html").write_text("<title>Mine</title>")
    assert "index.html" not in REPORTS["figure5"](tmp_path)
    assert (tmp_path / "index.html").read_text() == other


def test_a_report_that_fails_has_no_page(tmp_path, monkeypatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("skipless.experiments.conditioning.run.training_measure", lambda _: refused)
    with pytest.raises(KeyboardInterrupt):
        REPORTS["table5"](tmp_path)
    assert not list(tmp_path.rglob("*.html"))


def test_texts_are_text_whatever_is_in_them(tmp_path) -> None:
    odd = "<script>alert(1)</script> & \"q\" 'a'"
    page = Page(odd, odd, odd, markdown_html(odd), [odd], odd, [odd], {odd: b"\x89PNG"}, odd, {odd: odd}, {odd: odd})
    html = write_report(tmp_path, "x", {}, page)["x.html"].read_text(encoding="utf-8")
    assert "<script" not in html
    assert words(html).count("alert(1)") >= 10


@pytest.mark.parametrize(
    ("text", "tables", "paragraphs"),
    [
        ("", 0, 0),
        ("a\n\nb", 0, 2),
        ("| a | b |\n|:--|--:|\n| 1 | 2 |\n\nsaid", 1, 0),
        ("before\n\n| a |\n| :-- |\n| 1 |\n\n| b |\n|--:|\n| 2 |\n", 2, 1),
        ("# title\n\n![x](y.png)\n\n- one\n- two\n\nMade by `z`.", 0, 0),
        ("| no table", 0, 1),
    ],
)
def test_markdown_of_reports_is_shown_as_it_is(text, tables, paragraphs) -> None:
    html = markdown_html(text)
    assert (html.count("<table"), html.count("<p>")) == (tables, paragraphs)
    assert "Made by" not in html


def test_no_page_needs_a_network(tmp_path: Path) -> None:
    page = REPORTS["figure5"](tmp_path)["figure5.html"].read_text(encoding="utf-8")
    assert not re.search(r'(src|@import|url\()\s*=?\s*"?(https?:)?//', page)
    assert "<script" not in page


LATIN = os.fsdecode(b"caf\xe9")  # a name that is no UTF-8


def test_names_that_are_no_utf8_are_shown_with_escapes(tmp_path) -> None:
    page = Page(LATIN, LATIN, LATIN, "", [LATIN], command=f"skipless eval --data {LATIN}")
    html = write_report(tmp_path, "x", {"x.svg": LATIN, "x.json": [LATIN]}, page)["x.html"].read_text(encoding="utf-8")
    assert "--data caf\\xe9" in html
    assert "<title>caf\\xe9</title>" in html
    assert (tmp_path / "x.svg").read_text(encoding="utf-8") == "caf\\xe9"
    assert depth_figure({"K": [(0, ConditionNumber(2.0, False))]}, "kappa", LATIN).startswith(b"\x89PNG")


def test_a_file_may_be_written_by_several_at_once(tmp_path) -> None:
    """Each write has a temporary file of its own, and leaves none."""
    file, failed, together = tmp_path / "index.html", [], Barrier(4)

    def write(letter: bytes) -> None:
        together.wait()
        try:
            for _ in range(50):
                write_atomically(file, 1000 * letter)
        except OSError as error:
            failed.append(error)

    threads = [Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c", b"d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(set(file.read_bytes())) == 1
    assert len(file.read_bytes()) == 1000
    assert list(tmp_path.iterdir()) == [file]


def test_the_longest_name_that_a_file_can_have_is_written(tmp_path) -> None:
    assert write_atomically(tmp_path / ("x" * 255), b"").is_file()


def test_two_reports_at_once_are_both_in_the_page_of_contents(tmp_path, monkeypatch) -> None:
    """The other report ends after this one has looked for pages, before this one writes its page of contents."""
    page = Page("One", "", "", "", [])
    written = write_page.write_files

    def late(out, contents):
        if "index.html" in contents and not (out / "two.html").exists():
            monkeypatch.setattr(write_page, "write_files", written)
            write_report(out, "two", {}, replace(page, title="Two"))
        return written(out, contents)

    monkeypatch.setattr(write_page, "write_files", late)
    index = write_report(tmp_path, "one", {}, page)["index.html"].read_text(encoding="utf-8")
    assert re.findall(r'<li><a href="([^"]+)"', index) == ["one.html", "two.html"]


def test_lines_and_lists_stay_in_their_order() -> None:
    html = markdown_html("intro\n- a\n- b\nmiddle\n- c\nend")
    assert re.findall(r"<(/?ul|p|li)>", html) == ["p", "ul", "li", "li", "/ul", "p", "ul", "li", "/ul", "p"]
    assert words(html).split() == ["intro", "a", "b", "middle", "c", "end"]


@pytest.mark.parametrize("row", ["| short |", "| too | many | cells |"])
def test_a_row_of_another_length_is_refused(row) -> None:
    with pytest.raises(InputError, match="2 columns"):
        markdown_html(f"| a | b |\n|:--|--:|\n{row}")


@pytest.mark.parametrize("cell", ["a|b", "|", "||", "a\\", "a\\|b", "a|", "two\nlines", "", "b & <c>"])
def test_cells_are_read_as_they_were_written(cell) -> None:
    for padded in (False, True):
        written = Table((cell, "x"), [("1", cell), (cell, cell)], align="lr").markdown(padded=padded)
        (table,) = tables_of(written)
        assert [*table.head] == [cell, "x"]
        assert [[*row] for row in table.rows] == [["1", cell], [cell, cell]]
