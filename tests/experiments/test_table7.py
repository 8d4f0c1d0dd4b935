"""Table 7: its recipes, its files, and that it goes on where it was cut off."""

import json
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from reference.tiny_language import write_lines
from reference.zero_shot import write_copies

from skipless.errors import InputError
from skipless.evaluators.language import text_floors
from skipless.evaluators.language.zero_shot.tasks import ZERO_SHOT_TASKS
from skipless.experiments.language import Options, run
from skipless.experiments.language.paper import PAPER_TABLE7, QUESTIONS
from skipless.experiments.language.recipe import READINGS, LanguageCell, language, table7_recipe
from skipless.experiments.language.report import LanguageRuns
from skipless.experiments.language.run import reproduce_table7
from skipless.experiments.language.scales import LANGUAGE_ROWS
from skipless.recipes.language import LanguageRecipe
from skipless.report.run_records import Run

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Models of one narrow block, on a hundred sentences."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def recipe(scale, cell, **asked) -> LanguageRecipe:
        made = table7_recipe(scale, cell, **asked)
        sizes = {"hidden_size": 16, "intermediate_size": 48, "num_hidden_layers": 1}
        return made.with_(
            model__kwargs={**made.model.kwargs, **sizes},
            data__context=16, data__documents="line", data__validation=0.3, fit__batch_size=4, held_out=600,
        )  # fmt: skip

    monkeypatch.setattr(run, "table7_recipe", recipe)
    return write_lines(tmp_path / "data", 200)


def asked(data: Path, **options) -> Options:
    short = {"rows": ("skip", "skipless + ours"), "optimizers": ("adamw",), "steps": 4, "jobs": 1}
    return Options(data=str(data), tokenizer="bytes", **{**short, **options})


@pytest.mark.parametrize("row", LANGUAGE_ROWS)
@pytest.mark.parametrize("optimizer", ["adamw", "soap"])
def test_a_cell_is_what_the_command_trains(row, optimizer) -> None:
    cell = LanguageCell(row, optimizer)
    recipe = table7_recipe("tiny", cell, seed=3, steps=7, tokenizer="bytes")
    assert (recipe.fit.seed, recipe.fit.steps, recipe.data.tokenizer) == (3, 7, "bytes")
    assert recipe.optimizer.name == optimizer
    assert recipe.model.skip == (row == "skip")
    if row.startswith("skipless + init"):
        assert recipe.model.init == READINGS[cell.reading]
        named = language("tiny", "skipless + init", optimizer, reading=cell.reading, seed=3)
        assert recipe == named.with_(fit__steps=7, data__tokenizer="bytes")


def test_slugs_are_folders_of_their_own() -> None:
    slugs = [LanguageCell(row, name).slug for row in LANGUAGE_ROWS for name in ("adamw", "soap")]
    assert len(set(slugs)) == len(slugs)
    assert not set("".join(slugs)) & set(" ,+/")


def test_the_paper_averages_as_it_prints() -> None:
    averages = {row: round(statistics.fmean(values.values()), 1) for row, values in PAPER_TABLE7.items()}
    assert averages == {"skip": 47.7, "skipless + init": 48.2}
    assert all(values.keys() == QUESTIONS.keys() == ZERO_SHOT_TASKS.keys() for values in PAPER_TABLE7.values())


def test_the_report_is_of_its_runs_and_is_made_again_from_what_is_there(tmp_path: Path, small: Path) -> None:
    options = asked(small, rows=("skipless + ours",), seeds=2)
    written = reproduce_table7(options, tmp_path / "out", command="skipless reproduce table7")
    assert {"table7.md", "table7.json", "table7.html", "index.html", "table7-loss.png"} <= written.keys()
    found = json.loads(written["table7.json"].read_text())
    text = (tmp_path / "out/table7.md").read_text()
    for cell in found["cells"]:
        slug = LanguageCell(cell["row"], cell["optimizer"]).slug
        results = [json.loads((tmp_path / f"out/runs/{slug}-seed{seed}/result.json").read_text()) for seed in range(2)]
        assert cell["bits_per_byte"] == [result["bits_per_byte"] for result in results]
        losses = [result["loss"] for result in results]
        assert losses[0] != losses[1]
        said = f"{statistics.fmean(losses):.3f} ± {statistics.stdev(losses):.3f} (n 2, "
        assert said in text
        assert cell["held_out_through_training"][-1] == [4, losses[0]]
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/runs/*/*.*[!k]")}  # locks are touched
    again = reproduce_table7(options, tmp_path / "out", command="skipless reproduce table7")
    assert json.loads(again["table7.json"].read_text()) == found
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}


def test_floors_are_of_the_text_that_is_scored(tmp_path: Path, small: Path) -> None:
    written = reproduce_table7(asked(small, rows=("skip",)), tmp_path / "out")
    recipe = run.table7_recipe("tiny", LanguageCell("skip", "adamw"), data=str(small), tokenizer="bytes")
    text = recipe.load().text
    assert text is not None
    floors = text_floors(text.train, text.val, vocabulary=257, held_out=600)
    assert json.loads(written["table7.json"].read_text())["floors"]["bigram"] == floors.bigram
    scored = json.loads((tmp_path / "out/runs/skip-adamw-seed0/result.json").read_text())
    assert scored["n"] == floors.tokens < text.val.tokens - 1


@pytest.mark.slow
def test_rates_are_tuned_on_text_that_is_in_no_number(tmp_path: Path, small: Path, capsys) -> None:
    written = reproduce_table7(asked(small, rows=("skip",), tune=True), tmp_path / "out")
    assert "Every cell&#x27;s learning rate is the best of three" in written["table7.html"].read_text()
    tuning = json.loads((tmp_path / "out/tuning.json").read_text())[0]["bits_per_byte"]
    assert len(tuning) == 3
    best = min(tuning, key=tuning.__getitem__)
    made = json.loads((tmp_path / "out/runs/skip-adamw-seed0/run.json").read_text())["recipe"]
    assert made["optimizer"]["lr"] == float(best)
    assert "held_out_after" not in made
    one = json.loads(next(tmp_path.glob("out/tuning/*/run.json")).read_text())["recipe"]
    assert (one["held_out"], one["held_out_after"]) == (600, 600)
    everything = asked(small, tune=True)
    with pytest.raises(InputError, match="--tune needs held-out text that the table does not take"):
        run._on_other_text(*_whole(everything))


def _whole(options: Options):
    recipe = run.table7_recipe("tiny", LanguageCell("skip", "adamw"), data=options.data, tokenizer="bytes")
    recipe = recipe.with_(held_out=10**6)
    text = recipe.load().text
    assert text is not None
    return text, recipe


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "--seeds 0: give at least 1"),
        ({"rows": ()}, "give at least one of each"),
        ({"rows": ("skipp",)}, "no row 'skipp'; did you mean skip"),
        ({"tasks": ("boolq,piqa",)}, "no task 'boolq,piqa'"),
        ({"data_dir": Path("tasks")}, "--data-dir changes nothing of table7 without --tasks"),
        ({"scale": "paper"}, "language at scale 'paper' needs --data"),
        ({"scale": "paper", "data": "c4"}, "table7 at scale 'paper' needs --tokenizer"),
        ({"scale": "paper", "data": "c4", "tune": True}, "it is for scale 'tiny'"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict, message: str, tmp_path: Path, unchecked) -> None:
    with pytest.raises(InputError, match=message):
        reproduce_table7(Options(**options), tmp_path)


def test_the_papers_scale_says_what_to_run(tmp_path: Path) -> None:
    rows = ("skip", "skipless", "skipless + init", "skipless + init, sharp", "skipless + ours")
    options = Options(scale="paper", data="c4/*.json.gz", tokenizer="t.json", rows=rows, optimizers=("adamw",))
    with pytest.raises(InputError) as told:
        reproduce_table7(options, tmp_path)
    head, *commands = str(told.value).splitlines()
    assert head.startswith("5 language models of 109.5 M parameters are not finished")
    for row, command in zip(rows, commands, strict=True):
        assert "torchrun --nproc-per-node 8 -m skipless train language --scale paper" in command
        assert "--tokenizer t.json --steps 20480" in command
        assert ("--ours" in command) == (row == "skipless + ours")
        assert ("--reading sharp" in command) == row.endswith("sharp")
        assert ("--skip" in command) == (row == "skip")
        assert ("--init" in command) == (row not in ("skip", "skipless"))


def test_runs_of_the_papers_scale_may_have_rates_of_their_own(tmp_path: Path) -> None:
    cell = LanguageCell("skip", "adamw")
    recipe = table7_recipe("paper", cell, data="c4", tokenizer="t.json")
    for lr, seed in ((3e-4, 0), (6e-4, 1)):
        folder = tmp_path / str(seed)
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps({"recipe": recipe.with_(optimizer__lr=lr).as_json()}))
        (folder / "result.json").write_text("{}")
    asked = Options(scale="paper", data="c4", tokenizer="t.json")
    run._require_finished(asked, {cell: (tmp_path / "0",)})
    with pytest.raises(InputError, match="steps"):
        run._require_finished(replace(asked, steps=10), {cell: (tmp_path / "0",)})
    run_of = {"top1": None, "steps": 1, "seconds": 1.0, "diverged": False, "reason": "", "record": {}}
    empty = np.zeros(0)
    runs = tuple(
        Run(folder=tmp_path / str(seed), seed=seed, learning_rate=lr, epoch=empty, loss=empty, **run_of)
        for lr, seed in ((3e-4, 0), (6e-4, 1))
    )
    with pytest.raises(InputError, match="the runs of skip, adamw have 2 learning rates"):
        LanguageRuns(cell, runs)


def _hear_interrupts() -> None:
    """A process that a shell has put into the background ignores them, and so do those that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_a_killed_report_goes_on_and_ends_with_the_same_bits(tmp_path: Path) -> None:
    def command(out: Path) -> list[str]:
        words = ["reproduce", "table7", "--rows", "skipless + ours", "--optimizers", "soap", "--steps", "120"]
        words += ["--data", "pydoc", "--tokenizer", "bytes", "--jobs", "1", "--out", str(out)]
        return [sys.executable, "-m", "skipless", *words]

    subprocess.run(command(tmp_path / "whole"), check=True, capture_output=True)
    cut = subprocess.Popen(
        command(tmp_path / "cut"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=_hear_interrupts,  # noqa: PLW1509  no thread of this process holds a lock then
    )
    folder = tmp_path / "cut/runs/skipless-ours-soap-seed0"
    log = folder / "metrics.jsonl"
    while not (log.is_file() and log.stat().st_size):
        time.sleep(0.05)
    cut.send_signal(signal.SIGINT)
    assert cut.wait(timeout=120) != 0
    assert not (folder / "result.json").exists()
    assert (folder / "checkpoint.safetensors").is_file()
    subprocess.run(command(tmp_path / "cut"), check=True, capture_output=True)
    whole, cut_off = (json.loads((tmp_path / name / "table7.json").read_text()) for name in ("whole", "cut"))
    assert whole == cut_off


def test_tokens_are_shown_before_training_and_after(tmp_path: Path, small: Path) -> None:
    written = reproduce_table7(asked(small, rows=("skipless + ours",)), tmp_path / "out")
    assert "table7-tokens.png" in written
    tokens = json.loads(written["table7.json"].read_text())["cells"][0]["tokens"]
    assert tokens.keys() == {f"{what}_{when}" for what in ("cosine", "diagonal") for when in ("untrained", "trained")}
    assert all(len(values) == 1 for values in tokens.values())
    assert tokens["diagonal_untrained"][0] > 0.7  # 0.95 on normal tokens, which 16 bytes are not
    assert "| skipless + ours | AdamW | 0." in (tmp_path / "out/table7.md").read_text()


@pytest.mark.slow
def test_zero_shot_accuracies_stand_beside_the_papers(tmp_path: Path, small: Path, monkeypatch) -> None:
    made = run.table7_recipe  # answers do not fit into windows of 16 bytes
    monkeypatch.setattr(run, "table7_recipe", lambda *given, **asked: made(*given, **asked).with_(data__context=256))
    data = write_copies(tmp_path / "tasks")
    options = asked(small, rows=("skip",), tasks=("boolq", "piqa"), data_dir=data)
    written = reproduce_table7(options, tmp_path / "out")
    scores = json.loads(written["table7.json"].read_text())["cells"][0]["zero_shot"]
    assert scores.keys() == {"boolq", "piqa"}
    text = written["table7.md"].read_text()
    shown = [f"{scores[task]['accuracy']:.1f} ± {scores[task]['error']:.1f}" for task in ("boolq", "piqa")]
    assert f"| skip, AdamW | {' | '.join(shown)} |" in text
    assert "paper: skipless + init" in text
