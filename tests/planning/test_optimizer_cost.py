"""Bytes and FLOPs of optimizers, beside real states and a real step's products."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from skipless.models import create_model
from skipless.optim import OptimizerConfig, build_optimizer
from skipless.planning.optimizer_cost import parameter_costs, shard_costs, total


def tensors(value) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [tensor for part in parts for tensor in tensors(part)]


def stepped(name, steps: int = 1, **sizes):
    model = create_model("vit_tiny_patch16_224", img_size=32, num_classes=10, num_heads=2, **sizes)
    optimizer = build_optimizer(model, OptimizerConfig(name=name, precondition_frequency=2))
    for _ in range(steps):
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("name", ["adamw", "soap", "muon"])
def test_state_bytes_are_those_of_the_real_state(name) -> None:
    model, optimizer = stepped(name, embed_dim=48, depth=2)
    for param, cost in zip(
        [p for group in optimizer.param_groups for p in group["params"]], parameter_costs(optimizer), strict=True
    ):
        assert cost.state_bytes == sum(t.numel() * t.element_size() for t in tensors(optimizer.state[param]))
    assert len(parameter_costs(optimizer)) == len(list(model.parameters()))


def test_soap_on_vit_small_keeps_what_the_benchmark_says() -> None:
    """The three blocks of width 384 of benchmarks/soap.md: 8.65 bytes per parameter byte."""
    with torch.device("meta"):
        model = create_model("vit_small_patch16_224", depth=3)
    cost = total(parameter_costs(build_optimizer(model, OptimizerConfig(name="soap"))))
    assert cost.state_bytes / (4 * sum(p.numel() for p in model.parameters())) == pytest.approx(8.65, abs=0.005)


class Products(TorchDispatchMode):
    """FLOPs of matrix products; FlopCounterMode leaves out those in place, as SOAP's are."""

    flops = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__.rstrip("_")
        if name in ("mm", "bmm", "addmm", "baddbmm"):
            a, b = args[-2:]
            self.flops += 2 * a.numel() * b.shape[-1]
        elif name == "_linear_pointwise":  # oneDNN's x @ w.T
            x, w = args[:2]
            self.flops += 2 * x.numel() * len(w)
        return func(*args, **(kwargs or {}))


def test_products_of_an_ordinary_step_and_of_a_refresh() -> None:
    """Widths below 129: a wider factor's product is cut to its triangle on a CPU, and whole on a GPU."""
    model, optimizer = stepped("soap", steps=2, embed_dim=32, depth=2)  # a first gradient, then step 1
    cost = total(parameter_costs(optimizer))
    found = []
    for _ in range(2):  # step 2 refreshes, step 3 does not
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        with Products() as counted:
            optimizer.step()
        found.append(counted.flops)
    assert cost.products == pytest.approx(found[1], rel=0.01)
    assert cost.products + cost.refresh_products == pytest.approx(found[0], rel=0.01)


def test_muons_products_are_those_of_a_real_step() -> None:
    model, optimizer = stepped("muon", embed_dim=32, depth=2)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    with Products() as counted:
        optimizer.step()
    assert total(parameter_costs(optimizer)).whole_products == counted.flops > 0


def test_sharded_over_ranks_muon_computes_every_update_whole() -> None:
    _, optimizer = stepped("muon", embed_dim=32, depth=2)
    cost = total(parameter_costs(optimizer))
    held = cost.divided(4)
    assert held.state_bytes == cost.state_bytes / 4
    assert held.whole_products == cost.whole_products
    matrices = sum(p.numel() for group in optimizer.param_groups if group["use_muon"] for p in group["params"])
    assert held.gathered_bytes == 3 * 4 * matrices


def test_shares_add_up_and_are_even() -> None:
    with torch.device("meta"):
        model = create_model("vit_base_patch16_224")
    costs = parameter_costs(build_optimizer(model, OptimizerConfig(name="soap")))
    for ranks in (1, 2, 8):
        held = shard_costs(costs, ranks)
        assert total(held) == total(costs) or total(held).balance == pytest.approx(total(costs).balance)
        assert max(cost.balance for cost in held) < 1.1 * total(costs).balance / ranks
    assert sum(cost.state_bytes for cost in shard_costs(costs, 64)) == total(costs).state_bytes
