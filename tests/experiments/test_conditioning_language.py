"""Tables 5 and 6 and Figure 6 of a language model."""

import json
from pathlib import Path

import pytest
from reference.tiny_language import write_lines

from skipless.choices import ROWS
from skipless.conditioning import measure_conditioning
from skipless.errors import InputError
from skipless.experiments.conditioning import EXPERIMENT, Options, recipe, run
from skipless.experiments.conditioning.run import reproduce_figure6, reproduce_tables
from skipless.recipes import open_model
from skipless.recipes.language import held_out_windows

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Models of one narrow block, on sentences in bytes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    whole = recipe.model_recipe

    def made(scale, row, **asked):
        one = whole(scale, row, **asked)
        sizes = {"hidden_size": 8, "intermediate_size": 24, "num_hidden_layers": 1}
        return one.with_(
            model__kwargs={**one.model.kwargs, **sizes}, data__context=8, data__documents="line",
            data__tokenizer="bytes", data__validation=0.3, fit__batch_size=4, held_out=300,
        )  # fmt: skip

    monkeypatch.setattr(recipe, "model_recipe", made)
    monkeypatch.setattr(run, "model_recipe", made)
    return str(write_lines(tmp_path / "data", 100))


@pytest.mark.slow
def test_tables_and_figure_are_of_the_same_runs(tmp_path: Path, small: str) -> None:
    asked = {"data": small, "jobs": 1, "steps": 3}
    tables = {what: reproduce_tables(what, "language", tmp_path / "out", **asked) for what in ("table5", "table6")}
    found = json.loads(tables["table6"]["table6.json"].read_text())
    assert tuple(found) == ROWS
    for row, moments in found.items():
        assert [round(3 * moment["share"]) for moment in moments] == [0, 1, 2, 3], row
        assert all(moment["measurement"]["kind"] == "text" for moment in moments)
        assert moments[0]["measurement"]["networks"].keys() == {"spread"}
    text = tables["table5"]["table5.md"].read_text()
    assert "ours: 64 rows (2 texts, 4 tokens, 8 features)" in text
    assert "the median of 2 texts" in text
    figure = reproduce_figure6("language", tmp_path / "out", **asked)
    assert json.loads(figure["figure6.json"].read_text()).keys() == {"initialisation", "trained"}
    opened = open_model(str(tmp_path / "out/runs/skip-soap-seed0"), untrained=True)
    ids = held_out_windows(opened.recipe.load().text, 2, 8)
    again = measure_conditioning(opened.model.double(), inputs=ids, blocks=[0], parts=("attn",), forms="own")
    before = found["skip"][0]["measurement"]["blocks"][0]["attn"]["skip"]["kappa"]["value"]
    assert again.blocks[0].attn["skip"].kappa.value == pytest.approx(before, rel=1e-6)


def test_its_length_is_in_steps(tmp_path: Path) -> None:
    make = EXPERIMENT.reports["table6"].make
    with pytest.raises(InputError, match="which --steps makes longer"):
        make(Options(scale="language", epochs=2, out=tmp_path), "")
    with pytest.raises(InputError, match="--epochs changes nothing of table6 where --steps is given"):
        make(Options(scale="digits", epochs=2, steps=2, out=tmp_path), "")


def test_too_little_text_is_told(small: str) -> None:
    text = recipe.model_recipe("language", "skip", data=small).load().text
    with pytest.raises(InputError, match="4 windows of 100000 tokens to measure at: the held-out text has"):
        held_out_windows(text, 4, 100_000)
