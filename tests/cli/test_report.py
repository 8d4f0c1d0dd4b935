"""`skipless report`: a page over any folder of runs, whole or not, that leaves nothing out without a word."""

import fcntl
import html
import json
import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from reference.command import skipless
from reference.run_folders import write_run

from skipless.report.pages.html_page import RUNS_GENERATOR
from skipless.report.runs_index.cells import run_cells
from skipless.report.runs_index.damage import LOCKS
from skipless.report.runs_index.run_line import read_run_line
from skipless.report.write_files import as_utf8

EARLIER = Path("tests/fixtures/runs-3672518")


class Cells(HTMLParser):
    """The texts of each row of the table of runs, and all addresses."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.links: list[str] = []
        self.open = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name == "href" and value]
        if tag == "tr":
            self.rows.append([])
        self.open = tag in ("td", "th") or (self.open and tag not in ("tr", "script"))
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.open = False

    def handle_data(self, data):
        if self.open and self.rows and self.rows[-1]:
            self.rows[-1][-1] += f" {data}"


def index(capsys, folder: Path, *more: str) -> tuple[str, dict[str, dict[str, str]]]:
    """The page, and its rows by the run's name."""
    code, printed, told = skipless(capsys, "report", str(folder), *more)
    assert (code, told) == (0, "")
    page = Path(printed.splitlines()[-1].removeprefix("wrote ")).read_text(encoding="utf-8")
    heads, *rows = Cells(page.replace("<wbr>", "")).rows
    names = [name.strip() for name in heads]
    found = [{name: " ".join(cell.split()) for name, cell in zip(names, row, strict=True)} for row in rows]
    return page, {row["run"]: row for row in found}


def test_runs_of_an_earlier_version_are_listed_with_what_they_came_to(capsys, tmp_path) -> None:
    shutil.copytree(EARLIER, tmp_path / "runs")
    page, rows = index(capsys, tmp_path / "runs")
    assert set(rows) == {"dino", "dino-cut-off", "scenes", "table1", "table1-cut-off"}
    one = rows["table1"]
    assert one["state"] == "finished"
    assert one["last"] == "20.5 top-1, %"
    assert one["model"].startswith("skipless + init")
    assert (one["optimizer"], one["learning rate"], one["seed"]) == ("SOAP", "3e-3", "0")
    assert one["recipe"] == "table1 digits, 2 epochs"
    assert "training loss from" in one["loss curve"]
    assert len(one["commit"]) in (7, 8)
    assert rows["dino"]["last"] == "100 k-NN, %"
    assert rows["table1-cut-off"]["state"] == "cut off at step 2 of 10"
    assert "n = 1" in page
    assert page.count("<svg") >= 3
    assert "http" not in page.replace("https://arxiv.org/abs/2510.00345", "")


def test_every_link_leads_to_a_file(capsys, tmp_path) -> None:
    root = tmp_path / "runs & <more>" / "ü #1?"
    shutil.copytree(EARLIER / "table1", root / 'a <b> "c" %41&amp;')
    shutil.copytree(EARLIER / "scenes", Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9")))
    for out in ([], ["--out", str(tmp_path / "elsewhere" / "page.html")]):
        page, rows = index(capsys, root, *out)
        assert 'a <b> "c" %41&amp;' in rows
        assert "caf\\xe9" in rows
        home = root if not out else tmp_path / "elsewhere"
        links = [link for link in Cells(page).links if not link.startswith("http")]
        assert len(links) == 2
        for link in links:
            assert (home / os.fsdecode(unquote_to_bytes(link))).exists()


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (lambda run: (run / "run.json").write_text('{"recipe":'), "run.json is not JSON"),
        (lambda run: (run / "run.json").write_text("[1]"), "run.json holds no object"),
        (lambda run: (run / "run.json").write_bytes(b"\xff\xfe"), "run.json is not JSON"),
        (lambda run: (run / "run.json").unlink(), "run.json is missing"),
        (lambda run: (run / "result.json").write_text("NaN?"), "result.json is not JSON"),
        (lambda run: os.truncate(run / "checkpoint.safetensors", 900), "checkpoint.safetensors is cut short"),
        (lambda run: (run / "checkpoint.safetensors").write_bytes(b""), "checkpoint.safetensors is cut short"),
        (lambda run: (run / "metrics.jsonl").write_text('x\n[1]\n{"step": 1}\n'), "2 of 3 lines of metrics.jsonl"),
    ],
)
def test_a_damaged_run_is_told_with_the_reason(capsys, tmp_path, break_it, told) -> None:
    shutil.copytree(EARLIER / "table1", tmp_path / "runs" / "broken")
    shutil.copytree(EARLIER / "scenes", tmp_path / "runs" / "sound")
    break_it(tmp_path / "runs" / "broken")
    _, rows = index(capsys, tmp_path / "runs")
    assert rows["broken"]["state"].startswith("damaged")
    assert told in rows["broken"]["state"]
    assert rows["sound"]["state"] == "finished"


def test_values_of_any_kind_in_its_files_are_no_traceback(capsys, tmp_path) -> None:
    odd = {"recipe": {"model": 3, "optimizer": {"name": ["a"], "lr": "fast"}}, "fit": {"epochs": None}, "seed": True}
    for name, record in (("odd", odd), ("empty", {"recipe": {}}), ("fit alone", {"fit": {"epochs": 1e400}})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps(record))
        lines = [
            {"step": 1, "epoch": "x", "loss": float("nan")},
            {"step": "2"},
            {"evaluation": [1]},
            {"evaluation": {}},
        ]
        lines += [{"step": 3, "epoch": 1, "loss": 2.0}, {"step": 4, "epoch": 1, "loss": 0.0}]
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"st')
    _, rows = index(capsys, tmp_path)
    assert {row["state"] for row in rows.values()} == {"cut off at step 4"}


def test_a_diverged_run_says_why(capsys, tmp_path) -> None:
    write_run(tmp_path / "x", diverges_at=40)
    page, rows = index(capsys, tmp_path)
    assert rows["x"]["state"] == "diverged loss is nan at step 40"
    assert "1 diverged" in page


@pytest.mark.skipif(not LOCKS.exists(), reason="who holds a file is known on Linux alone")
def test_a_run_that_a_process_holds_is_running(capsys, tmp_path) -> None:
    shutil.copytree(EARLIER / "table1-cut-off", tmp_path / "run")
    lock = os.open(tmp_path / "run" / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.write(lock, f"{os.getpid()}\n".encode())
    assert index(capsys, tmp_path)[1]["run"]["state"] == "running at step 2 of 10"
    os.close(lock)
    assert index(capsys, tmp_path)[1]["run"]["state"] == "cut off at step 2 of 10"


def test_links_in_circles_and_at_any_depth_name_each_run_once(capsys, tmp_path) -> None:
    deep = tmp_path / "runs" / "/".join("abcdefgh")
    shutil.copytree(EARLIER / "table1", deep / "run")
    shutil.copytree(EARLIER / "scenes", tmp_path / "scratch" / "far")
    (tmp_path / "runs" / "circle").symlink_to(tmp_path / "runs")
    (tmp_path / "runs" / "again").symlink_to(deep / "run")
    (tmp_path / "runs" / "linked").symlink_to(tmp_path / "scratch" / "far")
    (tmp_path / "runs" / "gone").symlink_to(tmp_path / "nothing")
    (tmp_path / "runs" / "self").symlink_to("self")
    page, rows = index(capsys, tmp_path / "runs")
    assert set(rows) == {"a/b/c/d/e/f/g/h/run", "linked"}
    for name in ("gone", "self"):
        assert f"<code>{name}</code>: a link that leads to nothing" in page


def test_what_could_not_be_read_is_named_with_the_reason(capsys, tmp_path, monkeypatch) -> None:
    shutil.copytree(EARLIER / "table1", tmp_path / "run")
    for name, files in {"alien": ["run.json"], "study": ["result.json"], "closed": ["run.json"]}.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text('{"x": 1}')
    scan = os.scandir

    def closed(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr("skipless.report.runs_index.find.os.scandir", closed)
    page, rows = index(capsys, tmp_path)
    assert set(rows) == {"run"}
    text = html.unescape(page)
    assert "<code>closed</code>: Permission denied" in text
    assert "<code>alien</code>: its run.json is not of skipless train" in text
    assert "<code>study</code>: its result.json is of no study of skipless eval" in text
    assert "3 places could not be read" in text


def test_pages_of_reports_are_left_alone(capsys, tmp_path) -> None:
    shutil.copytree(EARLIER / "table1", tmp_path / "runs" / "one")
    (tmp_path / "table1.md").write_text("| a |")
    (tmp_path / "index.html").write_text("<title>Table 1</title>")
    code, printed, _ = skipless(capsys, "report", str(tmp_path))
    assert code == 0
    assert printed.splitlines()[-1] == f"wrote {tmp_path / 'runs.html'}"
    assert (tmp_path / "index.html").read_text() == "<title>Table 1</title>"
    page = (tmp_path / "runs.html").read_text()
    assert "Table 1: accuracy of six runs" in page
    assert 'href="index.html"' in page
    first = skipless(capsys, "report", str(tmp_path / "runs"))[1]
    assert first == skipless(capsys, "report", str(tmp_path / "runs"))[1]  # its own page is written anew
    assert "index.html" in first


def test_foreign_pages_of_either_name_stay_and_ours_are_written_anew(capsys, tmp_path) -> None:
    shutil.copytree(EARLIER / "table1", tmp_path / "one")
    for name in ("index.html", "runs.html"):
        (tmp_path / name).write_text("<title>Runs in my shoes</title>")
    for _ in range(2):
        assert skipless(capsys, "report", str(tmp_path))[1].splitlines()[-1] == f"wrote {tmp_path / 'runs-2.html'}"
    assert (tmp_path / "index.html").read_text() == (tmp_path / "runs.html").read_text()
    before = (tmp_path / "runs-2.html").read_text(encoding="utf-8").replace(RUNS_GENERATOR, "")
    (tmp_path / "index.html").write_text(before, encoding="utf-8")  # as an earlier version wrote it, without a mark
    assert skipless(capsys, "report", str(tmp_path))[1].splitlines()[-1] == f"wrote {tmp_path / 'index.html'}"


def test_a_named_file_that_is_no_page_of_ours_stays(capsys, tmp_path) -> None:
    shutil.copytree(EARLIER / "table1", tmp_path / "one")
    for name, held in {"a.png": b"\x89PNG", "notes.html": b"<title>Mine</title>", "empty.html": b""}.items():
        out = tmp_path / name
        out.write_bytes(held)
        code, _, error = skipless(capsys, "report", str(tmp_path), "--out", str(out))
        assert (code, error.count("\n")) == (2, 1)
        assert "no page of `skipless report`: give another name" in error
        assert out.read_bytes() == held
    for _ in range(2):
        assert skipless(capsys, "report", str(tmp_path), "--out", str(tmp_path / "ours.html"))[0] == 0


def test_hundreds_of_runs_are_one_page(capsys, tmp_path) -> None:
    for i in range(300):
        run = tmp_path / f"sweep{i % 7}" / f"run{i}"
        run.mkdir(parents=True)
        for file in ("run.json", "metrics.jsonl", "result.json"):
            shutil.copy(EARLIER / "table1" / file, run / file)
    page, rows = index(capsys, tmp_path)
    assert len(rows) == 300
    assert len(page) < 1_200_000


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda root: root / "missing", "is no folder; give one that holds runs"),
        (lambda root: root, "no run in"),
        (lambda root: Path(__file__), "is no folder"),
    ],
)
def test_a_folder_without_runs_is_one_line(capsys, tmp_path, make, told) -> None:
    code, _, error = skipless(capsys, "report", str(make(tmp_path)))
    assert code == 2
    assert told in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_page_that_cannot_be_written_is_one_line(capsys, tmp_path) -> None:
    shutil.copytree(EARLIER / "table1", tmp_path / "run")
    for out, told in (
        (tmp_path, "is a folder; give the page's file"),
        (Path(__file__) / "x.html", "choose another --out"),
    ):
        code, _, error = skipless(capsys, "report", str(tmp_path), "--out", str(out))
        assert code == 2
        assert told in error


def test_a_folder_and_a_page_whose_names_are_no_utf8(tmp_path) -> None:
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    shutil.copytree(EARLIER / "scenes", root / "scenes")
    for words, page in (((), root / "index.html"), (("--out", root / "p\udce9.html"), root / "p\udce9.html")):
        asked = [sys.executable, "-m", "skipless", "report", root, *words]
        found = subprocess.run(asked, capture_output=True, env=os.environ | {"LC_ALL": "C.UTF-8"}, check=False)
        assert (found.returncode, found.stderr) == (0, b"")
        assert b"caf\\udce9" in found.stdout
        assert "caf\\xe9" in page.read_text(encoding="utf-8")


DEEP = "[" * 100_000 + "]" * 100_000
ABSURD = (10**400, -(10**400), 1e308, -1e308, -1, 0, "", "\ud800", [], {}, None, json.loads("[" * 300 + "]" * 300))


def leaves(values, path=()):
    if isinstance(values, dict):
        for key, value in values.items():
            yield from leaves(value, (*path, key))
    yield path


def changed(values, path, value):
    if not path:
        return value
    return {**values, path[0]: changed(values[path[0]], path[1:], value)}


@pytest.mark.parametrize("file", ["run.json", "result.json", "metrics.jsonl"])
def test_no_value_of_a_run_ends_the_page(tmp_path, file) -> None:
    """Every value of every file, replaced by what should not be there."""
    run = tmp_path / "run"
    shutil.copytree(EARLIER / "table1", run)
    first, *more = (run / file).read_text().splitlines() if file == "metrics.jsonl" else [(run / file).read_text()]
    values = json.loads(first)
    for path in leaves(values):
        for absurd in ABSURD:
            (run / file).write_text("\n".join([json.dumps(changed(values, path, absurd)), *more]) + "\n")
            line = read_run_line(run, ["top1"])
            if not isinstance(line, str):
                assert as_utf8("".join(run_cells(line, tmp_path, (), tmp_path / "index.html")))


def test_json_that_is_nested_too_deeply_is_told(capsys, tmp_path) -> None:
    for name in ("run.json", "metrics.jsonl", "result.json"):
        shutil.copytree(EARLIER / "table1", tmp_path / name)
        (tmp_path / name / name).write_text(f"{DEEP}\n")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "result.json").write_text(DEEP)
    page, rows = index(capsys, tmp_path)
    assert {row["state"].split()[0] for row in rows.values()} == {"damaged"}
    assert "<code>study</code>: result.json is not JSON that can be read" in page


@pytest.mark.parametrize("field", ["percent", "best", "data"])
def test_a_study_with_an_absurd_number_is_told(capsys, tmp_path, field) -> None:
    shutil.copytree(EARLIER / "table1", tmp_path / "run")
    values = {"settings": {}, "data": "d", "model": "m", "corloc": {"a": {"percent": 50.0}}, "best": "a",
              "config": {"method": "lost"}}  # fmt: skip
    holder = values["corloc"]["a"] if field == "percent" else values
    holder[field] = 10**400
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "result.json").write_text(json.dumps(values))
    page, _ = index(capsys, tmp_path)
    assert ("that this version does not know" in page) == (field != "data")
