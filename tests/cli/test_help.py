"""Options made from signatures: their defaults are those that will be used."""

import sys
import threading
import time
from io import StringIO

import pytest
from reference.command import every_command, skipless

from skipless.cli import loading


def told(capsys, *command: str) -> str:
    """A help text as one line without its boxes."""
    code, printed, _ = skipless(capsys, *command, "--help")
    assert code == 0, command
    return " ".join(printed.replace("│", " ").split())


@pytest.mark.parametrize("command", every_command(), ids=" ".join)
def test_every_command_has_examples_and_no_bare_none(capsys, command) -> None:
    text = told(capsys, *command)
    assert "examples: skipless " in text
    assert "(default: None)" not in text
    assert "main options" not in text


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["train", "table1"], ["--lr FLOAT", "(default: 0.003)", "(default: 30)", "(default: 2.5)"]),
        (["train", "table1", "--scale", "fashion"], ["(default: 0.002)", "(default: 128)", "(default: 100)"]),
        (["train", "table1", "--data", "fashion", "--skip"], ["(default: 0.01)", "none: without the initialisation"]),
        (["train", "table1", "--scale", "paper"], ["(default: 300)", "(default: 4096)", "(default: bf16)"]),
        (["train", "dino"], ["(default: 1024)", "(default: 3.0)", "--keep-every INT"]),
        (["train", "dino"], ["--pooling {class,mean}", "--mask-shape {block,random}", "(default: the teacher's)"]),
        (["train", "dino"], ["--patch-loss FLOAT", "--mask-share FLOAT", "--mask-ratio FLOAT", "--mask-spread FLOAT"]),
        (["train", "dino", "--scale", "scenes", "--optimizer", "adamw"], ["(default: 0.0005)", "(default: 64)"]),
        (["eval", "x", "knn"], ["(default: 10 20)", "(default: 0.07)"]),
        (["eval", "x", "linear-probe"], ["(default: -4 -3 -2 -1)", "(default: paper)"]),
        (["reproduce", "figure2"], ["--points INT", "3 at scenes, 5 at vit_small"]),
        (["reproduce", "figure5"], ["(default: 200)", "(default: runs/figure5)"]),
        (["plan"], ["--recipe {table1,dino,language}", "(default: 0.35)"]),
    ],
    ids=lambda words: " ".join(words)[:60] if isinstance(words, list) else "",
)
def test_defaults_are_those_that_will_be_used(capsys, words, shown) -> None:
    text = told(capsys, *words)
    for part in shown:
        assert part in text


@pytest.mark.parametrize("command", every_command(), ids=" ".join)
def test_a_usage_line_names_an_argument_once(capsys, command) -> None:
    printed = skipless(capsys, *command, "--help")[1]
    usage = printed.partition("\n\n")[0]
    names = [word.strip("[]") for word in usage.split() if word.strip("[]").isupper()]
    assert usage.startswith("usage: skipless")
    assert all(names.count(name) == 1 for name in ("SOURCE", "MODEL", "RUN", "FOLDER") if name in names)
    if command[0] == "eval":
        assert usage.startswith(f"usage: skipless eval SOURCE {command[-1]} ")


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        (["reproduce", "figure4"], "--seeds"),
        (["reproduce", "table2"], "--points"),
        (["reproduce", "token-graying"], "--epochs"),
        (["reproduce", "figure5"], "--scale"),
        (["reproduce", "table5"], "--seeds"),
        (["train", "table1"], "--depth"),
        (["train", "scenes"], "--scale"),
        (["eval", "x", "knn"], "--tau"),
        (["eval", "x", "tokencut"], "--k "),
        (["eval", "x", "lost"], "--tau"),
        (["eval", "x", "pca"], "--baselines"),
        (["eval", "x", "top1"], "--blocks"),
        (["data", "shards"], "--layout"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_what_is_not_taken_is_not_there(capsys, words, absent) -> None:
    assert f"{absent}" not in told(capsys, *words)
    flag = absent.strip()
    code, _, complaint = skipless(capsys, *words, flag, "1")
    assert code == 2
    assert complaint.startswith("skipless: ")
    assert flag in complaint
    assert complaint.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["fly"], "no verb 'fly'; there is train, eval,"),
        (["train", "--lr", "1"], "which recipe? There is table1, scenes, dino"),
        (["train", "tabel1"], "knows no 'tabel1'; did you mean table1?"),
        (["train", "table1", "--epoch", "1"], "has no --epoch; did you mean --epochs?"),
        (["train", "table1", "--depth=3"], "--depth changes nothing of table1: leave it out (--depth is for dino"),
        (["reproduce", "--seeds", "3"], "which? There is table1"),
        (["reproduce", "table22"], "did you mean table2?"),
        (["eval", "x", "konn"], "did you mean knn?"),
        (["data", "shard"], "did you mean shards?"),
    ],
    ids=str,
)
def test_a_slip_is_one_line_with_a_hint(capsys, words, hint) -> None:
    code, printed, complaint = skipless(capsys, *words)
    assert (code, printed) == (2, "")
    assert hint in complaint
    assert complaint.count("\n") == 1


def test_words_in_any_order_and_either_spelling(capsys, monkeypatch, tmp_path) -> None:
    seen = []
    monkeypatch.setattr("skipless.recipes.run", lambda recipe, out: seen.append((recipe, out)) or sys.exit(0))
    first = ["train", "table1", "--batch-size", "16", "--skip", "--out", str(tmp_path)]
    for words in (
        first,
        ["train", "--skip", "table1", "--batch_size=16", f"--out={tmp_path}"],
        ["train", "--out", str(tmp_path), "--skip", "--batch-size", "16", "table1"],
    ):
        assert skipless(capsys, *words)[0] == 0
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][0].fit.batch_size == 16
    assert seen[0][0].model.skip


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train", "--data", "scenes", "--epochs", "x", "table1", "--out", "o"], "train table1"),
        (["reproduce", "--out", "figure5", "--seeds", "x", "table1"], "reproduce table1"),
        (["eval", "--out", "knn", "runs/s1", "--seed", "x", "tokencut"], "eval SOURCE tokencut"),
        (["data", "--out", "shards", "--seed", "x", "scenes"], "data scenes"),
    ],
    ids=lambda words: words if isinstance(words, str) else "",
)
def test_a_value_is_no_name_even_where_it_is_spelt_like_one(capsys, words, told) -> None:
    code, _, complaint = skipless(capsys, *words)
    assert code == 2
    assert f"see skipless {told} --help" in complaint  # tyro names the command that it has read


@pytest.mark.parametrize("words", [[], ["train"], ["reproduce"], ["eval"], ["data"]], ids=" ".join)
def test_an_empty_command_fails(capsys, words) -> None:
    code, printed, complaint = skipless(capsys, *words)
    assert (code, printed) == (2, "")
    assert complaint.startswith("usage: skipless ")


def test_a_switch_may_be_left_open(capsys, monkeypatch, tmp_path) -> None:
    seen = []

    def make(what, scale, out, *, pretrain, **_):
        seen.append(pretrain)
        (tmp_path / "t.md").write_text("made")
        return {"t.md": tmp_path / "t.md"}

    monkeypatch.setattr("skipless.experiments.dense.run.reproduce_dense", make)
    for words in ([], ["--pretrain"], ["--no-pretrain"], ["--pretrain", "True"], ["--pretrain=False"]):
        assert skipless(capsys, "reproduce", "table2", *words)[0] == 0
    assert seen == [None, True, False, True, False]


@pytest.mark.parametrize(("takes", "shown"), [(0.2, True), (0.0, False)])
def test_a_long_import_says_something_on_a_terminal(monkeypatch, takes, shown) -> None:
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(loading, "AFTER_S", 0.05)
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(loading.importlib, "import_module", lambda name: time.sleep(takes))
    loading.load("json", "torch")
    text = terminal.getvalue()
    assert text.startswith("loading torch ...") is shown
    assert text.endswith("\r") is shown  # and takes it away
    assert threading.active_count() < 20


def test_the_version_is_told(capsys) -> None:
    import skipless as package

    assert skipless(capsys, "--version")[:2] == (0, f"skipless {package.__version__}\n")
