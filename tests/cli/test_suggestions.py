"""A mistyped name is told in one line, with the nearest name that there is: of every verb, and in the library."""

import json
from pathlib import Path

import pytest
from reference.command import skipless

from skipless.cli.choices import choices_of
from skipless.cli.parse import parse
from skipless.cli.signature import arguments_of
from skipless.data import ImageConfig, load_images
from skipless.data.dense import load_boxes, load_segmentation
from skipless.errors import InputError, did_you_mean
from skipless.evaluators.probe.protocols import protocol_named
from skipless.experiments.supervised.recipe import table1_by_data
from skipless.init import SkiplessInit
from skipless.models import create_model, load_timm
from skipless.recipes import open_model, table1
from skipless.registry import recipe_named

DATA = ("--data", "digits")
MISTYPED = [
    (["trian"], "did you mean train?"),
    (["train", "tabel1"], "did you mean table1?"),
    (["train", "table1", "--scale", "fashon", "--out", "OUT"], "--scale fashon: did you mean fashion? there is digits"),
    (["train", "table1", "--scale=fashon", "--out", "OUT"], "did you mean fashion?"),
    (["train", "table1", "--optimizer", "saop", "--out", "OUT"], "did you mean soap?"),
    (["train", "table1", "--data", "fashon", "--out", "OUT"], "did you mean fashion?"),
    (["train", "table1", "--precision", "fp61", "--out", "OUT"], "did you mean fp16?"),
    (["train", "dino", "--scale", "vit_smal", "--data", "x", "--out", "OUT"], "did you mean vit_small?"),
    (["doctor", "dno"], "did you mean dino?"),
    (["doctor", "table1", "--scale", "digit"], "did you mean digits?"),
    (["reproduce", "tabel5"], "did you mean table5?"),
    (["reproduce", "table5", "--scale", "vits"], "did you mean vit-s?"),
    (["data", "scene", "--out", "OUT"], "did you mean scenes?"),
    (["data", "scenes", "--layout", "imagnet", "--out", "OUT"], "did you mean imagenet?"),
    (["data", "show-crops", "--mode", "fats", "--data", ".", "--out", "OUT"], "did you mean fast?"),
    (["eval", "RUN", "knnn"], "did you mean knn?"),
    (["eval", "RUN", "knn", "--pooling", "meen"], "did you mean mean?"),
    (["eval", "RUN", "linear-probe", "--dataset", "ade20", "--data", "."], "did you mean ade20k?"),
    (["eval", "vit_tiny_patch16_224", "tokencut", "--kinds", "q", "tokn", "--data", "."], "did you mean tokens?"),
    (["init", "vit_base_patch16_224", "--preset", "vit_bas"], "did you mean vit_base?"),
    (["plan", "--gpu", "h10"], "did you mean h100?"),
    (["plan", "--recipe", "dinoo"], "did you mean dino?"),
    (["plan", "--optimizer", "adamw", "sopa"], "did you mean soap?"),
    (["measure", "vit_tiny_patch16_224", "--at", "gausian"], "did you mean gaussian?"),
    (["measure", "vit_tiny_patch16_224", "--dtype", "float46"], "did you mean float64?"),
]


@pytest.mark.parametrize(("words", "hint"), MISTYPED, ids=[" ".join(words) for words, _ in MISTYPED])
def test_a_mistyped_word_is_told_with_the_nearest(capsys, tmp_path, words: list[str], hint: str) -> None:
    code, printed, told = skipless(capsys, *(word.replace("OUT", str(tmp_path / "out")) for word in words))
    assert (code, printed, told.count("\n")) == (2, "", 1)
    assert hint in told


@pytest.mark.parametrize(
    "words",
    [
        ["plan", "NAME"],
        ["measure", "NAME"],
        ["init", "NAME"],
        ["eval", "NAME", "knn", *DATA],
    ],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("vit_base", "vit_base_patch16_224"),
        ("vit_small_patch16", "vit_small_patch16_224"),
        ("vit_bse_patch16_224", "vit_base_patch16_224"),
        ("resnet5", "resnet50"),
    ],
)
def test_models_that_are_supported_are_suggested_first(capsys, words: list[str], name: str, first: str) -> None:
    code, printed, told = skipless(capsys, *(word.replace("NAME", name) for word in words))
    assert (code, printed, told.count("\n")) == (2, "", 1)
    assert f"timm has no model {name!r}; did you mean {first}" in told


def test_a_twin_that_is_begun_means_twins() -> None:
    with pytest.raises(InputError, match="did you mean skipless_vit_base_patch16_224"):
        load_timm("skipless_vit_base")


@pytest.mark.parametrize(
    ("words", "whole"),
    [(["export", "RUN", "--out", "w.safetensors"], True), (["eval", "RUN", "knn"], False), (["measure", "RUN"], False)],
    ids=lambda words: words[0] if isinstance(words, list) else "",
)
def test_a_mistyped_run_is_told_with_its_neighbour(capsys, tmp_path, words: list[str], whole: bool) -> None:
    (tmp_path / "first-run").mkdir()
    (tmp_path / "first-run" / "run.json").write_text(json.dumps({}))
    given = str(tmp_path / "frist-run")
    code, printed, told = skipless(capsys, *(word.replace("RUN", given) for word in words))
    assert (code, printed, told.count("\n")) == (2, "", 1)
    assert f"did you mean {tmp_path / 'first-run'}?" in told
    assert ("is no run folder" in told) == whole


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda: SkiplessInit.preset("vit-base"), "vit_base"),
        (lambda: create_model("vit_base"), "vit_base_patch16_224"),
        (lambda: open_model("vit_small"), "vit_small_patch16_224"),
        (lambda: recipe_named("tabel1"), "table1"),
        (lambda: table1("fasion"), "fashion"),
        (lambda: load_images(ImageConfig("digit")), "digits"),
        (lambda: load_segmentation("ade20", Path()), "ade20k"),
        (lambda: load_boxes("voc70", Path()), "voc07"),
        (lambda: protocol_named("dinov1"), "dinov2"),
    ],
)
def test_the_library_suggests_too(call, hint: str, unchecked) -> None:
    with pytest.raises(InputError, match=f"did you mean {hint}"):
        call()


def test_case_is_no_hindrance_and_what_is_far_is_not_suggested() -> None:
    assert did_you_mean("FASHION", ["digits", "fashion"]) == "did you mean fashion? "
    assert did_you_mean("imagenet", ["digits", "fashion"]) == ""


def test_none_still_stands_for_a_default_and_a_switch_takes_no_choice() -> None:
    arguments = arguments_of(table1_by_data)
    assert parse(arguments, ["--scale", "None"], prog="x", description="")["scale"] is None
    assert choices_of(next(one for one in arguments if one.name == "seed")) == ()
