"""What the tests share that put SOAP and AdamW through the same tables."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import AdamW, Optimizer

from skipless.optim import SOAP

# Two pairs that SOAP puts into one stack each, two that are alone.
SHAPES = [(6, 6), (6, 6), (8, 4), (5,), (5,), (3, 2, 4)]
KINDS = [SOAP, AdamW]
Action = Callable[[Optimizer, list[Parameter]], Any]


def make(kind: Any, **hyper: Any) -> tuple[Any, list[Parameter]]:
    generator = torch.Generator().manual_seed(0)
    params = [Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    hyper = {"lr": 0.05, **({"precondition_frequency": 3} if kind is SOAP else {}), **hyper}
    return kind([{"params": params[:3]}, {"params": params[3:], "weight_decay": 0.0}], **hyper), params


def grads_at(now: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(100 + now)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def train(optimizer: Any, params: list[Parameter], steps: range) -> None:
    for now in steps:
        for param, grad in zip(params, grads_at(now), strict=True):
            param.grad = grad.to(param.dtype)
        optimizer.step()


def values(params: list[Parameter]) -> list[Tensor]:
    return [param.detach().clone() for param in params]


def same(left: list[Tensor], right: list[Tensor]) -> list[bool]:
    return [torch.equal(a, b) for a, b in zip(left, right, strict=True)]


def moments(optimizer: Any) -> dict[int, Tensor]:
    return {index: state["exp_avg"].clone() for index, state in optimizer.state_dict()["state"].items()}


def assert_same(left: Any, right: Any) -> None:
    assert type(left) is type(right)
    if isinstance(left, Tensor):
        assert left.dtype == right.dtype
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, list):
        for a, b in zip(left, right, strict=True):
            assert_same(a, b)
    else:
        assert left == right
