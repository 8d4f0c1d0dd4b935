"""The page of each study: whole, by itself, beside files that stay as they were."""

import json
import re
from html import unescape
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from skipless.data import ImageConfig, load_images
from skipless.data.dense import load_boxes, load_segmentation
from skipless.data.scenes import write_scenes
from skipless.errors import InputError
from skipless.recipes import ModelSource
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
from skipless.studies.comparison import compare
from skipless.studies.comparison.asked import Comparison
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


class Comparing:
    """A model beside its untrained twin, in each study that compares."""

    def __init__(self, scenes: Path, home: Path):
        self.scenes, self.home = scenes, home

    def folders(self, study: str) -> tuple[Path, list[str]]:
        """Where the comparison lies, and the pages that were told, in their order."""
        dense = study not in ("knn", "linear-classifier")
        models = [vit(3, 32, 8), vit(3, 32, 8)] if dense else [vit(1, 8, 4), vit(1, 8, 4)]
        nn.init.ones_(models[1].blocks[0].attn.proj.bias)
        statistics = ((0.5,) * 3, (0.5,) * 3) if dense else ((0.5,), (0.5,))
        sources = [
            ModelSource("_a$b$ <i>", model, trained, statistics)
            for model, trained in zip(models, (True, False), strict=True)
        ]
        data = str(self.scenes) if dense else "digits"
        asked = Comparison(study, sources, data, self.home, command=COMMAND)
        config = {
            "linear-probe": (
                compare.compare_probes,
                ProbeConfig(protocol="patch", size=32, epochs=1, multiscale=(0, 1)),
            ),
            "tokencut": (compare.compare_discoveries, DiscoveryConfig(kinds=("k", "q"))),
            "lost": (compare.compare_discoveries, DiscoveryConfig(method="lost", kinds=("k",))),
            "knn": (compare.compare_neighbours, NeighbourConfig(ks=(3, 5))),
            "linear-classifier": (compare.compare_classifiers, ClassifierConfig(epochs=1)),
        }
        function, settings = config[study]
        told = [one.page for one in function(asked, settings) if one.page is not None]
        return told[-1].parent, [page.parent.name for page in told]


@pytest.mark.parametrize("study", ["linear-probe", "tokencut", "lost", "knn", "linear-classifier"])
def test_models_side_by_side_have_a_page_that_leads_to_the_page_of_each(scenes, tmp_path, study) -> None:
    folder, told = Comparing(scenes, tmp_path).folders(study)
    data = {"knn": "digits", "linear-classifier": "digits"}.get(study, "VOC2012")
    for name, state in zip(told, ("trained", "untrained", "compared"), strict=True):
        assert re.fullmatch(rf"{study}-{data}-{state}-[0-9a-f]{{8}}", name)
    page = (folder / "index.html").read_text(encoding="utf-8")
    text = unescape(re.sub(r"<[^>]*>", " ", page))
    for part in (COMMAND, "n = 1", "not trained", "_a$b$ <i>, untrained", "points, each at its best", "Every setting"):
        assert part in text
    assert "<i>, untrained" not in page
    links = [link for link in re.findall(r' href="([^"#]+)"', page) if not link.startswith("https://")]
    assert all((folder / link).is_file() for link in links)
    assert [link for link in links if link.startswith("../")] == [f"../{name}/index.html" for name in told[:2]]
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(pictures) == {"tokencut": 2, "knn": 2}.get(study, 1)
    for picture in map(unescape, pictures):
        assert picture.count("_a$b$ <i>") >= 2  # both lines are named
    found = found_study(folder)
    assert isinstance(found, FoundStudy)
    assert (found.study, found.model) == (study, "_a$b$ <i> beside _a$b$ <i>, untrained")
    assert len(re.findall(r"\d+\.\d", found.best)) == 2


def test_a_comparison_is_made_again_in_its_folder_and_of_one_model_there_is_none(scenes, tmp_path) -> None:
    comparing = Comparing(scenes, tmp_path)
    folder, _ = comparing.folders("knn")
    kept = {file: (folder / file).read_bytes() for file in ("settings.json", "result.json", "table.md")}
    assert comparing.folders("knn")[0] == folder
    assert kept == {file: (folder / file).read_bytes() for file in kept}
    alone = Comparison("knn", [ModelSource("a", vit(1, 8, 4), True, ((0.5,), (0.5,)))], "digits", tmp_path / "one")
    told = list(compare.compare_neighbours(alone, NeighbourConfig(ks=(3,))))
    assert [one.page is None for one in told] == [False, True]
    assert not list((tmp_path / "one").glob("*compared*"))


def test_pictures_say_what_the_network_was_given_and_name_no_file_in_every_row(scenes, tmp_path) -> None:
    models = {"grey": (vit(1, 8, 4), ((0.5,), (0.5,))), "coloured": (vit(3, 8, 4), None)}
    for name, of in models.items():
        (file,) = draw_features({name: of}, find_pictures(scenes, 2), PictureConfig(), out=tmp_path)
        told = (file.parent / "table.md").read_text(encoding="utf-8")
        assert told.count(".png") == 1
        seen = "grey (1 channel)" if name == "grey" else "colour (3 channels)"
        assert f"{name} is given 8 x 8 pixels in {seen}" in told
        assert f"8 x 8 pixels in {seen}" in (file.parent / "index.html").read_text(encoding="utf-8")
    files = draw_features(models, find_pictures(scenes, 2), PictureConfig(), out=tmp_path)
    told = (files[0].parent / "table.md").read_text(encoding="utf-8")
    assert [told.count(file.name) for file in files] == [1, 1]


@pytest.mark.parametrize(
    ("values", "told"),
    [({}, "no study"), ({"settings": {}}, "does not know"), ([], "no study"), ({"settings": 1, "data": 2}, "not know")],
)
def test_a_result_of_something_else_is_told(tmp_path, values, told) -> None:
    (tmp_path / "result.json").write_text(json.dumps(values))
    assert told in str(found_study(tmp_path))
