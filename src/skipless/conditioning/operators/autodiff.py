"""Jacobian products by torch.func, at a frozen copy of the modules."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from skipless.conditioning.operators.linear_operator import LinearOperator
from skipless.errors import InputError
from skipless.precision import full_precision

LinearMap = Callable[[Tensor], Tensor]


def frozen_copy(*modules: nn.Module) -> nn.Sequential:
    """A copy of the modules as one `nn.Sequential`, in eval mode and without gradients.

    The copy leaves mode and flags of the user's model untouched. An operator also keeps its weights while training
    changes those of the model.

    Raises:
        InputError: if a module cannot be copied.
    """
    with torch.inference_mode(False):
        try:
            return copy.deepcopy(nn.Sequential(*modules)).eval().requires_grad_(False)
        except (RuntimeError, TypeError) as error:
            names = ", ".join(type(module).__name__ for module in modules)
            raise InputError(f"cannot copy {names} to take its derivative: {error}") from error


@contextmanager
def math_attention(device: torch.device) -> Iterator[None]:
    """Switch off autocast and TF32, and select the math backend of attention, which can be differentiated twice.

    Fused attention can be differentiated only once and only in reverse mode (pytorch #117629, #128971). The fast path
    of `nn.MultiheadAttention` cannot be differentiated at all.
    """
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            torch.inference_mode(False),
            full_precision([device.type]),
            sdpa_kernel(SDPBackend.MATH),
        ):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


def linearize(f: LinearMap, x: Tensor) -> tuple[LinearMap, LinearMap]:
    """The products `v -> f'(x) v` (JVP) and `u -> f'(x)^T u` (VJP), each from a graph that is built once.

    The VJP is linear in u, so its own VJP is the JVP ("double backward" trick). This costs half of a forward-mode
    product, which computes `f(x)` anew at each call, and needs no forward-mode derivatives of `f`.
    """
    with math_attention(x.device), torch.enable_grad():
        y, vjp_of_f = torch.func.vjp(f, x)[:2]

    @cache  # built on first use: the second graph is large, and some callers need no JVP
    def jvp_of_vjp() -> Callable[..., tuple[Tensor, ...]]:
        with math_attention(x.device), torch.enable_grad():
            return torch.func.vjp(lambda u: torch.func.vjp(f, x)[1](u)[0], torch.zeros_like(y))[1]

    def jvp(v: Tensor) -> Tensor:
        with math_attention(x.device), torch.no_grad():
            return jvp_of_vjp()(v)[0]

    def vjp(u: Tensor) -> Tensor:
        with math_attention(x.device), torch.no_grad():
            return vjp_of_f(u)[0]

    return jvp, vjp


def token_operator(jvp: LinearMap, vjp: LinearMap, x: Tensor, name: str) -> LinearOperator:
    """The operator on flattened tokens, given its two products on tensors shaped like `x`."""
    columns = x.numel()

    def flat(product: LinearMap) -> LinearMap:
        def call(v: Tensor) -> Tensor:
            with torch.no_grad(), full_precision([x.device.type]):
                return product(v.reshape(x.shape)).reshape(columns)

        return call

    return LinearOperator((columns, columns), flat(jvp), flat(vjp), x.dtype, x.device, name)
