"""Tables as text, Markdown and HTML."""

import copy
import pickle
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from skipless.display import Link, Table
from skipless.errors import InputError

WIDE = Table(
    ("block", "k(K)", "by head"), [("blocks.0", "1.5", "0.9 0.8"), ("b", ">= 2e+03", "1")], "2 images", ["! b"]
)


class Cells(HTMLParser):
    """The cells of a table: tag, class and scope, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if data.strip():
            tag, attrs, text = self.found[-1]
            self.found[-1] = tag, attrs, text + data


def test_text_is_aligned_and_has_no_blanks_at_the_end() -> None:
    assert WIDE.text().splitlines() == [
        "block     k(K)      by head",
        "blocks.0  1.5       0.9 0.8",
        "b         >= 2e+03  1",
        "2 images",
        "! b",
    ]


def test_html_is_whole_and_says_what_each_cell_is() -> None:
    root = ElementTree.fromstring(f"<div>{WIDE.html()}</div>")
    assert [title.get("scope") for title in root.iter("th")] == ["col", "col", "col", "row", "row"]
    assert [cell.get("class") for cell in root.iter("td")] == ["number", None, "number", None]
    assert [caption.text for caption in root.iter("caption")] == ["2 images"]
    scrolls = root[0]
    assert scrolls.get("class") == "scroll"
    assert "overflow-x:auto" in (scrolls.get("style") or "")
    assert "color" not in WIDE.html()
    assert "background" not in WIDE.html()


@pytest.mark.parametrize("text", ["<b>", 'a"b', "a & b", "<script>alert(1)</script>", "'"])
def test_everything_is_escaped(text: str) -> None:
    table = Table((text, "n"), [(text, text), (Link(text, text), "1")], text, [text, f"! {text}"])
    root = ElementTree.fromstring(f"<div>{table.html()}</div>")
    assert {element.tag for element in root.iter()} <= {
        *("div", "table", "caption", "thead", "tbody", "tr", "th", "td", "a", "ul", "li", "strong")
    }
    assert [a.get("href") for a in root.iter("a")] == [text]
    cells = [found for found in Cells(table.html()).found if found[0] in {"th", "td", "a"}]
    assert [told for _, _, told in cells] == [text, "n", text, text, "", text, "1"]


@pytest.mark.parametrize(
    ("cells", "letter"),
    [
        (("1", "-2.5", "1e-3"), "r"),
        (("1,000", "63.8 ± 0.4", "12 %"), "r"),
        ((">= 3.1e+06", "1.65e+03 (to 6e-06)"), "r"),
        (("", "not run", "3"), "r"),
        (("", ""), "l"),
        (("0.9 0.8", "1.0 1.0"), "l"),
        (("blocks.0", "1"), "l"),
        (("16 x 16",), "l"),
        (("2026-01-01",), "l"),
    ],
)
def test_a_column_of_numbers_is_known_by_its_cells(cells: tuple[str, ...], letter: str) -> None:
    assert Table(("name",), [(cell,) for cell in cells]).alignment == letter


def test_alignment_can_be_said() -> None:
    assert Table(("seed",), [("1",)], align="l").alignment == "l"
    with pytest.raises(InputError, match=r"align='lx'.*2 columns"):
        Table(("a", "b"), [], align="lx")
    with pytest.raises(InputError, match=r"1 cells, but there are 2 columns: \('x',\)"):
        Table(("a", "b"), [("x",)])


def test_a_table_without_rows_is_one_all_the_same() -> None:
    empty = Table(("a", "b"), [])
    assert empty.text() == "a  b"
    assert empty.markdown(padded=True).splitlines() == ["| a | b |", "|:--|:--|"]
    ElementTree.fromstring(empty.html())


def test_a_table_shows_itself() -> None:
    assert str(WIDE) == WIDE.text()
    assert WIDE._repr_html_() == WIDE.html()
    assert repr(WIDE) == "<Table: 2 rows of block, k(K), by head>"
    assert len(repr(Table(["a column"] * 40, []))) < 120


def test_a_link_can_be_copied_and_pickled() -> None:
    table = Table(("run",), [(Link("run 1", "run-1/"),)])
    for copied in (pickle.loads(pickle.dumps(table)), copy.deepcopy(table)):
        assert copied == table
        assert copied.rows[0][0].href == "run-1/"


def test_tables_are_equal_and_hashed_by_what_they_hold() -> None:
    listed, tupled = Table(["a"], [["1"]], notes=["n"]), Table(("a",), (("1",),), notes=("n",))
    assert listed == tupled
    assert hash(listed) == hash(tupled)
    rows = [["1"]]
    table = Table(["a"], rows)
    rows.append(["2"])
    assert table.rows == (("1",),)


def test_a_table_without_columns_is_refused() -> None:
    with pytest.raises(InputError, match="no columns"):
        Table((), [])


def test_bars_and_line_breaks_do_not_end_a_cell_of_markdown() -> None:
    last = Table(("file", "n"), [("x|y.png\nz", "1")]).markdown().splitlines()[-1]
    assert last == r"| x\|y.png<br>z | 1 |"
