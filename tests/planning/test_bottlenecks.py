"""What is said of a run's parts, and that the parts are a real run's."""

import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from skipless.errors import InputError
from skipless.planning.bottlenecks import RunProfile, Seconds, profile_text
from skipless.planning.profiling import profile_run
from skipless.recipes import dino, table1


def seconds(value: float) -> Seconds:
    return Seconds(value, 0.9 * value, 1.1 * value, 5)


HEALTHY = RunProfile(
    device="cuda", cores=16, workers=8, batch_size=100, precision="bf16", optimizer_name="SOAP", loader=2000.0,
    between=seconds(0.001), passes=seconds(0.1), update=seconds(0.01), refresh=seconds(0.06), refresh_every=10,
    evaluation=2.0, checkpoint=0.5, steps_per_epoch=1000, evaluate_every=1, checkpoint_every=1000,
)  # fmt: skip


def test_shares_are_of_an_average_step() -> None:
    assert HEALTHY.optimizer == pytest.approx(0.015)  # nine ordinary steps and one that refreshes
    assert HEALTHY.step == pytest.approx(0.116)
    assert HEALTHY.images_per_second == pytest.approx(100 / 0.116)
    shares = HEALTHY.shares()
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["evaluation"] / shares["checkpoint"] == pytest.approx(4)
    assert shares["evaluation"] == pytest.approx(0.002 / 0.1185)


@pytest.mark.parametrize(
    ("change", "limit", "words"),
    [
        ({}, "step", "--compile"),
        ({"precision": "fp32"}, "step", "--precision bf16"),
        ({"device": "cpu"}, "step", "a GPU would be faster"),
        (
            {"between": seconds(0.1), "loader": 400.0},
            "loader",
            "that asks for about --workers 18, and there are 16 cores",
        ),
        ({"between": seconds(0.1), "loader": 400.0, "cores": 32}, "loader", "about --workers 18"),
        ({"between": seconds(0.15), "loader": 1000.0, "workers": 0}, "loader", "give --workers 1 or more"),
        ({"between": seconds(0.3), "loader": 4000.0, "workers": 0}, "loop", "takes 25.0 ms of 300.0 ms"),
        ({"between": seconds(0.3), "loader": 1e6}, "loop", "takes 0.1 ms of 300.0 ms"),
        ({"between": seconds(0.3), "loader": 4000.0}, "loader", "try fewer"),
        ({"update": seconds(0.2)}, "optimizer", "more processes share SOAP out"),
        ({"refresh": seconds(3.0)}, "optimizer", "refreshing less often than every 10 steps"),
        ({"update": seconds(0.2), "refresh": None}, "optimizer", "a larger --batch-size takes fewer of its steps"),
        ({"evaluation": 200.0}, "evaluation", "200 s each"),
        ({"checkpoint_every": 2}, "checkpoint", "0.50 s each"),
    ],
)
def test_what_takes_most_of_the_time_is_named(change, limit, words) -> None:
    limits = replace(HEALTHY, **change)
    assert limits.bottleneck == limit
    assert limits.ranked()[0][1] == max(limits.shares().values())
    first = limits.advice.splitlines()[0]
    assert words in first
    assert f"this run ({100 * max(limits.shares().values()):.0f} % of the time)" in first
    assert profile_text(limits).endswith(limits.advice)


@pytest.mark.parametrize(
    ("change", "others"),
    [
        ({}, []),
        ({"evaluation": 30.0}, ["besides, evaluations (20 %): 30 s each"]),
        ({"checkpoint_every": 20}, ["besides, checkpoints (17 %): 0.50 s each"]),
        ({"between": seconds(0.04), "loader": 500.0}, ["besides, the loader (25 %): alone it gives 500 images/s"]),
        ({"update": seconds(0.05)}, []),  # a third, and training needs it
        ({"update": seconds(0.1)}, ["close behind, the optimizer (48 %): a larger --batch-size"]),
        (
            {"evaluation": 95.0, "checkpoint_every": 10},
            ["close behind, evaluations (36 %)", "besides, checkpoints (19 %)"],
        ),
    ],
)
def test_what_comes_close_or_could_be_spared_is_told_beside_it(change, others) -> None:
    limits = replace(HEALTHY, **change)
    assert limits.bottleneck == "step"
    first, *rest = limits.advice.splitlines()
    assert first.startswith("forward and backward limit this run (")
    assert ("as they should" in first) == (not others)
    assert len(rest) == len(others)
    assert all(line.startswith(words) for line, words in zip(rest, others, strict=True))


def test_a_shared_optimizer_is_not_told_to_share() -> None:
    limits = replace(HEALTHY, update=seconds(0.2), processes=4)
    assert limits.bottleneck == "optimizer"
    assert "share SOAP out" not in limits.advice


def shallow(recipe, **changes):
    return recipe.with_(model=replace(recipe.model, kwargs={**recipe.model.kwargs, "depth": 1}), **changes)


def test_a_run_with_soap_is_watched_as_it_is(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = profile_run(shallow(table1("digits", "skipless", "soap")), seconds=0.2)
    assert found.optimizer_name == "SOAP"
    assert found.refresh is not None
    assert found.refresh.n >= 2
    assert found.refresh_every == 10
    assert found.update.n + found.refresh.n == found.passes.n
    assert found.passes.median > 0
    assert found.steps_per_epoch == 43
    assert found.evaluation is not None
    assert not list(tmp_path.iterdir())  # nothing is left behind


def test_accumulation_counts_whole_steps() -> None:
    found = profile_run(shallow(table1("digits", "skip", "adamw"), fit__accumulation=4), seconds=0.2)
    assert found.refresh is None
    assert found.passes.n == found.update.n


def test_dino_on_a_folder(tmp_path) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        for index in range(8):
            pixels = np.random.default_rng(index).integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / "a" / f"{index}.png")
    recipe = shallow(
        dino("scenes", "skip", "adamw", data=str(tmp_path)), fit__batch_size=4, task__out_dim=32, task__hidden_dim=16
    )
    found = profile_run(recipe, seconds=0.2)
    assert found.optimizer_name == "AdamW"
    assert found.loader > 0
    assert found.evaluation is not None
    assert found.between.n >= 2


def test_what_an_evaluation_starts_but_once_is_not_scaled_up(tmp_path, monkeypatch) -> None:
    for split, count in (("train", 8), ("val", 160)):
        (tmp_path / split / "a").mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (16, 16)).save(tmp_path / split / "a" / f"{index}.png")
    recipe = shallow(
        dino("scenes", "skip", "adamw", data=str(tmp_path)), fit__batch_size=4, task__out_dim=32, task__hidden_dim=16
    )
    seen = []

    def neighbours(data, config, pooling):
        def evaluate(model):
            seen.append((config.train, config.val))
            time.sleep(0.4 if len(seen) == 1 else 0.1)

        return evaluate

    monkeypatch.setattr("skipless.recipes.teacher_knn.teacher_neighbours", neighbours)
    found = profile_run(recipe, seconds=0.1)
    assert seen == [(8, 8), (64, 64)]
    assert 0.1 * (8 + 160) / (8 + 64) <= found.evaluation < 0.4 * (8 + 160) / (8 + 64)


def test_steps_that_take_too_long_are_said_so(monkeypatch) -> None:
    monkeypatch.setattr("skipless.planning.profiling._MAX_SECONDS", 0.001)
    with pytest.raises(InputError, match="fewer than 3 steps of 1397 images"):
        profile_run(table1("digits").with_(fit__batch_size=1397), seconds=0.001)
    with pytest.raises(InputError, match="--seconds 0"):
        profile_run(table1("digits"), seconds=0.0)
