"""The page of each study: whole, by itself, beside files that stay as they were."""

import json
import re
from html import unescape
from pathlib import Path

import pytest
import timm
import torch

from skipless.data import ImageConfig, load_images
from skipless.data.dense import load_boxes, load_segmentation
from skipless.data.scenes import write_scenes
from skipless.errors import InputError
from skipless.report.found_study import FoundStudy, found_study
from skipless.studies import (
    ClassifierConfig,
    DiscoveryConfig,
    NeighbourConfig,
    PictureConfig,
    ProbeConfig,
    classify,
    discover,
    draw_features,
    find_pictures,
    nearest_neighbours,
    segment,
)
from skipless.studies.origin import Origin

COMMAND = "skipless eval 'runs/a b' study --data 'x<y>'"
NAME = "tiny <b>, untrained"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, "voc", train=4, val=3, size=32, objects="digits")
    return root


def vit(channels: int, size: int, patch: int):
    torch.manual_seed(0)
    sizes = {"embed_dim": 16, "depth": 2, "num_heads": 2, "dynamic_img_size": True}
    return timm.create_model("vit_tiny_patch16_224", img_size=size, patch_size=patch, in_chans=channels, **sizes)


def run_study(study: str, scenes: Path, out: Path, origin: Origin) -> Path:
    """The folder of a study that has been run."""
    told = {"out": out, "name": NAME, "progress": False, "origin": origin}
    if study in ("knn", "linear-classifier"):
        digits, model = load_images(ImageConfig("digits")), vit(1, 8, 4)
        if study == "knn":
            nearest_neighbours(model, digits, NeighbourConfig(ks=(3,)), data_name="digits", **told)
        else:
            classify(model, digits, ClassifierConfig(epochs=1), data_name="digits", **told)
    elif study == "linear-probe":
        train, val = (load_segmentation("voc", scenes, split) for split in ("train", "val"))
        segment(vit(3, 32, 8), train, val, ProbeConfig(protocol="patch", size=32, epochs=1), examples=2, **told)
    elif study == "pca":
        draw_features({NAME: (vit(3, 32, 8), None)}, find_pictures(scenes, 2), PictureConfig(), out=out, origin=origin)
    else:
        config = DiscoveryConfig(method=study, kinds=("k",))  # pyright: ignore[reportArgumentType]
        discover(vit(3, 32, 8), load_boxes("voc12", scenes), config, examples=2, **told)
    (folder,) = out.glob(f"{study}-*")
    return folder


@pytest.mark.parametrize("study", ["linear-probe", "tokencut", "lost", "knn", "linear-classifier", "pca"])
def test_a_study_has_a_page_that_says_what_it_is_and_how_it_was_made(scenes, tmp_path, study) -> None:
    folder = run_study(study, scenes, tmp_path, Origin("untrained", COMMAND))
    page = (folder / "index.html").read_text(encoding="utf-8")
    text = unescape(re.sub(r"<[^>]*>", " ", page))
    assert COMMAND in text
    assert "n = 1" in text
    assert "not trained" in text
    assert NAME in text
    assert "<b>, untrained" not in page
    for part in ("Numbers", "How far to trust this", "Every setting", "Made with", "Versions", "Hardware", "Commit"):
        assert part in text
    assert page.count("<table") >= 1
    assert page.count('class="scroll"') == page.count("<table")
    assert "<svg" in page or "data:image/png" in page
    for link in re.findall(r' href="([^"#]+)"', page):
        assert link.startswith("https://arxiv.org/") or (folder / link).is_file()
    for file in ("result.json", "table.md"):
        assert f'href="{file}"' in page
    assert not re.search(r'(src|href)="(?!data:|https://arxiv|#|[\w.-]+")', page)
    found = found_study(folder)
    assert isinstance(found, FoundStudy)
    assert (found.study, found.model) == (study, NAME)


def test_files_beside_the_page_do_not_depend_on_who_asked(scenes, tmp_path) -> None:
    one = run_study("knn", scenes, tmp_path / "a", Origin("trained", COMMAND))
    other = run_study("knn", scenes, tmp_path / "b", Origin())
    for file in ("result.json", "table.md"):
        assert (one / file).read_bytes() == (other / file).read_bytes()
    assert "Run it again" not in (other / "index.html").read_text(encoding="utf-8")


def test_a_study_that_fails_or_is_killed_has_no_page(scenes, tmp_path, monkeypatch) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def refused(*_: object, **__: object) -> None:
        raise InputError("no")

    monkeypatch.setattr("skipless.studies.discovery.tokencut", killed)
    with pytest.raises(KeyboardInterrupt):
        run_study("tokencut", scenes, tmp_path / "killed", Origin())
    monkeypatch.setattr("skipless.studies.neighbours.knn_blocks", refused)
    with pytest.raises(InputError):
        run_study("knn", scenes, tmp_path / "failed", Origin())
    assert not list(tmp_path.rglob("index.html"))
    assert not list(tmp_path.rglob("result.json"))


@pytest.mark.parametrize(
    ("values", "told"),
    [({}, "no study"), ({"settings": {}}, "does not know"), ([], "no study"), ({"settings": 1, "data": 2}, "not know")],
)
def test_a_result_of_something_else_is_told(tmp_path, values, told) -> None:
    (tmp_path / "result.json").write_text(json.dumps(values))
    assert told in str(found_study(tmp_path))
