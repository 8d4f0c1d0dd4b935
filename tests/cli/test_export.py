"""Backbones as files: written, loaded by timm, and read back for an evaluation."""

from pathlib import Path

import pytest
import timm
import torch
from reference.tiny_images import images
from reference.tiny_scale import tiny
from safetensors.torch import load_file, save_file

from skipless import cli
from skipless.errors import InputError
from skipless.models import create_model
from skipless.recipes.export import export_backbone, open_file

SIZES = {"patch_size": 8, "embed_dim": 12, "num_heads": 1, "depth": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("export")
    tiny("scenes", "skipless + init", data=str(images(root / "images")), depth=2).run(root / "run")
    return root / "run"


def test_the_printed_lines_load_what_was_trained(run: Path, tmp_path: Path, capsys) -> None:
    cli.main(["export", str(run), "--out", str(tmp_path / "teacher.safetensors")])
    printed = capsys.readouterr().out
    assert f"wrote {tmp_path / 'teacher.safetensors'}" in printed
    found: dict = {}
    exec(printed[printed.index("import") :], found)
    model = found["model"].eval()
    kept = load_file(run / "checkpoint.safetensors")
    assert torch.equal(model.blocks[1].mlp.fc1.weight, kept["task/model.blocks.1.mlp.fc1.weight"])
    pixels = torch.randn(2, 3, 32, 32)
    again = open_file(tmp_path / "teacher.safetensors")
    assert torch.equal(again.model(pixels), model(pixels))
    assert again.statistics == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with_skips = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, **SIZES).eval()
    with_skips.load_state_dict(load_file(tmp_path / "teacher.safetensors"))
    assert not torch.allclose(with_skips(pixels), model(pixels))


def test_an_epochs_teacher_is_exported(run: Path, tmp_path: Path) -> None:
    first = export_backbone(run, tmp_path / "first.safetensors", epoch=1)
    last = export_backbone(run, tmp_path / "last.safetensors", epoch=3)
    plain = export_backbone(run, tmp_path / "plain.safetensors")
    name = "blocks.0.attn.qkv.weight"
    assert torch.equal(load_file(last.file)[name], load_file(plain.file)[name])
    assert not torch.equal(load_file(first.file)[name], load_file(last.file)[name])
    with pytest.raises(InputError, match=r"kept no teacher of epoch 9; it has 1, 2, 3"):
        export_backbone(run, tmp_path / "x.safetensors", epoch=9)
    with pytest.raises(InputError, match=r"ends in \.safetensors"):
        export_backbone(run, tmp_path / "x.pth")


def test_a_published_checkpoint_is_evaluated_by_its_path(tmp_path: Path, capsys) -> None:
    source = create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, patch_size=16, seed=0)
    file = tmp_path / "dino_pretrain.pth"
    torch.save(source.state_dict(), file)
    pictures = images(tmp_path / "images")
    out = ["--out", str(tmp_path / "out"), "--device", "cpu"]
    named = ["--model", "vit_tiny_patch16_224", "--data", str(pictures), "--ks", "3", "--blocks", "-1"]
    cli.main(["eval", str(file), "knn", *named, *out])
    assert "dino_pretrain" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["eval", str(file), "knn", "--data", str(pictures), *out])
    assert "does not say what it is of; give --model" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["eval", "vit_tiny_patch16_224", "knn", "--model", "vit_tiny_patch16_224", *out])
    assert "--model is for a file of weights" in capsys.readouterr().err


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    class Bad:
        def __reduce__(self):  # what an attacker's file would have: code to run
            return (print, ("unpickled",))

    torch.save({"teacher": Bad()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="cannot be read as weights"):
        open_file(tmp_path / "evil.pth", "vit_tiny_patch16_224")
    (tmp_path / "cut.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="is no file of weights"):
        open_file(tmp_path / "cut.safetensors", "vit_tiny_patch16_224")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="holds no plain ViT's weights"):
        open_file(tmp_path / "other.safetensors", "vit_tiny_patch16_224")
