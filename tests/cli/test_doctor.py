"""`skipless doctor`: with a recipe, what limits its run."""

import pytest
from reference.command import skipless


def test_without_a_recipe_it_says_what_there_is(capsys) -> None:
    code, printed, _ = skipless(capsys, "doctor")
    assert code == 0
    assert "torch" in printed
    assert "cores" in printed


@pytest.mark.slow
def test_a_real_run_is_broken_down(capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, printed, complaint = skipless(capsys, "doctor", "table1", "--scale", "digits", "--seconds", "0.5")
    assert code == 0, complaint
    for words in ("loader alone", "between steps", "forward and backward", "with a refresh", "evaluation", "every 10"):
        assert words in printed
    assert not list(tmp_path.iterdir())


def test_flags_reach_the_recipe(capsys, monkeypatch) -> None:
    seen = []

    def profile_run(recipe, *, seconds):
        seen.append((recipe, seconds))
        return "watched"

    monkeypatch.setattr("skipless.planning.profiling.profile_run", profile_run)
    monkeypatch.setattr("skipless.planning.bottlenecks.profile_text", str)
    flags = ("--optimizer", "adamw", "--batch-size", "64", "--workers", "3", "--skip", "--seconds", "2")
    code, printed, _ = skipless(capsys, "doctor", "table1", "--data", "fashion", *flags)
    assert (code, printed) == (0, "watched\n")
    [(recipe, seconds)] = seen
    assert (recipe.scale, recipe.optimizer.name, recipe.fit.batch_size, recipe.fit.workers) == (
        "fashion", "adamw", 64, 3,
    )  # fmt: skip
    assert recipe.model.skip
    assert seconds == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--scale", "digits"], "--scale: of which recipe?"),
        (["table1", "--seconds", "0"], "--seconds 0"),
        (["table1", "--threads", "0"], "--threads 0"),
        (["table1", "--scale", "paper"], "needs ImageNet-1k"),
        (["table1", "--data", "/nowhere"], "no data '/nowhere'"),
        (["dino", "--data", "/nowhere"], "no folder '/nowhere'"),
        (["table1", "--device", "cuda"], "no device 'cuda'"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(capsys, arguments, words) -> None:
    code, printed, complaint = skipless(capsys, "doctor", *arguments)
    assert code == 2
    assert words in complaint
    assert complaint.startswith("skipless: ")
    assert complaint.count("\n") == 1
    assert not printed
