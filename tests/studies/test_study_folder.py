"""The names of study folders: they say what is in them, never meet, and what lies under a name of before is used."""

import json

import pytest
import timm
import torch

from skipless.choices import ModelState
from skipless.data import ImageConfig, load_images
from skipless.recipes import open_model
from skipless.studies.classifier import ClassifierConfig, classify
from skipless.studies.neighbours import NeighbourConfig, nearest_neighbours
from skipless.studies.origin import Origin
from skipless.studies.study_folder import StudyFolder

STATES: tuple[ModelState | None, ...] = ("trained", "untrained", "teacher", None)


def vit():
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=8, patch_size=2, embed_dim=16, depth=1, num_heads=2, in_chans=1
    )


@pytest.mark.parametrize("state", STATES)
def test_a_name_says_study_data_set_and_whose_weights(tmp_path, state) -> None:
    folder = StudyFolder(tmp_path, "linear-probe-VOC2012", {"a": 1}, state=state)
    digest = folder.identity.rpartition("-")[2]
    assert folder.path.name == "-".join(["linear-probe-VOC2012", *([state] if state else []), digest])
    assert json.loads((folder.path / "settings.json").read_text()) == {"a": 1}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    ("name", "before", "earlier"),
    [
        ("tokencut-VOC2012", None, "tokencut-VOC2012"),
        ("linear-classifier-digits", "linear-digits", "linear-digits"),
        ("pca-photos", "pca", "pca"),
        ("knn-my data", None, "knn-my-data"),
    ],
)
def test_what_lies_under_a_name_of_before_is_found(tmp_path, state, name, before, earlier) -> None:
    identity = StudyFolder(tmp_path / "probe", name, {"a": [1]}, before=before).identity
    assert identity.startswith(f"{earlier}-")
    old = tmp_path / identity
    old.mkdir()
    (old / "journal-0.jsonl").write_text('{"image": "x"}\n')
    folder = StudyFolder(tmp_path, name, {"a": (1,)}, state=state, before=before)
    assert folder.path == old
    assert list(folder.read_journal()) == [{"image": "x"}]
    assert StudyFolder(tmp_path, name, {"a": [2]}, state=state, before=before).path != old


def test_a_name_never_says_that_other_weights_were_measured(tmp_path) -> None:
    for first in STATES:
        for then in STATES:
            home = tmp_path / f"{first}-{then}"
            here = StudyFolder(home, "knn-digits", {"a": 1}, state=first).path
            there = StudyFolder(home, "knn-digits", {"a": 1}, state=then).path
            assert (there == here) == (first in (then, None))
            assert StudyFolder(home, "knn-digits", {"a": 1}, state=then).path == there
            for state in {one for one in STATES if one} - {then}:
                assert f"-{state}-" not in there.name


def test_a_folder_whose_settings_cannot_be_read_is_not_taken(tmp_path) -> None:
    usual = StudyFolder(tmp_path / "probe", "knn-digits", {"a": 1}, state="trained").path.name
    for content in ("{", "null", "[" * 100_000):
        taken = tmp_path / str(len(content)) / usual
        taken.mkdir(parents=True)
        (taken / "settings.json").write_text(content)
        ours = StudyFolder(taken.parent, "knn-digits", {"a": 1}, state="trained")
        assert ours.path != taken
        assert (taken / "settings.json").read_text() == content


def test_one_that_says_its_settings_comes_before_one_that_does_not(tmp_path) -> None:
    said = StudyFolder(tmp_path, "knn-digits", {"a": 1}).path
    (tmp_path / said.name.replace("digits", "digits-trained")).mkdir()
    assert StudyFolder(tmp_path, "knn-digits", {"a": 1}, state="trained").path == said


@pytest.mark.parametrize("letter", ["x", "é", "画", "\N{GRINNING FACE}", "\udce9"])
@pytest.mark.parametrize("state", STATES)
def test_names_of_any_length_make_folders(tmp_path, letter, state) -> None:
    for count in (100, 180, 300):
        folder = StudyFolder(tmp_path, f"knn-{count * letter}", {"a": count}, state=state, before="pca")
        assert folder.path.is_dir()
        assert len(folder.path.name.encode()) <= 255
        assert StudyFolder(tmp_path, f"knn-{count * letter}", {"a": count}, state=state).path == folder.path


def test_long_names_of_before_are_found(tmp_path) -> None:
    """Earlier versions cut names of pictures to 100 letters, and others not at all."""
    for name, old in (("pca-" + 150 * "x", "pca-" + 96 * "x"), ("knn-" + 200 * "x", "knn-" + 200 * "x")):
        digest = StudyFolder(tmp_path / "probe", name, {"a": 1}).identity.rpartition("-")[2]
        for stem in (f"{old}-trained", old):
            held = tmp_path / stem[-12:] / f"{stem}-{digest}"
            held.mkdir(parents=True)
            assert StudyFolder(held.parent, name, {"a": 1}, state="trained").path == held


def test_settings_whose_hashes_begin_alike_have_folders_of_their_own(tmp_path) -> None:
    usual = StudyFolder(tmp_path / "probe", "knn-digits", {"a": 1}, state="trained").path.name
    for place, held in (("new", {"settings.json": {"a": 2}}), ("old", {"result.json": {"settings": {"a": 2}}})):
        taken = tmp_path / place / usual
        taken.mkdir(parents=True)
        for file, values in held.items():
            (taken / file).write_text(json.dumps(values))
        ours = StudyFolder(tmp_path / place, "knn-digits", {"a": 1}, state="trained")
        assert ours.path.name.startswith(usual)
        assert len(ours.path.name) == len(usual) + 8
        assert StudyFolder(tmp_path / place, "knn-digits", {"a": 1}, state="trained").path == ours.path


def test_vectors_and_results_of_before_are_not_made_anew(tmp_path, monkeypatch) -> None:
    """Folders as an earlier version called them: study, data set and hash."""
    data, model = load_images(ImageConfig("digits")), vit()
    first = nearest_neighbours(model, data, NeighbourConfig(ks=(5,)), out=tmp_path, data_name="digits", progress=False)
    classify(model, data, ClassifierConfig(epochs=1), out=tmp_path, data_name="digits", progress=False)
    (linear,) = tmp_path.glob("linear-classifier-digits-*")
    linear.rename(tmp_path / linear.name.replace("linear-classifier-", "linear-"))
    for settings in tmp_path.glob("*/settings.json"):
        settings.unlink()
    before = sorted(folder.name for folder in tmp_path.iterdir())
    assert [name.rpartition("-")[0] for name in before] == ["knn-digits", "linear-digits", "pooled-digits"]
    monkeypatch.setattr("skipless.studies.pooled.features", None)  # all vectors are there
    told = {"out": tmp_path, "data_name": "digits", "progress": False, "origin": Origin("trained")}
    again = nearest_neighbours(model, data, NeighbourConfig(ks=(5,)), **told)
    classify(model, data, ClassifierConfig(epochs=1), **told)
    assert again.scores == first.scores
    assert again.pooled.identity == first.pooled.identity
    assert sorted(folder.name for folder in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("run", "untrained", "state"),
    [
        ("table1", False, "trained"),
        ("table1", True, "untrained"),
        ("dino", False, "teacher"),
        ("dino", True, "untrained"),
    ],
)
def test_whose_weights_a_run_has(run, untrained, state) -> None:
    assert open_model(f"tests/fixtures/runs-3672518/{run}", untrained=untrained).state == state
    assert open_model("vit_tiny_patch16_224").state == "untrained"
