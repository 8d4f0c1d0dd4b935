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


def test_the_same_settings_are_found_whatever_the_weights_were_called(tmp_path) -> None:
    first = StudyFolder(tmp_path, "knn-digits", {"a": 1}, state="teacher")
    for state in STATES:
        assert StudyFolder(tmp_path, "knn-digits", {"a": 1}, state=state).path == first.path


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
