"""A language model's run: what it logs, and that killed, shared out or accumulated it is the same run."""

import functools
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.ranks import run_apart
from reference.run_folders import write_run
from reference.tiny_language import CONTEXT, TinyCausal, sentence, tiny_recipe, toy_library, write_lines
from reference.tiny_run import die, killed, same, tensors

from skipless.data.loading.loader import epoch_order
from skipless.data.text import load_text
from skipless.errors import InputError
from skipless.evaluators import score_text
from skipless.frozen import to_json
from skipless.optim import WarmupCosine, build_optimizer
from skipless.recipes import LanguageRecipe, ModelConfig, Recipe, ScheduleConfig, read_recipe
from skipless.report.runs_index.cells import run_cells
from skipless.report.runs_index.run_line import read_run_line
from skipless.sweep.rates import best_rate
from skipless.training import FitConfig, TrainingDiverged, fit, load_weights

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


@pytest.fixture(autouse=True)
def _toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with toy_library():
        yield


@pytest.fixture
def recipe(tmp_path: Path) -> LanguageRecipe:
    return tiny_recipe(write_lines(tmp_path / "data"))


def lines(out: Path) -> list[dict[str, Any]]:
    timing = ("seconds", "tokens_per_second")
    logged = (json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in timing} for line in logged]


def test_json_both_ways(recipe: LanguageRecipe) -> None:
    read = Recipe.from_json(json.loads(json.dumps(recipe.as_json())))
    assert read == recipe
    assert type(read) is LanguageRecipe
    for option, path in recipe.options.items():
        value: Any = recipe
        for part in path.split("__"):
            value = None if value is None else getattr(value, part)
        assert recipe.with_(**{path: value}) == recipe, option
    assert "20 steps of" in repr(recipe.with_(data__data="x"))


def test_a_run_without_dropout_equals_a_plain_loop(tmp_path: Path) -> None:
    recipe = tiny_recipe(write_lines(tmp_path / "data"), fit__log_every=1)
    loaded = recipe.load()
    made = recipe.prepare(tmp_path / "run", loaded)
    twin = TinyCausal(257, CONTEXT, seed=0)
    for model in (made.task.model, twin):
        model.dropout.p = 0.0
    fit(
        made.task, loaded.train, build_optimizer(made.task, recipe.optimizer), WarmupCosine(1e-2, 20, warmup_steps=3),
        out=tmp_path / "run", config=recipe.fit,
    )  # fmt: skip
    optimizer, schedule = build_optimizer(twin, recipe.optimizer), WarmupCosine(1e-2, 20, warmup_steps=3)
    stream, losses = torch.tensor(load_text(recipe.data).train.ids.tolist()), []
    count = (len(stream) - 1) // CONTEXT
    for step in range(20):
        epoch, place = divmod(step, count // 8)
        rows = epoch_order(count, 0, epoch)[8 * place : 8 * place + 8]
        windows = torch.stack([stream[i * CONTEXT : i * CONTEXT + CONTEXT + 1] for i in rows.tolist()])
        for group in optimizer.param_groups:
            group["lr"] = schedule(step)
        loss = torch.nn.functional.cross_entropy(twin(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    assert [line["loss"] for line in lines(tmp_path / "run") if "loss" in line] == pytest.approx(losses, rel=1e-4)


def test_what_a_run_says(recipe: LanguageRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = recipe.with_(fit__progress="bar").run(tmp_path / "run")
    text = load_text(recipe.data)
    logged = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged if "evaluation" in line] == [8, 16, 20]
    training = [line for line in logged if "loss" in line]
    assert [line["step"] for line in training] == [4, 8, 12, 16, 20]
    for line in training:
        bits = line["loss"] / math.log(2) / text.train.bytes_per_token
        assert line["bits_per_byte"] == pytest.approx(bits, rel=1e-5)
        assert "images_per_second" not in line
    steps, seconds = zip(*((line["step"], line["seconds"]) for line in training), strict=True)
    rate = (steps[1] - steps[0]) * 8 * CONTEXT / (seconds[1] - seconds[0])
    assert training[1]["tokens_per_second"] == pytest.approx(rate)
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["text"]["vocabulary"] == 257
    assert record["text"]["identity"] == text.identity
    assert (record["steps"], record["samples"]) == (20, (text.train.tokens - 1) // CONTEXT)
    assert read_recipe(tmp_path / "run") == recipe.with_(fit__progress="bar")
    err = capsys.readouterr().err
    assert "bits/byte" in err
    assert "tok/s" in err
    assert "step 16  bits_per_byte" in err
    assert set(result.metrics) == {"bits_per_byte", "loss", "perplexity", "n"}
    assert result.metrics["n"] == text.val.tokens - 1
    assert "20 steps" in repr(result)


def test_the_last_evaluation_is_of_the_weights_that_are_kept(recipe: LanguageRecipe, tmp_path: Path) -> None:
    result = recipe.run(tmp_path / "run")
    model = TinyCausal(257, CONTEXT)
    load_weights(model, tmp_path / "run")
    score = score_text(model, load_text(recipe.data).val, context=CONTEXT)
    assert result.metrics["bits_per_byte"] == pytest.approx(score.bits_per_byte, rel=1e-6)
    part = recipe.with_(held_out=100).run(tmp_path / "part")
    assert 100 <= part.metrics["n"] < score.tokens


@pytest.mark.parametrize("step", [1, 7, 13, 19])
def test_killed_at_any_step_it_ends_where_it_would_have(step: int, recipe: LanguageRecipe, tmp_path: Path) -> None:
    watched = recipe.with_(objective__watch_every=6, objective__watch_after=6)
    watched.run(tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        asked, original = 0, WarmupCosine.__call__

        def dying(self: WarmupCosine, at: int) -> float:
            nonlocal asked
            asked += at == step
            if asked:
                die()
            return original(self, at)

        patch.setattr(WarmupCosine, "__call__", dying)
        killed(lambda: watched.run(tmp_path / "run"))
    watched.run(tmp_path / "run")
    assert same(tensors(tmp_path / "run"), tensors(tmp_path / "whole"))
    assert lines(tmp_path / "run") == lines(tmp_path / "whole")
    assert sum("watch" in line for line in lines(tmp_path / "run")) == 3


def test_workers_do_not_change_it(recipe: LanguageRecipe, tmp_path: Path) -> None:
    recipe.run(tmp_path / "0")
    recipe.with_(fit__workers=2).run(tmp_path / "2")
    assert same(tensors(tmp_path / "0"), tensors(tmp_path / "2"))


def test_accumulation_changes_rounding_alone(recipe: LanguageRecipe, tmp_path: Path) -> None:
    plain = recipe.with_(model=ModelConfig("deaf", library="toy"))
    plain.run(tmp_path / "1")
    plain.with_(fit__accumulation=4).run(tmp_path / "4")
    for one, other in zip(lines(tmp_path / "1"), lines(tmp_path / "4"), strict=True):
        assert one.keys() == other.keys()
        if "loss" in one:
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)


def _run_on_a_rank(folder: Path, strategy: str, rank: int) -> None:
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache-of-ranks")
    recipe = tiny_recipe(folder / "data/sentences.txt", model=ModelConfig("deaf", library="toy"))
    watched = recipe.with_(
        objective__watch_every=4, objective__watch_after=4, optimizer__lr=0.3, fit__strategy=strategy
    )
    with toy_library():
        watched.run(folder / "two")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_make_the_run_of_one(strategy: str, recipe: LanguageRecipe, tmp_path: Path) -> None:
    """They also prepare the text together, from nothing."""
    plain = recipe.with_(model=ModelConfig("deaf", library="toy"), optimizer__lr=0.3)
    plain.with_(objective__watch_every=4, objective__watch_after=4).run(tmp_path / "one")
    run_apart(2, functools.partial(_run_on_a_rank, tmp_path, strategy), tmp_path / "log")
    one, two = lines(tmp_path / "one"), lines(tmp_path / "two")
    assert [line.keys() for line in one] == [line.keys() for line in two]
    assert sum("watch" in line for line in two) == 5
    for first, second in zip(one, two, strict=True):
        for kind in ("loss", "bits_per_byte"):
            assert first.get(kind) == (None if kind not in second else pytest.approx(second[kind], rel=1e-4))
        if "watch" in first:
            assert first["watch"]["loss"] == pytest.approx(second["watch"]["loss"], rel=1e-4)
        if "evaluation" in first:
            assert first["evaluation"] == pytest.approx(second["evaluation"], rel=1e-4)


def test_a_model_that_learns_frequencies_alone_is_told(
    recipe: LanguageRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deaf = recipe.with_(
        model=ModelConfig("deaf", library="toy"), optimizer__lr=0.3, fit__steps=120, fit__evaluate_steps=120,
        fit__progress="lines", objective__watch_every=20, objective__watch_after=40,
    )  # fmt: skip
    deaf.run(tmp_path / "told")
    faults = [line["watch"] for line in lines(tmp_path / "told") if "fault" in line.get("watch", {})]
    assert faults
    err = capsys.readouterr().err
    assert err.count("knows only how frequent each token is") == 1
    assert "make attention start closer to the identity" in err
    with pytest.raises(TrainingDiverged, match="knows only how frequent .* at step .*make attention start closer"):
        deaf.with_(objective__on_stuck="stop").run(tmp_path / "stopped")
    hearing = recipe.with_(
        fit__steps=120, fit__evaluate_steps=120, objective__watch_every=20, objective__watch_after=60
    )
    hearing.run(tmp_path / "hearing")
    found = [line["watch"] for line in lines(tmp_path / "hearing") if "watch" in line]
    assert len(found) == 6
    assert not any("fault" in one for one in found)


def test_other_text_is_refused_and_the_same_goes_on(recipe: LanguageRecipe, tmp_path: Path) -> None:
    recipe.run(tmp_path / "run")
    (tmp_path / "run/result.json").unlink()
    file = Path(recipe.data.data)
    os.utime(file, (1, 1))
    recipe.run(tmp_path / "run")
    (tmp_path / "run/result.json").unlink()
    held = file.read_text().splitlines()
    file.write_text("\n".join([*held[:-1], sentence(1000, len(held[-1].split()))]) + "\n")
    with pytest.raises(InputError, match=r"was trained on other text than .* is now \((train|val).* differ\)"):
        recipe.run(tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fit__measure_every": 5}, "no adapter for `TinyCausal`"),
        ({"held_out": -1}, "held_out -1"),
        ({"data__context": 10**6}, "no window of context 1000000"),
        ({"fit__batch_size": 10**6}, "does not fit a training set"),
        ({"schedule__warmup_steps": 21}, "warm up for less or train for longer"),
        ({"model": ModelConfig("vit_tiny_patch16_224")}, "takes images and predicts no tokens"),
    ],
)
def test_what_cannot_be_trained(changes: dict[str, Any], message: str, recipe: LanguageRecipe, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        recipe.with_(**changes).run(tmp_path / "run")


def test_steps_take_the_place_of_epochs() -> None:
    assert FitConfig(epochs=3, batch_size=10).total_steps(35) == 9
    assert FitConfig(epochs=3, batch_size=10, steps=7).total_steps(35) == 7
    with pytest.raises(InputError, match="batch_size 40 does not fit"):
        FitConfig(batch_size=40, steps=7).total_steps(35)
    for field in ("steps", "evaluate_steps"):
        with pytest.raises(InputError, match=f"{field} -1 is too small"):
            FitConfig(**{field: -1})


def test_earlier_records_lack_what_is_new(tmp_path: Path) -> None:
    """Fields that hold their defaults are left out: runs of before have the same fingerprint."""
    assert not {"steps", "evaluate_steps"} & to_json(FitConfig()).keys()
    assert to_json(ScheduleConfig()).keys() == {"warmup", "final_lr"}
    assert write_run(tmp_path / "run").is_dir()


def test_the_index_of_runs_takes_the_lowest_and_counts_steps(recipe: LanguageRecipe, tmp_path: Path) -> None:
    recipe.run(tmp_path / "runs/a")
    line = read_run_line(tmp_path / "runs/a", ["top1", "knn_best", "bits_per_byte"])
    assert not isinstance(line, str)
    bits = [one["evaluation"]["bits_per_byte"] for one in lines(tmp_path / "runs/a") if "evaluation" in one]
    assert (line.metric, line.last, line.best) == ("bits_per_byte", bits[-1], min(bits))
    per_epoch = len(recipe.load().train) // 8
    assert line.epochs == 20 / per_epoch
    assert "bits per byte" in run_cells(line, tmp_path, [], tmp_path / "index.html")[2]


def test_the_lowest_loss_is_the_best_rate() -> None:
    scores = {1e-3: 2.0, 1e-2: 1.5, 1e-1: None}
    assert best_rate(("skip", "adamw"), scores) == 1e-3
    assert best_rate(("skip", "adamw"), scores, lowest=LanguageRecipe.lower_is_better) == 1e-2
