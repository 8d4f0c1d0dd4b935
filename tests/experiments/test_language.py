"""The language model's recipe: its rows and readings, the models that come of it, and a run from a command line."""

import json
from pathlib import Path

import pytest
import torch
from reference.command import skipless
from reference.tiny_language import write_lines

from skipless.choices import ALL_ROWS
from skipless.errors import InputError
from skipless.experiments.language.recipe import READINGS, language
from skipless.init import SkiplessInit
from skipless.models import block_views
from skipless.recipes.our_init import BLOCK_LR

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


@pytest.mark.parametrize("row", ALL_ROWS)
def test_a_row_builds_its_llama(row) -> None:
    recipe = language(row=row, depth=2)
    model = recipe.model.build_language(257, 32, 0)
    views = block_views(model)
    assert [view.skips for view in views] == [("attn", "mlp") if row == "skip" else ()] * 2
    assert model(torch.zeros(1, 32, dtype=torch.long)).logits.shape == (1, 32, 257)
    assert recipe.optimizer.block_lr == (BLOCK_LR / 2 if row == "skipless + ours" else 1.0)
    again = language(row=row, depth=2).model.build_language(257, 32, 0)
    for (name, one), other in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("reading", READINGS)
def test_a_reading_draws_what_it_says(reading) -> None:
    recipe = language(reading=reading, depth=1)
    assert recipe.model.init == READINGS[reading]
    view = block_views(recipe.model.build_language(64, 16, 0))[0]
    gate, up = (linear.w for linear in view.mlp_in)
    assert torch.equal(gate, up) == (reading == "sharp")
    product = view.w_q[:, : view.head_dim] @ view.w_k[:, : view.head_dim].mT
    beta = READINGS[reading].beta * (view.head_dim**0.5 if reading == "compensated" else 1.0)
    assert torch.linalg.svdvals(product.double())[0].item() == pytest.approx(beta, rel=1e-3)


def test_the_papers_reading_is_its_preset_and_the_default() -> None:
    assert language().model.init == SkiplessInit.preset("language")


def test_the_papers_scale_is_its_model() -> None:
    recipe = language("paper", "skip", data="c4")
    with torch.device("meta"):
        model = recipe.model.build_language(32_000, 4096, 0)
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(109.5e6, rel=1e-3)
    assert recipe.fit.batch_size * recipe.data.context == 262_144


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"scale": "papr"}, "no scale 'papr'; did you mean paper?"),
        ({"reading": "sharper"}, "no reading 'sharper'"),
        ({"reading": "sharp", "row": "skipless + ours"}, "is of the row 'skipless . init', not of 'skipless . ours'"),
        ({"scale": "paper"}, "language at scale 'paper' needs --data"),
        ({"depth": 0}, "depth 0: a model has at least one block"),
    ],
)
def test_what_makes_no_sense_is_refused(asked: dict, message: str, unchecked) -> None:
    with pytest.raises(InputError, match=message):
        language(**asked)


@pytest.mark.parametrize("row", [["--ours"], ["--reading", "compensated", "--optimizer", "soap"]])
def test_a_run_from_a_command_line(row, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = ["train", "language", "--data", str(write_lines(tmp_path / "data")), "--documents", "line"]
    words += ["--tokenizer", "bytes", "--workers", "0", "--out", str(tmp_path / "run"), *row]
    short = ["--depth", "1", "--steps", "3", "--context", "16", "--batch-size", "4", "--progress", "none"]
    code, _, err = skipless(capsys, *words, *short)
    assert code == 0, err
    assert json.loads((tmp_path / "run/result.json").read_text())["bits_per_byte"] > 0
    code, _, err = skipless(capsys, "eval", str(tmp_path / "run"), "knn", "--data", "digits")
    assert (code, err.count("\n")) == (2, 1)
    assert "is a model of text" in err
