"""Sine-activated low-rank weights, sin(omega B A) / g (arXiv 2403.19243): products that keep B and A alone."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear

from skipless.errors import InputError
from skipless.precision import full_precision


def sine_weight(
    b: Float[Tensor, "o r"], a: Float[Tensor, "r i"], frequency: float, scaling: float
) -> Float[Tensor, "o i"]:
    """sin(frequency B A) / scaling, in float32 or wider; the way back keeps B and A alone, and computes B A again.

    The product and the sine are in float32 whatever the inputs' dtype and autocast: at omega = 200 an error of 2^-9 of
    B A, as bfloat16 makes, is one of 0.4 |B A| in the phase. TF32 is off for it, too, except under `torch.compile`,
    whose graphs take it from PyTorch's settings.

    Args:
        b: the outer factor.
        a: the inner factor.
        frequency: omega.
        scaling: g, by which the sine is divided.

    Example:
        >>> sine_weight(torch.ones(1, 1), torch.tensor([[0.0, math.pi / 2]]), 1.0, 2.0).tolist()
        [[0.0, 0.5]]
    """
    used = _SineWeight if torch.compiler.is_compiling() else _SineWeightForwards
    return used.apply(b, a, frequency, scaling)  # pyright: ignore[reportReturnType]


def sine_linear(
    x: Float[Tensor, "... i"], b: Float[Tensor, "o r"], a: Float[Tensor, "r i"], frequency: float, scaling: float
) -> Float[Tensor, "... o"]:
    """x (sin(frequency B A) / scaling)^T, in x's dtype or autocast's; the way back keeps x, B and A alone.

    The weight, o x i, is there while one layer is computed, forwards and backwards, and at no other time.

    Args:
        x: inputs.
        b: the outer factor.
        a: the inner factor.
        frequency: omega.
        scaling: g, by which the sine is divided.

    Example:
        >>> x = torch.eye(2)
        >>> sine_linear(x, torch.ones(1, 1), torch.tensor([[0.0, math.pi / 2]]), 1.0, 2.0).tolist()
        [[0.0], [0.5]]
    """
    kind = x.device.type
    used = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    product = _SineLinear if torch.compiler.is_compiling() else _SineLinearForwards
    return product.apply(x.to(used), b, a, frequency, scaling)  # pyright: ignore[reportReturnType]


def check_sine(frequency: float, scaling: float | None) -> None:
    """Refuse what is no frequency or no scaling.

    Raises:
        InputError: for a number that is not finite and above 0; the authors' frequency of 0 means that there is no
            adapter.

    Example:
        >>> check_sine(200.0, None)
    """
    if not (math.isfinite(frequency) and frequency > 0):
        raise InputError(f"frequency={frequency}: give a number above 0 (the authors use 200 for adapters)")
    if scaling is not None and not (math.isfinite(scaling) and scaling > 0):
        raise InputError(f"scaling={scaling}: give a number above 0, or None for the square root of the inputs")


def wide(x: Tensor) -> Tensor:
    """A tensor in float32, or in float64 if it is.

    Example:
        >>> wide(torch.zeros(2, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return x if x.dtype == torch.float64 else x.float()


@contextmanager
def _plain(device: str) -> Iterator[None]:
    """No autocast; no TF32 either, except in graphs, which cannot change PyTorch's settings."""
    if torch.compiler.is_compiling():
        with torch.autocast(device, enabled=False):
            yield
    else:
        with full_precision([device]):
            yield


def _phase(b: Tensor, a: Tensor, frequency: float) -> Tensor:
    with _plain(b.device.type):
        return frequency * (wide(b) @ wide(a))


def _through_sine(grad_w: Tensor, b: Tensor, a: Tensor, frequency: float, scaling: float) -> tuple[Tensor, Tensor]:
    """Gradients of B and A from that of the weight."""
    phase = _phase(b, a, frequency)
    with _plain(b.device.type):
        grad = grad_w.to(phase.dtype) * phase.cos() * (frequency / scaling)
        return (grad @ wide(a).mT).to(b.dtype), (wide(b).mT @ grad).to(a.dtype)


def _sine_tangent(inputs: Any, tangents: Any, frequency: float, scaling: float) -> Tensor:
    """The change of the weight with B and A; a tangent that is None is 0."""
    (b, a), (b_t, a_t) = inputs, tangents
    with _plain(b.device.type):
        change = torch.zeros_like(_phase(b, a, frequency))
        change = change if b_t is None else change + wide(b_t) @ wide(a)
        change = change if a_t is None else change + wide(b) @ wide(a_t)
        return change * _phase(b, a, frequency).cos() * (frequency / scaling)


class _SineWeight(torch.autograd.Function):
    """The weight; B and A are kept."""

    generate_vmap_rule = True

    @staticmethod
    def forward(b: Tensor, a: Tensor, frequency: float, scaling: float) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _phase(b, a, frequency).sin() / scaling

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        b, a, *ctx.constants = inputs
        ctx.save_for_backward(b, a)
        ctx.save_for_forward(b, a)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        b, a = ctx.saved_tensors
        return (*_through_sine(grad, b, a, *ctx.constants), None, None)


class _SineLinear(torch.autograd.Function):
    """Inputs times the weight; inputs, B and A are kept."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, b: Tensor, a: Tensor, frequency: float, scaling: float) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        weight = (_phase(b, a, frequency).sin() / scaling).to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            return linear(x, weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, b, a, *ctx.constants = inputs
        ctx.save_for_backward(x, b, a)
        ctx.save_for_forward(x, b, a)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, b, a = ctx.saved_tensors
        grad_x = grad_b = grad_a = None
        with torch.autocast(x.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                frequency, scaling = ctx.constants
                grad_x = grad @ (_phase(b, a, frequency).sin() / scaling).to(grad.dtype)
            if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
                grad_w = grad.reshape(-1, grad.shape[-1]).mT @ x.reshape(-1, x.shape[-1])
                grad_b, grad_a = _through_sine(grad_w, b, a, *ctx.constants)
        return grad_x, grad_b, grad_a, None, None


class _SineWeightForwards(_SineWeight):
    """The same with forward-mode derivatives, which `torch.compile` does not take."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _sine_tangent(ctx.saved_tensors, tangents[:2], *ctx.constants)


class _SineLinearForwards(_SineLinear):
    """The same with forward-mode derivatives, which `torch.compile` does not take."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        x, b, a = ctx.saved_tensors
        frequency, scaling = ctx.constants
        with torch.autocast(x.device.type, enabled=False):
            change = linear(x, _sine_tangent((b, a), tangents[1:3], frequency, scaling).to(x.dtype))
            if tangents[0] is not None:
                change = change + linear(tangents[0], (_phase(b, a, frequency).sin() / scaling).to(x.dtype))
        return change
