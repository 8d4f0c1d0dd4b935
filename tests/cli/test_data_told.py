"""`skipless data`: what was there before, what borrowed names stand for, and which sets could not be shown."""

from pathlib import Path

import pytest
from PIL import Image
from reference.command import skipless

from skipless.data.dense import preview
from skipless.data.scenes import read_scenes, write_scenes
from skipless.errors import InputError


def scenes(out: Path, *more: str) -> tuple[str, ...]:
    return ("data", "scenes", "--train", "10", "--val", "10", "--size", "32", "--out", str(out), *more)


def test_a_finished_folder_is_told_from_a_new_one(capsys, tmp_path) -> None:
    command = scenes(tmp_path / "s", "--objects", "digits")
    (code, first, _), (again, second, _) = skipless(capsys, *command), skipless(capsys, *command)
    assert (code, again) == (0, 0)
    assert "already there" not in first
    assert f"{tmp_path / 's'}: already there: 10 training and 10 validation scenes" in second


@pytest.mark.parametrize(("layout", "five"), [("voc", "chair"), ("ade20k", "bottle"), ("coco", "sports ball")])
def test_borrowed_names_are_explained(capsys, tmp_path, monkeypatch, layout: str, five: str) -> None:
    said = {}

    def captioned(rows, **texts):
        said.update(texts)
        return Image.new("RGB", (8, 8))

    code, told, _ = skipless(capsys, *scenes(tmp_path / "s", "--objects", "digits", "--layout", layout))
    assert code == 0
    assert f"{five} is digit 5" in told
    monkeypatch.setattr(preview, "captioned_grid", captioned)
    sheet = ("data", "sheet", "--data", str(tmp_path / "s"), "--images", "10", "--out", str(tmp_path / "sheet.png"))
    code, told, _ = skipless(capsys, *sheet)
    assert code == 0
    assert f"{five} is digit 5" in told
    assert said["note"].startswith("Generated scenes")
    assert f"{five}: digit 5" in [name for name, _ in said["legend"]]


def test_classes_of_their_own_name_need_no_word(capsys, tmp_path) -> None:
    code, told, _ = skipless(capsys, *scenes(tmp_path / "s", "--objects", "digits", "--layout", "imagenet"))
    assert (code, "borrowed" in told) == (0, False)


def test_what_a_folder_of_scenes_holds_can_be_asked(tmp_path) -> None:
    made = write_scenes(tmp_path / "s", train=2, val=2, size=32, objects="digits")
    assert read_scenes(tmp_path / "s") == made
    assert read_scenes(tmp_path) is None
    (tmp_path / "s/scenes.json").write_text('{"layout": "voc", "sorts": 1}')
    with pytest.raises(InputError, match="is of another version"):
        read_scenes(tmp_path / "s")


def test_sets_that_are_passed_over_are_named_with_the_reason(capsys, tmp_path) -> None:
    """Their files lie there and are wrong; it was passed over without a word."""
    write_scenes(tmp_path / "s", train=2, val=2, size=32, objects="digits")
    (broken,) = (tmp_path / "s").rglob("ImageSets/Main/trainval.txt")
    broken.write_text("")
    sheet = ("data", "sheet", "--data", str(tmp_path / "s"), "--out", str(tmp_path / "sheet.png"))
    code, told, _ = skipless(capsys, *sheet)
    assert code == 0
    assert "drawn: masks of VOC2012\n" in told
    assert "! passed over: voc12: " in told
    assert "trainval.txt" in told
    for listing in (tmp_path / "s").rglob("ImageSets/Segmentation/*.txt"):
        listing.write_text("")
    code, _, complaint = skipless(capsys, *sheet)
    assert (code, complaint.count("\n")) == (2, 1)
    for words in ("has none of", "voc: ", "voc12: ", "train.txt"):
        assert words in complaint
