"""A run folder whose JSON files parse but hold something else: one line that names the file, never a traceback."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from skipless import cli
from skipless.errors import InputError
from skipless.recipes import read_recipe, table1
from skipless.report.run_records import read_run
from skipless.training.run_folder.fingerprint import differences


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "r1"
    sizes = {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 1}
    table1("digits").with_(fit__epochs=1, fit__progress="none", model__kwargs=sizes).run(folder)
    return folder


def repeated(folder: Path) -> None:
    read_recipe(folder).run(folder)


@pytest.mark.parametrize("held", [[], 3, "x"])
@pytest.mark.parametrize("name", ["run.json", "result.json"])
def test_what_is_no_object_is_named(finished, tmp_path, name, held) -> None:
    recipe = read_recipe(finished)
    folder = shutil.copytree(finished, tmp_path / "run")
    (folder / name).write_text(json.dumps(held))
    with pytest.raises(InputError, match=rf"{name}.* holds {type(held).__name__}, not an object"):
        recipe.run(folder)


@pytest.mark.parametrize("held", [{}, {"evaluation": 3}, {"diverged": False, "steps": 2}])
def test_a_result_that_lacks_values_says_which(finished, tmp_path, held) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    (folder / "result.json").write_text(json.dumps(held))
    with pytest.raises(InputError, match=r"result.json in .* is damaged: it lacks .*seconds"):
        repeated(folder)
    (folder / "result.json").unlink()
    repeated(folder)
    assert read_run(folder).steps > 0


@pytest.mark.parametrize("change", [{"recipe": {}}, {"recipe": []}, {"fit": 3}, {"samples": None}])
def test_a_record_that_lacks_values_is_no_other_recipe(finished, tmp_path, change) -> None:
    recipe, folder = read_recipe(finished), shutil.copytree(finished, tmp_path / "run")
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, **change}))
    with pytest.raises(InputError, match=rf"run.json in .* is damaged: '{next(iter(change))}' is ") as caught:
        recipe.run(folder)
    assert len(str(caught.value)) < 400


def test_another_recipe_is_told_once_and_shortly(finished) -> None:
    with pytest.raises(InputError) as caught:
        read_recipe(finished).with_(fit__epochs=2).run(finished)
    assert str(caught.value).count("epochs was 1, now 2") == 1
    assert len(differences({"a": list(range(1000))}, {"a": 1})[0]) < 150


def test_folders_are_given_as_text_too(finished, tmp_path) -> None:
    assert read_recipe(str(finished)) == read_recipe(finished)
    assert read_run(str(finished)).steps == read_run(finished).steps
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="is no run folder of `skipless train`: it has no run.json"):
            read_run(folder)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["eval", "{runs}/r11", "knn"], "there is no run at '{runs}/r11'; did you mean {runs}/r1?"),
        (["eval", "{runs}", "knn"], "it holds runs: name one, {runs}/r1"),
        (["measure", "{runs}"], "it holds runs: name one, {runs}/r1"),
        (["measure", "resnet18"], "no adapter for `ResNet`; supported: timm's plain VisionTransformer"),
    ],
)
def test_what_is_no_run_gets_the_remedy(finished, words, said, capsys) -> None:
    with pytest.raises(SystemExit):
        cli.main([word.format(runs=finished.parent) for word in words])
    assert said.format(runs=finished.parent) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("train", "the same command goes on from the last checkpoint, if there is one"),
        ("eval", "goes on with the features and results that are kept"),
        ("init", "skipless: interrupted\n"),
        ("measure", "skipless: interrupted\n"),
    ],
)
def test_an_interrupted_command_says_what_is_kept(verb, said, monkeypatch, capsys) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["skipless.cli.main"], "_run", interrupt)
    with pytest.raises(SystemExit) as caught:
        cli.main([verb])
    assert caught.value.code == 130
    assert said in capsys.readouterr().err
