"""From configuration to optimizer."""

import pytest
import torch
from torch import nn

from skipless.errors import InputError
from skipless.optim import SOAP, OptimizerConfig, build_optimizer


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(4, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.qkv(x)


def test_none_means_the_optimizers_own_default() -> None:
    adamw = build_optimizer(Attention(), OptimizerConfig())
    assert type(adamw) is torch.optim.AdamW
    assert (adamw.defaults["betas"], adamw.defaults["eps"]) == ((0.9, 0.999), 1e-8)
    soap = build_optimizer(Attention(), OptimizerConfig("soap"))
    assert type(soap) is SOAP
    assert (soap.defaults["betas"], soap.defaults["eps"]) == ((0.95, 0.95), 1e-8)


def test_muon_has_the_defaults_of_torchs_two() -> None:
    model = nn.ModuleDict({"blocks": nn.ModuleList([Attention()])})
    muon = build_optimizer(model, OptimizerConfig("muon"))
    ours, ignored = muon.defaults, {"weight_decay", "adjust_lr_fn"}
    for own, torchs in (
        (ours | {"eps": ours["ns_eps"]}, torch.optim.Muon([torch.zeros(1, 1)]).defaults),
        (ours, torch.optim.AdamW([torch.zeros(1)], fused=True).defaults),
    ):
        assert {name: own[name] for name in torchs.keys() - ignored} == {
            name: torchs[name] for name in torchs.keys() - ignored
        }
    assert ours["adjust_lr_fn"] == "match_rms_adamw"
    given = OptimizerConfig("muon", lr=0.02, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.3, split_qkv=False)
    for group in build_optimizer(model, given).param_groups:
        assert (group["lr"], group["betas"], group["eps"], group["split"]) == (0.02, (0.8, 0.9), 1e-6, 1)
        assert group["weight_decay"] == (0.3 if group["use_muon"] else 0.0)
    for name, value, said in (("lr", -1.0, "-1.0"), ("weight_decay", -0.5, "-0.5"), ("betas", (0.9, 1.5), "1.5")):
        with pytest.raises(InputError, match=said):
            build_optimizer(model, OptimizerConfig("muon", **{name: value}))


@pytest.mark.parametrize("name", ["adamw", "soap"])
def test_every_value_reaches_the_groups(name: str) -> None:
    config = OptimizerConfig(name, lr=0.02, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.3, no_decay=("weight",))
    for group in build_optimizer(Attention(), config).param_groups:
        assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (0.02, (0.8, 0.9), 1e-6, 0.0)
    config = OptimizerConfig(name, weight_decay=0.3, precondition_frequency=7, max_precond_dim=64)
    decaying, free = build_optimizer(Attention(), config).param_groups
    assert (decaying["weight_decay"], free["weight_decay"]) == (0.3, 0.0)
    if name == "soap":
        assert (decaying["precondition_frequency"], decaying["max_precond_dim"]) == (7, 64)


def test_only_soap_splits_qkv_and_only_if_asked() -> None:
    splits = [
        build_optimizer(Attention(), OptimizerConfig(name, split_qkv=split)).param_groups[0]["split"]
        for name, split in (("soap", True), ("soap", False), ("adamw", True))
    ]
    assert splits == [3, 1, 1]


@pytest.mark.parametrize("name", ["adamw", "soap"])
def test_it_trains(name: str) -> None:
    torch.manual_seed(0)
    model, x = Attention(), torch.randn(16, 4)
    target = torch.randn(16, 12)
    optimizer = build_optimizer(model, OptimizerConfig(name, lr=0.03))
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (model(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("name", ["adamw", "soap"])
def test_bad_values_are_quoted(name: str) -> None:
    with pytest.raises(InputError, match=r"-1\.0"):
        build_optimizer(Attention(), OptimizerConfig(name, lr=-1.0))
    with pytest.raises(InputError, match=r"-0\.5"):
        build_optimizer(Attention(), OptimizerConfig(name, weight_decay=-0.5))


@pytest.mark.parametrize("scaled", [False, True])
def test_gradients_of_scaled_losses_can_be_clipped(scaled: bool) -> None:
    """A fused AdamW unscales on its own, and fabric then refuses to clip."""
    adamw = build_optimizer(Attention(), OptimizerConfig(), scaled=scaled)
    assert bool(adamw.defaults["fused"]) != scaled
    assert getattr(adamw, "_step_supports_amp_scaling", False) != scaled
    model = nn.ModuleDict({"blocks": nn.ModuleList([Attention()])})
    for name in ("soap", "muon"):
        assert not getattr(build_optimizer(model, OptimizerConfig(name)), "_step_supports_amp_scaling", False)
