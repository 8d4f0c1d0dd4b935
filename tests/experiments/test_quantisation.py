"""The report of few bits: its recipes, its files, and that it trains a rotated model once."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure

from skipless.errors import InputError
from skipless.experiments.quantisation import Options, figures, run
from skipless.experiments.quantisation.recipe import QuantisationCell, quantisation_recipe
from skipless.experiments.quantisation.run import reproduce_quantisation
from skipless.recipes import table1


@pytest.mark.parametrize("row", ["skip", "skip, rotated", "skipless + init", "skipless + ours"])
def test_a_recipe_is_that_of_its_own_table(row) -> None:
    made = quantisation_recipe("digits", QuantisationCell(row, "soap"), seed=2)
    assert made == table1("digits", row.removesuffix(", rotated"), "soap", seed=2)
    text = quantisation_recipe("language", QuantisationCell(row, "soap"), steps=7)
    assert text.fit.steps == 7
    assert text.model.skip == (row in ("skip", "skip, rotated"))


@pytest.mark.parametrize(
    ("scale", "length", "words"),
    [
        ("language", {"epochs": 1}, "at scale language the length is --steps"),
        ("digits", {"steps": 1}, "at scale digits the length is --epochs"),
        ("scenes", {}, "scenes needs --data"),
    ],
)
def test_lengths_and_data_of_another_scale_are_refused(scale, length, words) -> None:
    with pytest.raises(InputError, match=words):
        quantisation_recipe(scale, QuantisationCell("skip", "soap"), **length)


@pytest.mark.parametrize(
    ("asked", "words"),
    [({"seeds": 0}, "--seeds 0"), ({"rows": ()}, "at least one of each"), ({"precisions": ("W9A8",)}, "W9A8")],
)
def test_what_makes_no_report_is_refused_before_training(tmp_path: Path, asked, words) -> None:
    with pytest.raises(InputError, match=words):
        reproduce_quantisation(Options(**asked), tmp_path)
    assert not list(tmp_path.iterdir())


def _scored_again(*_: object, **__: object) -> None:
    raise AssertionError("a precision that had been scored")


def test_a_report_trains_a_model_once_and_reads_what_is_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*arguments, **options):
        made = quantisation_recipe(*arguments, **options)
        small = {**made.model.kwargs, "depth": 2}
        return made.with_(fit__batch_size=512, model__kwargs=small, fit__progress="none")

    monkeypatch.setattr(run, "quantisation_recipe", short)
    asked = Options(optimizers=("adamw",), rows=("skip", "skip, rotated"), precisions=("W4A4",), epochs=1, jobs=1)
    files = reproduce_quantisation(asked, tmp_path, command="skipless reproduce quantisation")
    assert [folder.name for folder in (tmp_path / "runs").iterdir() if folder.is_dir()] == ["skip-adamw-seed0"]
    plain, rotated = json.loads(files["quantisation.json"].read_text())
    assert set(plain["scores"][0]) == {"unquantised", "W4A4"}
    assert plain["scores"][0]["unquantised"] == rotated["scores"][0]["unquantised"]
    for site, blocks in plain["kurtosis"].items():
        turned = rotated["kurtosis"][site][0]
        assert (blocks[0] == pytest.approx(turned, rel=1e-3)) == (site == "hidden"), "only the stream is turned"
    followed = plain["kurtosis_in_training"][0]
    assert [followed[0]["share"], followed[-1]["share"]] == [0, 1]
    assert followed == rotated["kurtosis_in_training"][0]
    assert followed[0]["hidden"] != followed[-1]["hidden"]
    assert "quantisation-training.png" in files
    table = files["quantisation.md"].read_text()
    assert "| skip, rotated | AdamW |" in table
    assert "simulated" in files["quantisation.html"].read_text()
    monkeypatch.setattr("skipless.studies.quantisation.study.quantise_", _scored_again)
    assert reproduce_quantisation(asked, tmp_path)["quantisation.md"].read_text() == table


@pytest.mark.parametrize(("scale", "tokens"), [("language", 40_000), ("digits", None)])
def test_a_language_model_is_scored_on_the_text_that_its_run_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale, tokens
) -> None:
    asked = []
    monkeypatch.setattr(run, "_train", lambda *_: None)
    monkeypatch.setattr(run, "_study", lambda _, config, *__, **___: asked.append(config.held_out))
    monkeypatch.setattr(run, "read_run", lambda _: None)
    monkeypatch.setattr(run, "QuantisedCell", lambda *_: None)
    monkeypatch.setattr(run, "write_quantisation", lambda *_, **__: {})
    reproduce_quantisation(Options(scale=scale, rows=("skip",), optimizers=("soap",)), tmp_path)
    assert asked == [tokens, tokens], "after training and before"


@pytest.mark.usefixtures("unchecked")
def test_a_run_without_measurements_has_no_line() -> None:
    axes = Figure().add_subplot()
    moments = ((0.0, {"tokens": 1.0}), (1.0, {"tokens": 2.0}))
    one = SimpleNamespace(cell=QuantisationCell("skip", "soap"), followed=((), moments))
    figures._training([one], "tokens", axes)  # pyright: ignore[reportArgumentType]
    assert [list(line.get_ydata()) for line in axes.get_lines()] == [[], [1.0, 2.0]]
