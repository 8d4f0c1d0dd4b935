"""Published checkpoints, as far as their format goes: the files themselves are not here."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from skipless.errors import InputError
from skipless.tasks import DINO, DINOConfig
from skipless.tasks.dino.checkpoint import read_dino_checkpoint


def vit(seed: int) -> VisionTransformer:
    torch.manual_seed(seed)
    return VisionTransformer(img_size=32, patch_size=16, num_classes=0, embed_dim=16, depth=2, num_heads=2)


def full_checkpoint(path: Path) -> Path:
    head = {"head.mlp.0.weight": torch.ones(2, 2), "head.last_layer.weight_g": torch.ones(2, 1)}
    backbones = [{f"backbone.{name}": value for name, value in vit(seed).state_dict().items()} for seed in (0, 1)]
    torch.save(
        {
            "student": {f"module.{name}": value for name, value in (backbones[0] | head).items()},
            "teacher": backbones[1] | head,
            "optimizer": {"state": {}, "param_groups": [{"lr": np.float64(1e-5), "weight_decay": 0.4, "params": [0]}]},
            "epoch": 300,
            "args": argparse.Namespace(arch="vit_small", patch_size=16, use_fp16=False),
            "fp16_scaler": None,
            "dino_loss": {"center": torch.zeros(1, 2)},
        },
        path,
    )
    return path


@pytest.mark.parametrize(("network", "seed"), [("teacher", 1), ("student", 0)])
def test_a_training_checkpoint_loads_into_timm(network: str, seed: int, tmp_path: Path) -> None:
    weights = read_dino_checkpoint(full_checkpoint(tmp_path / "checkpoint.pth"), network)
    model = vit(5)
    model.load_state_dict(weights)
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(model(images), vit(seed)(images))


def test_a_bare_backbone_loads_into_timm(tmp_path: Path) -> None:
    torch.save(vit(3).state_dict(), tmp_path / "pretrain.pth")
    model = vit(5)
    model.load_state_dict(read_dino_checkpoint(tmp_path / "pretrain.pth"))
    assert torch.equal(model.blocks[0].attn.qkv.weight, vit(3).blocks[0].attn.qkv.weight)


def test_our_own_teacher_loads_into_timm() -> None:
    backbone = VisionTransformer(
        img_size=32, patch_size=16, num_classes=0, embed_dim=16, depth=2, num_heads=2, dynamic_img_size=True
    )
    task = DINO(backbone, DINOConfig(out_dim=8, hidden_dim=8), total_steps=2, steps_per_epoch=1)
    model = vit(5)
    model.load_state_dict(task.teacher_state_dict())
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(model.eval()(images), task.model(images))


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint at"):
        read_dino_checkpoint(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    with pytest.raises(InputError, match=r"text\.pth' cannot be read as weights"):
        read_dino_checkpoint(tmp_path / "text.pth")
    torch.save({"weight": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="holds weight; give one with a teacher"):
        read_dino_checkpoint(tmp_path / "other.pth")


class Harmful:
    def __reduce__(self):
        return (print, ("code of the file has run",))


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"teacher": Harmful()}, tmp_path / "harmful.pth")
    with pytest.raises(InputError, match="cannot be read as weights"):
        read_dino_checkpoint(tmp_path / "harmful.pth")
    assert "has run" not in capsys.readouterr().out
