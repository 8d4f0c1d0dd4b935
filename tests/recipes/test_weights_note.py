"""Weights under a name: of the model that the file says it is of, or refused; never another network without a word."""

import json
from pathlib import Path

import pytest
import torch
from reference.command import skipless
from reference.tiny_images import images
from reference.tiny_scale import tiny
from safetensors.torch import load_file, save_file

from skipless.errors import InputError
from skipless.models import block_views, create_model
from skipless.recipes import open_model
from skipless.recipes.export import export_backbone, note_of, open_file, open_source
from skipless.training import load_weights, save_weights
from skipless.training.run_folder.weights_note import read_note

NAME = "vit_tiny_patch16_224"
TWIN = f"skipless_{NAME}"
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "num_heads": 2, "depth": 1}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Two runs of one shape, one with skips, and files of weights of all kinds."""
    root = tmp_path_factory.mktemp("notes")
    data = str(images(root / "images"))
    for row in ("skip", "skipless"):
        tiny("scenes", row, data=data, depth=2).run(root / row)
        export_backbone(root / row, root / f"{row}.safetensors")
    save_weights(
        create_model(NAME, seed=1, **SMALL), root / "init.safetensors", note=note_of(TWIN, SMALL, trained=False)
    )
    return root


def files(root: Path, row: str) -> list[Path]:
    """Every form of a run's weights."""
    teacher = next((root / row).glob("teacher-epoch-*.safetensors"))
    return [root / row, root / row / "checkpoint.safetensors", teacher, root / f"{row}.safetensors"]


@pytest.mark.parametrize("form", range(4))
def test_skipless_weights_are_refused_under_a_residual_name(root: Path, form: int) -> None:
    for row, asked, held in (("skipless", NAME, TWIN), ("skip", TWIN, NAME)):
        file = files(root, row)[form]
        with pytest.raises(InputError, match=f"holds weights of '{held}', not of '{asked}'"):
            open_model(asked, weights=file)
        if file.is_file():
            with pytest.raises(InputError, match=f"holds weights of '{held}', not of '{asked}'"):
                open_file(file, asked)
        with pytest.raises(InputError, match=f"holds weights of '{held}', not of '{asked}'"):
            open_model(str(root / ("skip" if row == "skipless" else "skipless")), weights=file)


@pytest.mark.parametrize("form", range(4))
def test_under_its_own_name_a_file_says_how_it_is_built(root: Path, form: int) -> None:
    pixels = torch.randn(2, 3, 32, 32)
    for row, name in (("skipless", TWIN), ("skip", NAME)):
        file = files(root, row)[form]
        run = open_model(str(root / row))
        named = open_model(name, weights=file)
        assert (named.name, named.trained, named.statistics) == (name, True, run.statistics)
        assert torch.equal(named.model.forward_features(pixels), run.model.forward_features(pixels))
        assert open_model(str(root / row), weights=file).trained
        if file.is_file():
            alone = open_file(file)
            assert (alone.trained, alone.statistics) == (True, run.statistics)
            assert torch.equal(alone.model.forward_features(pixels), run.model.forward_features(pixels))
            assert open_source(str(file), name).trained


def test_untrained_weights_are_not_called_trained(root: Path, tmp_path: Path) -> None:
    file = root / "init.safetensors"
    assert not open_model(TWIN, weights=file).trained
    assert not open_file(file).trained
    recipe = json.loads((root / "skipless/run.json").read_text())["recipe"]["model"]
    first = open_model(str(root / "skipless"), untrained=True).model
    save_weights(first, tmp_path / "first.safetensors", note=note_of(TWIN, recipe["kwargs"], trained=False))
    assert not open_model(str(root / "skipless"), weights=tmp_path / "first.safetensors").trained


def test_what_shapes_do_not_show_is_compared(root: Path, tmp_path: Path) -> None:
    """Other heads, another activation: equal shapes, another function."""
    pixels = torch.randn(1, 3, 32, 32)
    made = create_model(NAME, seed=2, **SMALL).eval()
    file = save_weights(made, tmp_path / "two.safetensors", note=note_of(TWIN, SMALL))
    assert torch.equal(open_model(TWIN, weights=file).model(pixels), made(pixels))
    with pytest.raises(InputError, match="num_heads=2; .* has 3: build it with num_heads=2"):
        load_weights(create_model(NAME, seed=2, **{**SMALL, "num_heads": 3}), file)
    kwargs = {**open_model(str(root / "skipless")).recipe.model.kwargs, "num_heads": 2}
    heads = save_weights(
        create_model(NAME, img_size=32, **kwargs), tmp_path / "h.safetensors", note=note_of(TWIN, kwargs)
    )
    with pytest.raises(InputError, match="with num_heads=2, not 1"):
        open_model(str(root / "skipless"), weights=heads)
    with pytest.raises(InputError, match="holds weights of 'skipless_vit_tiny_patch16_224', not of"):
        open_model("skipless_vit_small_patch16_224", weights=file)
    half = create_model(NAME, seed=2, sub_blocks=("attn",), **SMALL).eval()
    note = note_of(TWIN, {**SMALL, "sub_blocks": ["attn"]})
    kept = save_weights(half, tmp_path / "half.safetensors", note=note)
    assert [view.skips for view in block_views(open_file(kept).model)] == [("mlp",)]
    with pytest.raises(InputError, match=r"skips of mlp; blocks\.0 of this model has skips of none"):
        load_weights(made, kept)


def test_load_weights_compares_skips(root: Path) -> None:
    for row, other in (("skip", "skipless"), ("skipless", "skip")):
        model = open_model(str(root / row), untrained=True).model
        before = model.blocks[0].attn.qkv.weight.clone()
        with pytest.raises(InputError, match="build it as"):
            load_weights(model, root / other)
        assert torch.equal(model.blocks[0].attn.qkv.weight, before)
        load_weights(model, root / row)


def test_a_file_that_says_nothing_is_taken_at_its_users_word(root: Path, tmp_path: Path) -> None:
    save_file(load_file(root / "skipless.safetensors"), tmp_path / "bare.safetensors")
    assert read_note(tmp_path / "bare.safetensors") is None
    kwargs = {"patch_size": 16, "embed_dim": 192, "depth": 1}
    plain = create_model(NAME, skip=True, **kwargs)
    assert load_weights(plain, save_weights(plain, tmp_path / "plain.safetensors")) is plain
    with pytest.raises(InputError, match="does not say what it is of"):
        open_file(tmp_path / "bare.safetensors")


@pytest.mark.parametrize("text", ["no JSON", "[]", "{}", '{"model": "x", "kwargs": 3, "statistics": null}'])
def test_a_note_that_cannot_be_read_is_said(tmp_path: Path, text: str) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "w.safetensors", {"skipless": text})
    for act in (
        lambda: open_file(tmp_path / "w.safetensors"),
        lambda: open_model(NAME, weights=tmp_path / "w.safetensors"),
    ):
        with pytest.raises(InputError, match="has a note .* that cannot be read"):
            act()


def test_init_writes_what_it_made(capsys, tmp_path: Path) -> None:
    """Also where timm has no twin by name, and where a tag says how images are normalised."""
    for name, statistics in (
        ("vit_tiny_patch16_224", None),
        ("vit_tiny_patch16_224.augreg_in21k", ((0.5,) * 3, (0.5,) * 3)),
        ("test_vit", None),
    ):
        out = tmp_path / f"{name}.safetensors"
        assert skipless(capsys, "init", name, "--out", str(out))[0] == 0
        note = read_note(out)
        assert note is not None
        bare = name.partition(".")[0]
        assert (note.model, note.trained, note.statistics) == (f"skipless_{bare}", False, statistics)
        source = open_file(out)
        assert {view.skips for view in block_views(source.model)} == {()}
        assert not source.trained
        assert not open_model(f"skipless_{bare}", weights=out).trained
        code, _, told = skipless(capsys, "measure", bare, "--weights", str(out))
        assert (code, told.count("\n")) == (2, 1)
        assert f"holds weights of 'skipless_{bare}', not of '{bare}'" in told


def test_on_the_command_line(root: Path, capsys) -> None:
    data = [
        "--data",
        str(root / "images"),
        "--device",
        "cpu",
        "--ks",
        "3",
        "--blocks",
        "-1",
        "--out",
        str(root / "out"),
    ]
    file = str(root / "skipless.safetensors")
    for words in (
        ["eval", NAME, "knn", "--weights", file, *data],
        ["eval", file, "knn", "--model", NAME, *data],
        ["eval", NAME, "knn", "--weights", str(root / "skipless"), *data],
        ["eval", str(root / "skip"), "knn", "--weights", file, *data],
        ["measure", NAME, "--weights", file],
        ["measure", NAME, "--weights", file, "--pretrained"],
        ["measure", str(root / "skip"), "--weights", file],
        ["measure", str(root / "skip"), "--weights", str(root / "skip.safetensors"), "--untrained"],
    ):
        code, printed, told = skipless(capsys, *words)
        assert (code, told.count("\n"), printed) == (2, 1, ""), words
        assert "holds weights of" in told or "give one of them" in told
    code, printed, _ = skipless(capsys, "eval", TWIN, "knn", "--weights", str(root / "init.safetensors"), *data)
    assert code == 0
    assert f"{TWIN}, untrained" in printed
    code, printed, _ = skipless(capsys, "measure", TWIN, "--weights", str(root / "init.safetensors"), "--blocks", "0")
    assert (code, f"{TWIN}, not trained" in printed) == (0, True)
