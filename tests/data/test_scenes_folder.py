import colorsys
import hashlib
import os
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch

from skipless.data.dense import load_boxes
from skipless.data.scenes import compose, load_sources, write_scenes
from skipless.data.scenes.files import Files
from skipless.errors import InputError


def contents(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.parametrize("layout", ["voc", "ade20k", "coco", "imagenet"])
def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, layout: str) -> None:
    def write(name: str, seed: int) -> dict[str, str]:
        write_scenes(tmp_path / name, layout, train=10, val=10, size=32, seed=seed, objects="digits")
        return contents(tmp_path / name)

    one = write("one", 0)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert write("two", 0) == one
    other = write("three", 1)
    images = [name for name in one if name.endswith(".jpg")]
    assert not any(other.get(name) == one[name] for name in images)


def test_a_finished_folder_is_left_alone_and_an_interrupted_one_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(name: str) -> dict[str, str]:
        write_scenes(tmp_path / name, "coco", train=6, val=2, size=32, objects="digits")
        return contents(tmp_path / name)

    whole, put, calls = write("whole"), Files.put, []

    def interrupted(self: Files, path: str, encode: object) -> None:
        calls.append(path)
        if len(calls) == 20:
            raise KeyboardInterrupt
        put(self, path, encode)

    monkeypatch.setattr(Files, "put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write("broken")
    assert [entry.name for entry in (tmp_path / "broken").iterdir()] == [".scenes-partial"]
    monkeypatch.setattr(Files, "put", put)
    kept = sorted((tmp_path / "broken").rglob("*.jpg"))[0]
    before = kept.stat().st_ino
    assert write("broken") == whole
    assert sorted((tmp_path / "broken").rglob("*.jpg"))[0].stat().st_ino == before  # not written again
    monkeypatch.setattr(Files, "put", interrupted)
    calls.clear()
    assert write("whole") == whole
    assert calls == []


def test_an_interrupted_move_is_taken_up(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_scenes(out, "voc", train=2, val=1, size=32, objects="digits")
    whole = contents(out)
    (out / ".scenes-partial").mkdir()
    os.replace(out / "scenes.json", out / ".scenes-partial" / "scenes.json")
    write_scenes(out, "voc", train=2, val=1, size=32, objects="digits")
    assert contents(out) == whole


def test_foreign_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").touch()
    with pytest.raises(InputError, match="thesis' is not empty and holds no scenes; give a new folder"):
        write_scenes(tmp_path / "thesis")
    with pytest.raises(InputError, match="chapter1.tex' is a file"):
        write_scenes(tmp_path / "thesis" / "chapter1.tex")
    (tmp_path / "empty").mkdir()
    report = write_scenes(tmp_path / "empty", train=1, val=1, size=32, objects="digits")
    assert (report.layout, report.objects, report.classes["9"]) == ("voc", "digits", "tvmonitor")
    with pytest.raises(InputError, match="holds other scenes .size 32, not 64.; remove it or give another folder"):
        write_scenes(tmp_path / "empty", train=1, val=1, size=64, objects="digits")
    (tmp_path / "empty" / "scenes.json").write_text("{")
    with pytest.raises(InputError, match=r"scenes.json' is corrupt"):
        write_scenes(tmp_path / "empty", train=1, val=1, size=32, objects="digits")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layout": "cityscapes"}, "no layout 'cityscapes'; give voc, ade20k, coco, imagenet"),
        ({"shapes": "round"}, "no shapes 'round'; give square, mixed"),
        ({"objects": "cifar"}, "no objects 'cifar'; give fashion, digits or auto"),
        ({"train": 0}, "0 training and 250 validation scenes make no set"),
        ({"layout": "imagenet", "val": 9}, "9 scenes leave some of the 10 classes empty"),
        ({"size": 8}, "scenes of 8 pixels cannot be drawn; give a size from 32 to 1024"),
    ],
)
def test_bad_arguments_name_the_remedy(unchecked: None, tmp_path: Path, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_scenes(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match=r"cannot write scenes to .*No space left.*goes on where it was"):
        write_scenes(tmp_path / "out", train=1, val=1, size=32, objects="digits")
    monkeypatch.undo()
    write_scenes(tmp_path / "out", train=1, val=1, size=32, objects="digits")
    assert (tmp_path / "out" / "scenes.json").is_file()
    assert not list((tmp_path / "out").rglob(".*"))  # nothing temporary is left


def test_scenes_of_one_object(tmp_path) -> None:
    write_scenes(tmp_path / "one", "voc", train=8, val=1, size=64, objects="digits", at_most=1)
    data = load_boxes("voc12", tmp_path / "one")
    assert all(len(data.load_objects(index)) == 1 for index in range(len(data)))
    with pytest.raises(InputError, match="at least 1 object"):
        write_scenes(tmp_path / "none", "voc", at_most=0)


def test_objects_are_of_the_sizes_asked_for(tmp_path: Path) -> None:
    write_scenes(
        tmp_path / "large", "voc", train=6, val=1, size=64, objects="digits", at_most=1, smallest=0.7, largest=0.8
    )
    longer = []
    for file in sorted((tmp_path / "large/VOCdevkit/VOC2012/Annotations").glob("*.xml")):
        for shown in ET.parse(file).getroot().iter("object"):
            box = [int(shown.findtext(f"bndbox/{side}") or 0) for side in ("xmin", "ymin", "xmax", "ymax")]
            if shown.findtext("truncated") == "0":
                longer.append(max(box[2] - box[0], box[3] - box[1]) + 1)
    assert longer
    assert min(longer) >= 0.6 * 64
    with pytest.raises(InputError, match="smallest"):
        write_scenes(tmp_path / "none", "voc", smallest=0.8, largest=0.7)


def test_each_class_may_have_a_hue_of_its_own() -> None:
    sources, _ = load_sources("digits")
    hues = {label: [] for label in (0, 5)}
    for label, found in hues.items():
        for index in range(8):
            scene = compose(sources["train"], "train", index, size=48, seed=0, main=label, at_most=1, colours="class")
            red, green, blue = scene.image[scene.objects[0].mask].mean(0) / 255
            found.append(colorsys.rgb_to_hsv(red, green, blue)[0])
    around = [min(hue, 1 - hue) for hue in hues[0]]
    assert max(around) < 0.06
    assert all(abs(hue - 0.5) < 0.06 for hue in hues[5])
