"""Blocks that learn at a rate of their own."""

import pytest
import timm
import torch
from torch import nn

from skipless.errors import InputError
from skipless.optim import OptimizerConfig, build_optimizer, param_groups
from skipless.recipes import table1
from skipless.recipes.our_init import BLOCK_LR, WEIGHT_DECAY, with_our_init
from skipless.training.loop.engine import Engine

TINY = {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2, "num_classes": 3}


def vit() -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", **TINY)


@pytest.mark.parametrize("split_qkv", [False, True])
@pytest.mark.parametrize("block_lr", [0.1, 3.0])
def test_blocks_have_groups_of_their_own_and_nothing_is_lost(block_lr: float, split_qkv: bool) -> None:
    model = vit()
    groups = param_groups(model, weight_decay=0.1, block_lr=block_lr, split_qkv=split_qkv)
    names = {id(p): name for name, p in model.named_parameters()}
    scales = {names[id(p)]: group.get("lr_scale", 1.0) for group in groups for p in group["params"]}
    assert scales.keys() == dict(model.named_parameters()).keys()
    assert all(scale == (block_lr if name.startswith("blocks.") else 1.0) for name, scale in scales.items())


@pytest.mark.parametrize("name", ["adamw", "soap", "muon"])
def test_blocks_forget_as_fast_as_the_rest(name: str) -> None:
    """Without a gradient a step is decay alone."""
    model = vit()
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    optimizer = build_optimizer(model, OptimizerConfig(name=name, lr=1e-2, weight_decay=0.5, block_lr=0.1))
    for _ in range(2):
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()
    kept = {key: (p.norm() / before[key].norm()).item() for key, p in model.named_parameters() if p.ndim == 2}
    assert kept["blocks.1.mlp.fc2.weight"] == pytest.approx(kept["head.weight"], rel=1e-6)
    assert kept["head.weight"] < 0.996


def test_without_it_groups_are_those_of_before() -> None:
    model = vit()
    assert [group.keys() for group in param_groups(model, weight_decay=0.1, block_lr=1.0)] == [
        {"params", "weight_decay", "split"}
    ] * 3


@pytest.mark.parametrize("block_lr", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(block_lr: float) -> None:
    with pytest.raises(InputError, match="block_lr=.* must be a positive number"):
        param_groups(vit(), weight_decay=0.1, block_lr=block_lr)


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(InputError, match="Sequential has no transformer block"):
        param_groups(nn.Sequential(nn.Linear(2, 2)), weight_decay=0.1, block_lr=0.5)


@pytest.mark.parametrize("name", ["adamw", "soap", "muon"])
def test_the_first_step_moves_blocks_by_their_share(name: str) -> None:
    """Adam-like steps are as long as the rate: with a tenth of it, blocks move a tenth as far."""
    moved = {}
    for block_lr in (1.0, 0.1):
        torch.manual_seed(0)
        model = vit()
        before = {key: p.detach().clone() for key, p in model.named_parameters()}
        optimizer = build_optimizer(model, OptimizerConfig(name=name, lr=1e-3, weight_decay=0.0, block_lr=block_lr))
        for _ in range(2):  # SOAP's first step is for its eigenbases
            optimizer.zero_grad()
            model(torch.ones(2, 3, 8, 8)).square().sum().backward()
            optimizer.step()
        moved[block_lr] = {key: (p - before[key]).norm().item() for key, p in model.named_parameters()}
    share = {key: moved[0.1][key] / moved[1.0][key] for key in ("blocks.1.mlp.fc2.weight", "head.weight")}
    assert share == {"blocks.1.mlp.fc2.weight": pytest.approx(0.1, rel=0.3), "head.weight": pytest.approx(1, rel=0.3)}


def test_torchvisions_blocks_are_blocks() -> None:
    class TorchvisionLike(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Module()
            self.encoder.layers = nn.Sequential()
            self.encoder.layers.add_module("encoder_layer_0", nn.Linear(2, 2, bias=False))
            self.heads = nn.Linear(2, 2, bias=False)

    groups = param_groups(TorchvisionLike(), weight_decay=0.1, block_lr=0.5, use_muon=True)
    assert [(group.get("lr_scale"), group["use_muon"]) for group in groups] == [(None, False), (0.5, True)]


def test_fit_multiplies_the_schedule_by_it(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    seen: list[dict[float, float]] = []
    step = Engine.take_step

    def watched(self, *args, **kwargs):
        found = step(self, *args, **kwargs)
        seen.append({group.get("lr_scale", 1.0): group["lr"] for group in self.optimizer.param_groups})
        return found

    monkeypatch.setattr(Engine, "take_step", watched)
    recipe = with_our_init(table1("digits", "skipless"))
    recipe.with_(fit__epochs=1, fit__progress="none").run(tmp_path)
    for rates in seen:
        assert rates[BLOCK_LR / 12] == pytest.approx(rates[1.0] * BLOCK_LR / 12)
    assert max(rates[1.0] for rates in seen) == recipe.optimizer.lr


def test_our_row_says_all_of_it() -> None:
    ours = table1("digits", "skipless + ours")
    assert ours.optimizer.weight_decay == WEIGHT_DECAY
    assert ours.optimizer.block_lr == BLOCK_LR / 12
    assert ours.model.init is not None
    assert ours.model.init.mlp == "mirrored"
