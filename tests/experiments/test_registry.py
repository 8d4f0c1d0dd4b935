"""Adding an experiment is adding a folder and a line: a toy one, from the folder to the command line."""

import json
import textwrap
from pathlib import Path

import pytest
from reference.command import skipless

from skipless import registry
from skipless.errors import InputError

DOOR = """
    from dataclasses import dataclass
    from pathlib import Path
    from typing import Annotated, Literal

    from skipless.choices import Row
    from skipless.options import Option
    from skipless.registry import Experiment, NamedRecipe, Report, recipe_named

    @dataclass(frozen=True, kw_only=True)
    class Options:
        \"\"\"What the toy can be asked for.

        Attributes:
            scale: tiny or huge.
            colour: of the bricks,
                in a word.
            out: folder of the report.
            jobs: at a time.
        \"\"\"

        scale: Literal["tiny", "huge"] = "tiny"
        colour: str = "red"
        out: Annotated[Path | None, Option("runs/toy-SCALE", group="output")] = None
        jobs: Annotated[int | None, Option("one a core", group="machine", stated=False)] = None

    def make(options, command):
        from toy_experiment.run import build
        return build(options, command)

    def toy(row: Row = "skipless + init", *, width: int = 8, seed: int = 0):
        \"\"\"A network of bricks.

        Args:
            row: with skips or without.
            width: in bricks.
            seed: of the weights.
        \"\"\"
        base = recipe_named("table1")("digits", row, seed=seed)
        sizes = {"patch_size": 4, "embed_dim": width, "depth": 1, "num_heads": 1}
        return base.with_(name="toy", model__kwargs=sizes, fit__batch_size=128)

    EXPERIMENT = Experiment(
        recipes={"toy": NamedRecipe(toy, examples=("skipless train toy --out runs/t",))},
        reports={"bricks": Report("Bricks: how many", Options, make, ("skipless reproduce bricks",))},
    )
"""
RUN = """
    from skipless.report.write_files import write_files

    def build(options, command):
        return write_files(options.out, {"bricks.md": f"{options.colour} at {options.scale}: `{command}`"})
"""


@pytest.fixture(autouse=True)
def _toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder, and a line in the registry."""
    folder = tmp_path / "toy_experiment"
    folder.mkdir()
    (folder / "__init__.py").write_text(textwrap.dedent(DOOR))
    (folder / "run.py").write_text(textwrap.dedent(RUN))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "toy_experiment", raising=False)
    monkeypatch.setattr(registry, "EXPERIMENTS", [*registry.EXPERIMENTS, "toy_experiment"])


def test_help_lists_it_with_its_own_options_and_no_others(capsys) -> None:
    assert "Bricks: how many" in skipless(capsys, "reproduce", "--help")[1]
    assert "A network of bricks." in skipless(capsys, "train", "--help")[1]
    code, printed, _ = skipless(capsys, "reproduce", "bricks", "--help")
    assert code == 0
    told = " ".join(printed.replace("│", " ").split())
    assert "of the bricks, in a word. (default: red)" in told
    assert "(default: runs/toy-SCALE)" in told
    assert "skipless reproduce bricks" in told
    assert not {"--seeds", "--voc", "--tune", "--data"} & set(told.split())
    told = " ".join(skipless(capsys, "train", "toy", "--help")[1].replace("│", " ").split())
    assert "in bricks. (default: 8)" in told
    assert "(default: 128)" in told  # the batch size of the toy, not that of table1


def test_it_runs_from_the_command_line(capsys, tmp_path) -> None:
    out = tmp_path / "report"
    given = ("--colour", "blue", "--jobs", "3", "--out", str(out))
    code, printed, _ = skipless(capsys, "reproduce", "bricks", *given)
    assert code == 0
    assert printed.startswith(f"blue at tiny: `skipless reproduce bricks --colour blue --out {out}`")
    assert f"wrote {out / 'bricks.md'}" in printed


def test_its_recipe_trains_and_is_read_back(capsys, tmp_path) -> None:
    out = tmp_path / "run"
    given = ("--width", "12", "--skip", "--epochs", "1", "--device", "cpu", "--progress", "none", "--out", str(out))
    code, printed, told = skipless(capsys, "train", "toy", *given)
    assert (code, told) == (0, "")
    assert "10 steps" in printed
    recipe = json.loads((out / "run.json").read_text())["recipe"]
    assert (recipe["name"], recipe["model"]["kwargs"]["embed_dim"], recipe["model"]["skip"]) == ("toy", 12, True)
    assert "top1" in skipless(capsys, "eval", str(out))[1]


def test_what_is_not_its_own_is_refused(capsys, tmp_path) -> None:
    code, _, told = skipless(capsys, "reproduce", "bricks", "--seeds", "3")
    assert code == 2
    assert told.startswith("skipless: --seeds changes nothing of bricks: leave it out (--seeds is for table1, figure1,")
    code, _, told = skipless(capsys, "reproduce", "bricks", "--coluor", "red")
    assert (code, "did you mean --colour?" in told) == (2, True)
    code, _, told = skipless(capsys, "reproduce", "brick")
    assert (code, "did you mean bricks?" in told) == (2, True)
    assert skipless(capsys, "train", "toy", "--depth", "3", "--out", str(tmp_path))[0] == 2


def test_a_recipe_that_nobody_named_is_refused() -> None:
    with pytest.raises(InputError, match="no recipe 'castle'; there is table1, scenes, dino, language, toy"):
        registry.recipe_named("castle")
