"""Muon for matrices and AdamW for the rest: torch's own two optimizers, joined."""

import copy
import io
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import AdamW, Muon
from torch.optim.optimizer import register_optimizer_step_post_hook

from skipless.errors import InputError
from skipless.optim import SOAP, MuonWithAdamW, OptimizerConfig, build_optimizer, gathered_state, load_gathered_state_
from skipless.optim.soap.tensors import map_tensors, own_storage

HYPER: dict[str, Any] = {"lr": 3e-3, "weight_decay": 0.1}


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.fc(torch.tanh(q * k) + v)


class Net(nn.Module):
    """Two blocks between an embedding and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(x)))


def make(dtype: torch.dtype = torch.float32, seed: int = 0, **config: Any) -> tuple[Net, MuonWithAdamW]:
    torch.manual_seed(seed)
    model = Net().to(dtype)
    optimizer = build_optimizer(model, OptimizerConfig("muon", **{**HYPER, **config}))
    assert isinstance(optimizer, MuonWithAdamW)
    return model, optimizer


def loss_of(model: nn.Module, step: int) -> Tensor:
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(step)).to(next(model.parameters()))
    return (model(x) - x[:, :3].square()).square().mean()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, one.parameters(), other.parameters()))


def test_the_blocks_matrices_are_muons_and_the_rest_is_adamws() -> None:
    model, optimizer = make()
    names = {id(param): name for name, param in model.named_parameters()}
    groups = {
        (group["use_muon"], group["split"], group["weight_decay"]): sorted(names[id(p)] for p in group["params"])
        for group in optimizer.param_groups
    }
    assert groups[True, 3, 0.1] == ["blocks.0.qkv.weight", "blocks.1.qkv.weight"]
    assert groups[True, 1, 0.1] == ["blocks.0.fc.weight", "blocks.1.fc.weight"]
    assert groups[False, 1, 0.1] == ["embed.weight", "head.weight"]
    assert len(groups[False, 1, 0.0]) == 6
    assert len(groups) == 4


@pytest.mark.parametrize("split_qkv", [True, False])
def test_steps_are_those_of_torchs_two_optimizers(split_qkv: bool) -> None:
    """Bit for bit; a fused weight moves as its three parts do as parameters of their own."""
    model, optimizer = make(split_qkv=split_qkv)
    twin = copy.deepcopy(model)
    parts, rest = [], []
    by_name = dict(twin.named_parameters())
    for name, param in by_name.items():
        if "blocks" in name and param.ndim == 2:
            count = 3 if split_qkv and "qkv" in name else 1
            parts.append((param, [Parameter(part.clone()) for part in param.detach().chunk(count)]))
        else:
            rest.append(param)
    muon = Muon([part for _, own in parts for part in own], adjust_lr_fn="match_rms_adamw", **HYPER)
    decay = [
        {"params": [p for p in rest if p.ndim > 1]},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0},
    ]
    adamw = AdamW(decay, fused=True, **HYPER)
    train(model, optimizer, range(6))
    for step in range(6):
        twin.zero_grad()
        loss_of(twin, step).backward()
        for param, own in parts:
            assert param.grad is not None
            for part, grad in zip(own, param.grad.chunk(len(own)), strict=True):
                part.grad = grad.clone()
        muon.step()
        adamw.step()
        with torch.no_grad():
            for param, own in parts:
                param.copy_(torch.cat([part.detach() for part in own]))
    assert same(model, twin)


def test_an_update_of_muons_has_the_size_of_adamws() -> None:
    """`match_rms_adamw`: a root mean square of about 0.2 times the rate, whatever the shape."""
    for shape in ((8, 32), (32, 32), (96, 32)):
        param = Parameter(torch.zeros(shape))
        param.grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        MuonWithAdamW([param], lr=1.0, split=3 if shape[0] == 96 else 1).step()
        assert 0.13 < float(param.detach().square().mean().sqrt()) < 0.27


@pytest.mark.parametrize("copied", ["state_dict", "gathered", "deepcopy", "pickle", "saved"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_resumed_run_is_the_uninterrupted_one(copied: str, dtype: torch.dtype) -> None:
    straight, optimizer = make(dtype)
    train(straight, optimizer, range(8))
    model, first = make(dtype)
    train(model, first, range(4))
    if copied in ("deepcopy", "pickle"):
        model, second = (
            copy.deepcopy((model, first)) if copied == "deepcopy" else pickle.loads(pickle.dumps((model, first)))
        )
        assert second.param_groups[0]["params"][0] is next(p for p in model.parameters() if p.shape == (8, 6))
    else:
        fresh, second = make(dtype, seed=5)
        fresh.load_state_dict(model.state_dict())
        if copied == "gathered":
            load_gathered_state_(second, gathered_state(first) or {})
        else:
            state = map_tensors(own_storage, first.state_dict())
            if copied == "saved":
                torch.save(state, buffer := io.BytesIO())
                buffer.seek(0)
                state = torch.load(buffer)
            second.load_state_dict(state)
        model = fresh
    train(model, second, range(4, 8))
    assert same(model, straight)


def test_hooks_run_once_a_step() -> None:
    model, optimizer = make()
    seen: list[str] = []
    handles = [
        optimizer.register_step_post_hook(lambda *_: seen.append("own")),
        register_optimizer_step_post_hook(lambda one, *_: seen.append(type(one).__name__)),
    ]
    try:
        train(model, optimizer, range(1))
    finally:
        for handle in handles:
            handle.remove()
    assert sorted(seen) == ["MuonWithAdamW", "own"]


@pytest.mark.parametrize(
    "schedule",
    [
        partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=4),
        partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.01, total_steps=4),
        partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda step: float(step == 0)),
    ],
)
def test_torchs_schedulers_set_the_rate_of_all_groups(schedule: Callable[..., Any]) -> None:
    model, optimizer = make()
    scheduler = schedule(optimizer)
    for step in range(3):
        train(model, optimizer, range(step, step + 1))
        scheduler.step()
        assert len({group["lr"] for group in optimizer.param_groups}) == 1
    before = copy.deepcopy(model)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    train(model, optimizer, range(3, 4))
    assert same(model, before)


def test_a_tensor_is_a_rate() -> None:
    model, optimizer = make()
    twin, other = make()
    for group in other.param_groups:
        group["lr"] = torch.tensor(group["lr"], dtype=torch.float64)
    train(model, optimizer, range(3))
    train(twin, other, range(3))
    assert same(model, twin)


def test_a_closure_gives_the_loss_and_may_make_the_gradients() -> None:
    model, optimizer = make()
    twin, other = make()

    def closure() -> float:
        other.zero_grad()
        loss = loss_of(twin, 0)
        loss.backward()
        return loss.item()

    train(model, optimizer, range(1))
    assert other.step(closure) > 0
    assert same(model, twin)


def test_no_gradient_outlives_the_step() -> None:
    model, optimizer = make()
    train(model, optimizer, range(1))
    assert not optimizer._muon.state
    assert not optimizer._muon.param_groups
    optimizer.zero_grad()
    assert all(param.grad is None for param in model.parameters())
    optimizer.step()  # without any gradient


@pytest.mark.parametrize("use_muon", [True, False])
def test_all_parameters_may_be_of_one_kind(use_muon: bool) -> None:
    param = Parameter(torch.eye(4))
    optimizer = MuonWithAdamW([param], use_muon=use_muon, fused=False)
    param.grad = torch.ones(4, 4)
    optimizer.step()
    assert optimizer.state[param].keys() == ({"momentum_buffer"} if use_muon else {"step", "exp_avg", "exp_avg_sq"})
    load_gathered_state_(optimizer, gathered_state(optimizer) or {})


def test_a_group_may_come_later_and_a_parameter_may_move_between_steps() -> None:
    model, optimizer = make()
    train(model, optimizer, range(2))
    late = Parameter(torch.eye(8))
    optimizer.add_param_group({"params": [late], "use_muon": True, "lr": 0.1})
    weight = model.blocks[0].qkv.weight
    weight.data = weight.data.clone()  # as `module.to` does it
    late.grad, before = torch.eye(8), weight.detach().clone()
    train(model, optimizer, range(2, 3))
    late.grad = torch.eye(8)
    optimizer.step()
    assert not torch.equal(late, torch.eye(8))
    assert not torch.equal(weight, before)


def test_scaled_gradients_are_unscaled_for_both() -> None:
    """A fused AdamW unscales within its step; Muon would see scaled gradients, and step where they are not finite."""
    model, optimizer = make()
    twin, other = make()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for step in range(3):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, step)).backward()
        scaler.step(optimizer)
        scaler.update()
    train(twin, other, range(3))
    assert same(model, twin)
    before = copy.deepcopy(model)
    for param in model.parameters():
        param.grad = torch.full_like(param, float("inf"))
    scaler.step(optimizer)
    assert same(model, before)


def test_torchs_distributed_checkpoint_saves_and_loads_it() -> None:
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_optimizer_state_dict,
        set_optimizer_state_dict,
    )

    for flat in (False, True):
        straight, optimizer = make()
        train(straight, optimizer, range(4))
        options = StateDictOptions(flatten_optimizer_state_dict=flat)
        saved = map_tensors(own_storage, get_optimizer_state_dict(straight, optimizer, options=options))
        model, second = make(seed=5)
        model.load_state_dict(straight.state_dict())
        set_optimizer_state_dict(model, second, saved, options=options)
        for one, its in ((straight, optimizer), (model, second)):
            train(one, its, range(4, 6))
        assert same(straight, model)


def test_state_of_others_is_refused_and_leaves_it_unchanged() -> None:
    model, optimizer = make()
    train(model, optimizer, range(2))
    before = map_tensors(own_storage, optimizer.state_dict())
    soap, adamw = (build_optimizer(Net(), OptimizerConfig(name)) for name in ("soap", "adamw"))
    shorter = {**before, "param_groups": before["param_groups"][:-1]}
    turned = {**before, "param_groups": [{**group, "use_muon": False} for group in before["param_groups"]]}
    wrong = {**before, "state": {key: {"momentum_buffer": torch.ones(3)} for key in before["state"]}}
    for state, said in (
        (soap.state_dict(), "another optimizer's"),
        (adamw.state_dict(), "another optimizer's"),
        (shorter, "of another model or of other groups"),
        (turned, "of 2 parameters by AdamW, .* this optimizer .* of 2 parameters by Muon"),
        (wrong, "instead of"),
        ({}, "it lacks param_groups, state"),
    ):
        with pytest.raises(InputError, match=said):
            optimizer.load_state_dict(state)
        with pytest.raises(InputError, match=r"\w"):
            load_gathered_state_(optimizer, state)
    after = optimizer.state_dict()
    assert str(after) == str(before)
    for other in (soap, adamw):
        if isinstance(other, SOAP):
            with pytest.raises(InputError, match="SOAP"):
                other.load_state_dict(before)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"lr": -1.0}, "Invalid learning rate|should be >= 0"),
        ({"betas": (0.9, 1.0)}, "beta"),
        ({"momentum": -0.1}, "momentum"),
        ({"weight_decay": -1.0}, "weight"),
        ({"adjust_lr_fn": "mine"}, "mine"),
        ({"ns_steps": 100}, "ns_steps=100 must be a whole number below 100"),
        ({"ns_coefficients": (1.0, 2.0)}, r"ns_coefficients=\(1.0, 2.0\) must be three"),
        ({"split": 0}, "split=0 must be a whole number"),
        ({"split": 3}, "split=3 does not divide the 4 rows"),
        ({"foreach": True, "fused": True}, "foreach"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_at_once(values: dict[str, Any], said: str) -> None:
    optimizer = MuonWithAdamW([Parameter(torch.eye(4))])
    with pytest.raises(InputError, match=said):  # a group's own value, which torch would not look at before the step
        optimizer.add_param_group({"params": [Parameter(torch.eye(4))], **values})
    assert len(optimizer.param_groups) == 1
    if not values.keys() & {"adjust_lr_fn", "ns_coefficients"}:  # of another type, which the signature's check sees
        with pytest.raises(InputError, match=said):
            MuonWithAdamW([Parameter(torch.eye(4))], **values)


def test_muon_takes_real_matrices_alone() -> None:
    for param in (torch.zeros(3), torch.zeros(2, 3, 4), torch.zeros(2, 2, dtype=torch.complex64)):
        with pytest.raises(InputError, match="use_muon=False"):
            MuonWithAdamW([Parameter(param)])
    with pytest.raises(InputError, match="maximize=True is AdamW's alone"):
        MuonWithAdamW([{"params": [Parameter(torch.eye(2))], "maximize": True}])


def test_what_torch_would_get_wrong_is_refused() -> None:
    """Without Nesterov's step, the update *is* the momentum, which torch normalises in place if it is in bfloat16."""
    param = Parameter(torch.eye(2, dtype=torch.bfloat16))
    with pytest.raises(InputError, match="nesterov=False and parameters in bfloat16 do not go together"):
        MuonWithAdamW([param], nesterov=False)
    whole = Parameter(torch.eye(2))
    whole.grad = 8 * torch.eye(2)
    optimizer = MuonWithAdamW([whole], nesterov=False, momentum=0.5)
    optimizer.step()
    assert torch.equal(optimizer.state[whole]["momentum_buffer"], 4 * torch.eye(2))


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(InputError, match="Linear has no trainable weight matrix in a transformer block"):
        build_optimizer(nn.Linear(4, 2), OptimizerConfig("muon"))
