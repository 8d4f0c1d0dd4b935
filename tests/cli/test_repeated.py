"""A command that is given again says what it took from before."""

import io
import re

import pytest
from reference.command import skipless
from rich.console import Console

from skipless.experiments.conditioning.kept import cached
from skipless.recipes import table1
from skipless.recipes.read import read_recipe
from skipless.sweep.display import Display
from skipless.sweep.jobs import Job
from skipless.training.loop import fit

SMALL = ("--epochs", "1", "--batch-size", "512", "--progress", "none")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "r1"


def train(capsys, out, *more):
    return skipless(capsys, "train", "table1", "--skip", "--optimizer", "adamw", "--out", str(out), *SMALL, *more)


def test_a_finished_run_is_not_shown_as_a_new_one(capsys, trained) -> None:
    (code, first, _), (again, second, _) = train(capsys, trained), train(capsys, trained)
    assert (code, again) == (0, 0)
    assert first.startswith(f"{trained}: 2 steps in ")
    assert second.startswith(f"{trained}: already finished: 2 steps in ")
    assert first.partition("  ")[2] == second.partition("  ")[2]  # the metrics


def test_a_run_that_went_on_says_from_where(tmp_path, monkeypatch) -> None:
    out = tmp_path / "r"
    recipe = table1("digits", "skip", "adamw").with_(
        fit__epochs=2, fit__batch_size=512, fit__progress="none", fit__checkpoint_every=1
    )

    def cut_off(self, *_):
        if self.step == 3:
            self.writer.wait()
            raise KeyboardInterrupt
        return False

    with monkeypatch.context() as patch:
        patch.setattr(fit._Run, "_should_stop", cut_off)
        with pytest.raises(KeyboardInterrupt):
            recipe.run(out)
    resumed = recipe.run(out)
    assert resumed.began == 2
    assert re.fullmatch(r"4 steps in \d+ s, the first 2 before", resumed.work)
    again = recipe.run(out)
    assert again == resumed
    assert again.work.startswith("already finished: 4 steps in ")


@pytest.mark.parametrize(("study", "more"), [("knn", ()), ("linear-classifier", ("--epochs", "1"))])
def test_features_from_before_are_told(capsys, trained, study: str, more: tuple[str, ...]) -> None:
    train(capsys, trained)
    words = ("eval", str(trained), study, *more, "--device", "cpu", "--no-baselines")
    words += ("--out", str(trained.parent / study))
    (code, first, told), (again, second, retold) = skipless(capsys, *words), skipless(capsys, *words)
    assert (code, again, first) == (0, 0, second)
    assert "from before" not in told
    assert "features of digits, train: 1397 of 1397 images from before" in retold
    assert "features of digits, val: 400 of 400 images from before" in retold


def test_stores_and_searches_from_before_are_told(capsys, tmp_path, trained) -> None:
    train(capsys, trained)
    sizes = ("--train", "3", "--val", "2", "--size", "32", "--objects", "digits")
    skipless(capsys, "data", "scenes", *sizes, "--out", str(tmp_path / "s"))
    model = ("skipless_vit_tiny_patch16_224", "--device", "cpu", "--blocks", "0", "--data", str(tmp_path / "s"))
    for study, more, words in (
        ("lost", (), "lost on VOC2012: 5 of 5 images from before"),
        ("linear-probe", ("--size", "32", "--epochs", "1"), "features of 3 of 3 images from before"),
    ):
        command = ("eval", model[0], study, *model[1:], *more, "--out", str(tmp_path / study))
        (code, _, told), (again, _, retold) = skipless(capsys, *command), skipless(capsys, *command)
        assert (code, again) == (0, 0), told
        assert "from before" not in told
        assert words in retold


@pytest.mark.parametrize("terminal", [False, True])
def test_a_sweep_tells_runs_that_had_finished(capsys, trained, terminal: bool) -> None:
    train(capsys, trained)
    job = Job(("skip", "AdamW"), read_recipe(trained), trained, 3, state="done", latest={"step": 3, "seconds": 1.0})
    shown = io.StringIO()
    for before in (False, True):
        job.before = before
        with Display([job], Console(file=shown, force_terminal=terminal, width=120)) as display:
            display.show()
        assert ("already finished" in shown.getvalue()) == before
    job.state = "diverged"
    assert job.cells()[-1] == "diverged before"


def test_a_kept_measurement_is_told(capsys, tmp_path) -> None:
    for words in ("", f"{tmp_path / 'm.json'}: measured before\n"):
        assert cached(tmp_path / "m.json", {"weights": 1}, lambda: [2]) == [2]
        assert capsys.readouterr().err == words
