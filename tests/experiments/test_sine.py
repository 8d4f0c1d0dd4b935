"""The room of sine-activated adapters: what it trains, what it measures, and that it goes on where it was cut off."""

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference.command import skipless

from skipless.data import load_images
from skipless.errors import InputError
from skipless.experiments.sine import SineOptions, run
from skipless.experiments.sine.cells import SineRuns
from skipless.experiments.sine.measured import AtBits, asked_bits, measured
from skipless.experiments.sine.paper import PRINTED
from skipless.experiments.sine.recipe import (
    CLASSES,
    AdaptedRecipe,
    AdapterSettings,
    SineCell,
    adapted_recipe,
    base_recipe,
)
from skipless.experiments.sine.run import planned_cells, reproduce_sine
from skipless.experiments.sine.tables import accuracy_table, bits_table, gains_table, paper_table, rates_table
from skipless.experiments.sine.text import notes
from skipless.optional import is_installed
from skipless.recipes import read_recipe
from skipless.report.run_records import Run

needs_peft = pytest.mark.skipif(not is_installed("peft"), reason="the extra `adapters` is not installed")
if is_installed("peft"):
    from reference.sine import hide_torchao

    hide_torchao()
ADAPTERS = ("lora", "lora, alpha'", "sine", "dora")


def small(recipe: Any) -> Any:
    """Two blocks and two passes."""
    return recipe.with_(model__kwargs={**recipe.model.kwargs, "depth": 2}, fit__batch_size=128, fit__epochs=2)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of two blocks."""
    monkeypatch.setattr(run, "base_recipe", lambda *given, **named: small(base_recipe(*given, **named)))
    monkeypatch.setattr(run, "adapted_recipe", lambda *given, **named: small(adapted_recipe(*given, **named)))
    monkeypatch.setattr(run, "HOLDOUT", {"digits": 300})


def _at(bits: int, top1: float, **more: Any) -> AtBits:
    return AtBits(bits, top1, 100, 400, 0.5, 1.5, 3.0, **more)


def _cell(cell: SineCell, *by_seed: dict[int, float], tried: Any = None, lr: float = 1e-2) -> SineRuns:
    none = np.zeros(0)
    runs = tuple(
        Run(Path("run"), seed, lr, at.get(32), 1, 1.0, not at, "", none, none, {}) for seed, at in enumerate(by_seed)
    )
    return SineRuns(cell, runs, tuple({b: _at(b, top1) for b, top1 in at.items()} for at in by_seed), tried or {})


def test_cells_are_each_method_at_each_rank_and_frequency_once() -> None:
    options = SineOptions(ranks=(4, 1, 4), frequencies=(200.0, 20.0))
    cells = planned_cells(options)
    assert len(cells) == len({cell.slug for cell in cells}) == 2 + 2 * 2 + 2 * 2 * 2
    assert cells[:2] == [SineCell("head"), SineCell("all weights")]
    assert {cell.frequency for cell in cells if cell.method in ("lora", "dora")} == {0.0}
    assert {cell.frequency for cell in cells if cell.method in ("sine", "lora, alpha'")} == {20.0, 200.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SineOptions(seeds=0), "--seeds 0: give at least 1"),
        (SineOptions(methods=()), "give at least one of each"),
        (SineOptions(ranks=()), "give at least one of each"),
        (SineOptions(frequencies=()), "give at least one of each"),
        (SineOptions(ranks=(0,)), "--ranks 0: give 1 or more"),
        (SineOptions(frequencies=(-1.0,)), "--frequencies -1: give numbers above 0"),
        (SineOptions(bits=(9,)), "--bits 9: give 1 to 8, or 32"),
        (SineOptions(tune=True, grid=(0.0,)), "--grid 0: give factors above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(options: SineOptions, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        planned_cells(options)


def test_a_method_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="no method 'pissa'; there is head, all weights, lora"):
        adapted_recipe("digits", SineCell("pissa", 4), base="base")  # pyright: ignore[reportArgumentType]


def test_without_peft_a_line_names_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "is_installed", lambda name: name != "peft")
    with pytest.raises(InputError, match="needs PEFT, the extra `adapters`: pip install 'peft"):
        reproduce_sine(SineOptions(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_has_one_half_of_the_classes_and_fine_tuning_the_other() -> None:
    base, tuned = base_recipe("digits"), adapted_recipe("digits", SineCell("lora", 4), base="../base")
    assert base.data.classes == tuple("01234")
    assert tuned.data.classes == tuple("56789")
    assert base.model == tuned.model
    assert len(load_images(base.data).train) + len(load_images(tuned.data).train) == 1397
    assert all(len(set(names)) == 10 for names in CLASSES.values())


def test_a_larger_alpha_starts_from_a_smaller_rate() -> None:
    rates = [
        adapted_recipe("digits", cell, base="b").optimizer.lr
        for cell in (SineCell("lora", 4), SineCell("sine", 4, 20.0), SineCell("sine", 4, 200.0))
    ]
    assert rates == sorted(rates, reverse=True)
    alpha = adapted_recipe("digits", SineCell("lora, alpha'", 4, 200.0), base="b")
    assert alpha.optimizer.lr == rates[-1]


def test_a_recipe_comes_back_from_its_folder(tmp_path: Path) -> None:
    made = adapted_recipe("digits", SineCell("sine", 4, 200.0), base="../../base/skip-seed0", seed=3)
    (tmp_path / "run.json").write_text(json.dumps({"recipe": made.as_json()}))
    assert read_recipe(tmp_path) == made
    assert type(read_recipe(tmp_path)) is AdaptedRecipe


def test_it_comes_back_in_a_process_that_has_not_met_the_room(tmp_path: Path) -> None:
    made = adapted_recipe("digits", SineCell("lora", 1), base="../base")
    (tmp_path / "run.json").write_text(json.dumps({"recipe": made.as_json()}))
    code = f"from skipless.recipes import read_recipe; print(type(read_recipe({str(tmp_path)!r})))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "AdaptedRecipe" in said.stdout


@needs_peft
class TestAdapters:
    """What is trained of a model."""

    @pytest.fixture
    def model(self) -> Any:
        recipe = small(base_recipe("digits"))
        return recipe.model.build_for(8, 1, 5, seed=0)

    @pytest.mark.parametrize("method", ADAPTERS)
    def test_a_new_adapter_changes_nothing_and_is_all_that_is_trained(self, model: Any, method: Any) -> None:
        from skipless.experiments.sine.adapted import with_adapter

        images = torch.randn(4, 1, 8, 8)
        model.eval()
        expected = model(images)
        adapted = with_adapter(model, AdapterSettings(method, 4, 200.0), seed=0).eval()
        assert torch.allclose(adapted(images), expected, atol=1e-5)
        trained = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
        assert all(".lora_" in name or "head" in name for name in trained)
        assert sum("lora_A" in name for name in trained) == 2 * 4  # every linear map of two blocks

    def test_methods_of_one_rank_start_from_one_a(self, model: Any) -> None:
        import copy

        from skipless.experiments.sine.adapted import with_adapter

        found = []
        for method in ADAPTERS:
            adapted: Any = with_adapter(copy.deepcopy(model), AdapterSettings(method, 4, 200.0), seed=1)
            found.append(adapted.base_model.model.blocks[1].mlp.fc1.lora_A["default"].weight)
        assert all(torch.equal(one, found[0]) for one in found)

    def test_lora_at_alpha_is_the_control_that_the_report_of_the_adapters_names(self, model: Any) -> None:
        import copy

        from skipless.adapters import sine_report
        from skipless.experiments.sine.adapted import with_adapter

        sine = with_adapter(copy.deepcopy(model), AdapterSettings("sine", 4, 200.0), seed=1)
        plain: Any = with_adapter(copy.deepcopy(model), AdapterSettings("lora, alpha'", 4, 200.0), seed=1)
        pattern = sine_report(sine).alpha_pattern
        assert plain.peft_config["default"].alpha_pattern == pytest.approx(pattern)
        layer = plain.base_model.model.blocks[0].mlp.fc2
        assert layer.scaling["default"] == pytest.approx(2 * 200 / math.sqrt(128))

    def test_the_head_alone_and_all_weights(self, model: Any) -> None:
        from skipless.experiments.sine.adapted import with_adapter

        head = with_adapter(model, AdapterSettings("head"), seed=0)
        assert {name for name, p in head.named_parameters() if p.requires_grad} == {"head.weight", "head.bias"}
        model.requires_grad_(True)
        whole = with_adapter(model, AdapterSettings("all weights"), seed=0)
        assert all(p.requires_grad for p in whole.parameters())


@needs_peft
class TestReport:
    """From nothing to the page, and again."""

    options = SineOptions(
        methods=("lora", "sine"), ranks=(2,), bits=(32, 2), frequencies=(200.0,), epochs=2, tune=True, grid=(0.3, 1.0),
        jobs=2,
    )  # fmt: skip

    @pytest.mark.slow
    def test_it_is_tuned_measured_written_and_made_again_from_what_is_there(self, tmp_path: Path, short: None) -> None:
        written = reproduce_sine(self.options, tmp_path, command="skipless reproduce sine")
        pictures = {"sine-accuracy.png", "sine-bytes.png", "sine-ranks.png", "sine-loss.png"}
        assert {"sine.md", "sine.json", "sine.html", "index.html", *pictures} <= written.keys()
        found = json.loads(written["sine.json"].read_text())
        cells = {SineCell(one["method"], one["rank"], one["frequency"]): one for one in found["cells"]}
        assert set(cells) == set(planned_cells(self.options))
        for cell, one in cells.items():
            bits = [at["bits"] for at in one["at_bits"][0]]
            assert bits == ([32, 2] if cell.rank else [32])
            assert one["at_bits"][0][0]["top1"] == pytest.approx(one["top1"][0])
            scores = {float(rate): top1 for rate, top1 in one["tried"].items()}
            assert one["learning_rate"] == max(scores, key=scores.__getitem__)
        self._check_numbers(cells)
        page = written["sine.html"].read_text()
        for words in ("83.6", "2505.21895", "LoRA at alpha", "best of 2 (0.3, 1 times", "half of the classes"):
            assert words in page

        stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/*.*[!k]")}  # locks are touched
        again = reproduce_sine(self.options, tmp_path, command="skipless reproduce sine")
        assert json.loads(again["sine.json"].read_text()) == found
        assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
        self._check_goes_on(tmp_path, found)

    def _check_numbers(self, cells: dict[SineCell, Any]) -> None:
        """What is trained and stored, and ranks of what it adds."""
        lora, sine = (cells[cell]["at_bits"][0] for cell in (SineCell("lora", 2), SineCell("sine", 2, 200.0)))
        numbers = 2 * 2 * ((32 + 96) + (32 + 32) + (32 + 128) + (128 + 32))  # r (in + out), two blocks
        assert [at["parameters"] for at in (*lora, *sine)] == [numbers] * 4
        assert [at["stored_bytes"] for at in lora] == [4 * numbers, numbers // 4 + 2 * 8 * (2 + 4 * 4)]
        assert lora[0]["effective_rank"] <= 2.001
        assert sine[0]["phase_std"] > 0
        assert lora[0]["phase_std"] is None
        assert cells[SineCell("head")]["at_bits"][0][0]["size"] == 0
        assert cells[SineCell("all weights")]["at_bits"][0][0]["effective_rank"] > 2

    def _check_goes_on(self, out: Path, found: Any) -> None:
        """A run and a measurement that are gone are made again, to the same numbers; more bits are added to what is."""
        shutil.rmtree(out / "runs" / "sine-w200-r2-seed0")
        (out / "runs" / "lora-r2-seed0" / "adapter.json").unlink()
        again = reproduce_sine(replace(self.options, bits=(32, 2, 1)), out)
        cells = json.loads(again["sine.json"].read_text())["cells"]
        for one, before in zip(cells, found["cells"], strict=True):
            assert one["top1"] == before["top1"]
            assert [at for at in one["at_bits"][0] if at["bits"] != 1] == before["at_bits"][0]
            assert (1 in [at["bits"] for at in one["at_bits"][0]]) == bool(one["rank"])

    @pytest.mark.slow
    @pytest.mark.parametrize("method", ["sine", "dora"])
    def test_a_run_that_was_cut_off_ends_as_one_that_was_not(self, method: Any, tmp_path: Path) -> None:
        base = small(base_recipe("digits")).with_(fit__epochs=1)
        base.with_(fit__progress="none").run(tmp_path / "base" / "b")
        made = small(adapted_recipe("digits", SineCell(method, 2, 200.0), base="../../base/b")).with_(
            fit__progress="none", fit__checkpoint_every=3, fit__evaluate_every=1
        )
        whole = made.run(tmp_path / "runs" / "whole").metrics
        cut = tmp_path / "runs" / "cut"
        with pytest.raises(KeyboardInterrupt):
            _stopping(made, cut, after=5)
        assert not (cut / "result.json").exists()
        assert made.run(cut).metrics == whole

    def test_a_run_whose_model_is_gone_says_so(self, tmp_path: Path) -> None:
        made = small(adapted_recipe("digits", SineCell("lora", 2), base="../gone"))
        with pytest.raises(InputError, match="no weights at .*gone"):
            made.run(tmp_path / "run")


def _stopping(recipe: Any, out: Path, after: int) -> None:
    """Run a recipe whose process dies in a step."""
    from skipless.training.loop.engine import Engine

    taken, take = [], Engine.take_step

    def dying(self: Any, *given: Any, **named: Any) -> Any:
        taken.append(1)
        if len(taken) > after:
            raise KeyboardInterrupt
        return take(self, *given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "take_step", dying)
        recipe.run(out)


def test_tables_of_made_up_runs() -> None:
    sine, alpha = SineCell("sine", 4, 200.0), SineCell("lora, alpha'", 4, 200.0)
    found = [
        _cell(SineCell("head"), {32: 50.0}, {32: 52.0}),
        _cell(SineCell("lora", 4), {32: 80.0, 2: 70.0}, {}),
        _cell(alpha, {32: 81.0, 2: 60.0}, {32: 83.0, 2: 62.0}),
        _cell(sine, {32: 84.0, 2: 61.0}, {32: 86.0, 2: 63.0}, tried={1e-2: 90.0, 3e-2: None}),
    ]
    accuracy = accuracy_table(found)
    assert accuracy.head == ("method", "no adapter", "rank 4")
    assert accuracy.rows[0] == ("head", "51.0 ± 1.4 (n 2, 1e-2)", "–")
    assert accuracy.rows[1] == ("lora", "–", "80.0 (n 1, 1 diverged, 1e-2)")
    assert accuracy.rows[3] == ("sine, w = 200", "–", "85.0 ± 1.4 (n 2, 1e-2)")
    assert bits_table(found, (2,)).rows[2] == ("sine, w = 200", "4", "85.0 ± 1.4", "62.0 ± 1.4")
    gains = {row[:2]: row[3:] for row in gains_table(found, (2,)).rows}
    assert gains["sine, w = 200", "lora, alpha', w = 200"] == ("+3.0 ± 0.0", "+1.0 ± 0.0")
    assert gains["sine, w = 200", "lora"] == ("+4.0", "-9.0")  # the one seed that both have
    assert gains["lora, alpha', w = 200", "lora"] == ("+1.0", "-10.0")
    assert rates_table(found).rows[3][2:] == ("1e-2", "1e-2: 90.0, 3e-2: diverged")


def test_a_cell_that_diverged_whole_is_a_result() -> None:
    found = [_cell(SineCell("lora", 4), {}, {})]
    assert list(accuracy_table(found).rows) == [("lora", "diverged (n 0, 1e-2)")]
    assert found[0].mean() is None


def test_notes_name_rates_at_the_end_of_their_grid() -> None:
    ends = _cell(SineCell("lora", 4), {32: 80.0}, tried={1e-2: 90.0, 3e-2: 80.0})
    inner = _cell(SineCell("dora", 4), {32: 80.0}, tried={3e-3: 1.0, 1e-2: 90.0, 3e-2: 80.0})
    said = " ".join(notes(200, [ends, inner], tuned=True, grid=(1.0, 3.0)))
    assert "may lie beyond: lora, rank 4." in said
    assert "standard error of up to 2.8 points" in said
    assert "not tuned" in " ".join(notes(200, [ends], tuned=False, grid=()))


def test_only_adapters_are_measured_at_few_bits() -> None:
    of = {
        cell: asked_bits(adapted_recipe("digits", cell, base="b"), (2, 4))
        for cell in (SineCell("head"), SineCell("lora", 1))
    }
    assert list(of.values()) == [(32,), (32, 4, 2)]
    assert measured(Path("nowhere")) == ()


def test_what_the_papers_print_is_as_in_their_sources() -> None:
    rows = paper_table().rows
    assert len(rows) == len(PRINTED) == 9
    assert tuple(rows[0][3:5]) == ("80.0", "83.6")


def test_the_command_knows_it(capsys: pytest.CaptureFixture[str]) -> None:
    code, said, _ = skipless(capsys, "reproduce", "sine", "--help")
    assert code == 0
    for words in ("--ranks", "--frequencies", "alpha'", "runs/sine-SCALE"):
        assert words in said
