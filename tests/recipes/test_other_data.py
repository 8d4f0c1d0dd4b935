"""A scale and a data set that were not made for each other: what is refused, what is told, what goes on."""

import json
import shutil

import pytest
from reference.command import skipless
from reference.tiny_images import images

from skipless.data.scenes import write_scenes
from skipless.data.shards import write_shards
from skipless.errors import InputError
from skipless.experiments.dense.recipe import dino
from skipless.experiments.dense.remarks import remarks as dino_remarks
from skipless.experiments.supervised.recipe import table1
from skipless.experiments.supervised.remarks import remarks
from skipless.experiments.supervised.scenes import scenes
from skipless.recipes import ModelConfig

SMALL = ("--epochs", "1", "--batch-size", "512", "--progress", "none", "--device", "cpu")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("train", "table1", "--scale", "fashion", "--data", "digits"), "8 pixels, of which patches of 7"),
        (("train", "table1", "--scale", "paper", "--data", "digits"), "smaller than a patch of 16"),
        (("reproduce", "token-graying", "--scale", "fashion", "--data", "digits"), "8 pixels, of which patches of 7"),
        (("reproduce", "assumptions", "--scale", "fashion", "--data", "digits", "--jobs", "1"), "patches of 7"),
        (("doctor", "table1", "--scale", "fashion", "--data", "digits", "--seconds", "1"), "patches of 7"),
    ],
    ids=" ".join,
)
def test_images_that_a_model_does_not_see_whole_are_refused(capsys, tmp_path, words, told: str) -> None:
    out = () if words[0] == "doctor" else ("--out", str(tmp_path / "out"))
    code, printed, complaint = skipless(capsys, *words, *out)
    assert (code, printed) == (2, "")
    assert told in complaint.splitlines()[-1]


@pytest.mark.parametrize(
    ("config", "size", "refused"),
    [
        (ModelConfig("vit_base_patch16_224"), 224, False),
        (ModelConfig("vit_base_patch16_224"), 28, True),
        (ModelConfig("vit_small_patch14_dinov2"), 224, False),
        (ModelConfig("vit_small_patch14_dinov2"), 225, True),
        (ModelConfig("vit_tiny_patch16_224", kwargs={"patch_size": 7}), 8, True),
        (ModelConfig("vit_tiny_patch16_224", kwargs={"patch_size": 7, "dynamic_img_pad": True}), 8, False),
        (ModelConfig("vit_tiny_patch16_224", kwargs={"patch_size": 7, "img_size": 7}), 8, False),
        (ModelConfig("vit_tiny_patch16_224", kwargs={"patch_size": 7}, library="other"), 8, False),
        (ModelConfig("vit_without_a_size"), 17, False),
    ],
)
def test_pixels_that_no_patch_covers(config: ModelConfig, size: int, refused: bool) -> None:
    if refused:
        with pytest.raises(InputError, match="never see the last"):
            config.check_covers(size, "photos/")
    else:
        config.check_covers(size, "photos/")


def test_a_run_of_before_goes_on(tmp_path, monkeypatch) -> None:
    recipe = table1("fashion", "skip", "adamw", data="digits").with_(
        fit__epochs=1, fit__batch_size=512, fit__progress="none", fit__checkpoint_every=1, fit__device="cpu"
    )
    with monkeypatch.context() as patch:  # as it was made before
        patch.setattr(ModelConfig, "check_covers", lambda *_: None)
        whole = recipe.run(tmp_path / "whole")
    (tmp_path / "whole/result.json").unlink()
    assert recipe.run(tmp_path / "whole").metrics == whole.metrics
    with pytest.raises(InputError, match="patches of 7"):
        recipe.run(tmp_path / "new")


def test_its_own_data_is_trained_without_a_word(capsys, tmp_path) -> None:
    words = ("train", "table1", "--scale", "digits", "--skip", "--optimizer", "adamw", *SMALL)
    code, _, told = skipless(capsys, *words, "--out", str(tmp_path / "r"))
    assert (code, "note:" in told) == (0, False)


def test_what_is_told_of_each_scale(tmp_path) -> None:
    write_scenes(tmp_path / "scenes", "imagenet", train=10, val=10, size=32, objects="digits")
    photos = str(images(tmp_path / "photos"))
    made = str(tmp_path / "scenes")
    assert remarks(table1("digits")) == remarks(table1("fashion")) == remarks(table1("paper", data=photos)) == []
    assert remarks(scenes(data=made)) == []
    (other,) = remarks(table1("digits", data="fashion"))
    assert "scale 'digits' is made for 'digits'" in other
    assert "images have 28 pixels and 197 tokens, not 8 and 17" in other
    (folder,) = remarks(table1("fashion", data=photos))
    assert "224 pixels and 1025 tokens, not 28 and 17" in folder
    (sized,) = remarks(table1("digits", data=photos).with_(data__image_size=8))
    assert "8 pixels and 17 tokens, not 8 and 17" in sized
    assert "`skipless train scenes` is made for them" in remarks(table1("paper", data=made))[0]
    assert "holds none" in remarks(scenes(data=photos))[0]
    assert dino_remarks(dino("scenes", data=made)) == dino_remarks(dino("vit_small", data=photos)) == []
    assert "--scale scenes is made for them" in dino_remarks(dino("vit_small", data=made))[0]
    assert "holds none" in dino_remarks(dino("scenes", data=photos))[0]


def test_fashion_in_a_folder_is_its_own(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("skipless.data.builtin.find_fashion", lambda folder: folder)
    assert remarks(table1("fashion", data=str(tmp_path))) == []


def test_the_command_tells_it_once(capsys, tmp_path) -> None:
    photos = images(tmp_path / "photos")
    words = ("train", "scenes", "--data", str(photos), "--skip", "--optimizer", "adamw", "--epochs", "1")
    words += ("--batch-size", "4", "--progress", "none", "--device", "cpu", "--workers", "0")
    for note in (True, False):  # of a finished run there is nothing to tell any more
        code, printed, told = skipless(capsys, *words, "--out", str(tmp_path / "r"))
        assert code == 0, told
        assert told.count("note: `scenes` is made for generated scenes") == note
        assert ("already finished" in printed) != note


@pytest.mark.parametrize("numbers_first", [True, False])
def test_classes_that_were_numbers_name_the_file_to_move(tmp_path, numbers_first: bool) -> None:
    """A run on shards whose classes.txt was not read: it could not go on, and the remedy was not said."""
    write_shards(images(tmp_path / "photos"), tmp_path / "shards")
    file = tmp_path / "shards/classes.txt"
    kept = file.rename(tmp_path / "kept.txt")
    if not numbers_first:
        shutil.copy(kept, file)
    recipe = scenes("skip", "adamw", data=str(tmp_path / "shards")).with_(
        fit__epochs=1, fit__batch_size=4, fit__progress="none", fit__device="cpu", fit__workers=0
    )
    recipe.run(tmp_path / "run")
    (tmp_path / "run/result.json").unlink()
    shutil.copy(kept, file) if numbers_first else file.unlink()
    with pytest.raises(InputError) as refused:
        recipe.run(tmp_path / "run")
    assert str(file) in str(refused.value)
    assert ("move that file away" if numbers_first else "put it back") in str(refused.value)
    file.unlink() if numbers_first else shutil.copy(kept, file)  # exactly that
    assert recipe.run(tmp_path / "run").steps


def test_other_classes_are_still_refused_as_before(tmp_path) -> None:
    recipe = table1("digits", "skip", "adamw").with_(fit__epochs=1, fit__batch_size=512, fit__progress="none")
    recipe.run(tmp_path / "run")
    record = json.loads((tmp_path / "run/run.json").read_text())
    record["classes"] = ["a", "b"]
    (tmp_path / "run/run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="give another --out, or the data of before"):
        recipe.run(tmp_path / "run")
