"""A language model's recipe on the command line, as an experiment would register it."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from reference.command import skipless
from reference.tiny_language import tiny_recipe, toy_library, write_lines

from skipless import registry
from skipless.choices import Row
from skipless.recipes import LanguageRecipe
from skipless.registry import Experiment, NamedRecipe


def language(scale: str = "toy", row: Row = "skipless + init", *, data: str = "pydoc", seed: int = 0) -> LanguageRecipe:
    """A toy language model.

    Args:
        scale: its size.
        row: of the table.
        data: its text.
        seed: of the run.
    """
    return tiny_recipe(Path(data), scale=scale, model__skip=row == "skip", fit__seed=seed)


@pytest.fixture(autouse=True)
def _registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "EXPERIMENTS", ["toy_room"])
    room = SimpleNamespace(EXPERIMENT=Experiment(recipes={"language": NamedRecipe(language)}))
    monkeypatch.setitem(sys.modules, "toy_room", room)  # pyright: ignore[reportArgumentType]
    with toy_library():
        yield


def test_options_change_the_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "language", "--data", str(write_lines(tmp_path / "data")), "--out", str(tmp_path / "run")]
    changes = ["--steps", "6", "--evaluate-steps", "3", "--context", "8", "--tokenizer", "bytes", "--warmup-steps", "2"]
    code, out, err = skipless(capsys, *words, *changes, "--held-out", "100", "--on-stuck", "stop", "--progress", "none")
    assert (code, err) == (0, ""), err
    assert "bits_per_byte" in out
    recipe = json.loads((tmp_path / "run/run.json").read_text())["recipe"]
    assert (recipe["fit"]["steps"], recipe["fit"]["evaluate_steps"]) == (6, 3)
    assert (recipe["data"]["context"], recipe["data"]["tokenizer"]) == (8, "bytes")
    assert (recipe["schedule"]["warmup_steps"], recipe["held_out"]) == (2, 100)
    assert recipe["objective"]["on_stuck"] == "stop"
    code, _, err = skipless(capsys, *words, *changes, "--seed", "-1", "--epochs", "x")
    assert code == 2


def test_help_names_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = skipless(capsys, "train", "language", "--help")
    assert code == 0
    for option in (
        "--steps",
        "--evaluate-steps",
        "--context",
        "--tokenizer",
        "--held-out",
        "--loss-chunk",
        "--on-stuck",
    ):
        assert option in out
    assert "--corrupt-limit" not in out
