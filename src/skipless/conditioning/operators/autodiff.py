"""Products with a Jacobian by torch.func, at a frozen copy of the modules concerned."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from skipless.conditioning.operators.linear_operator import LinearOperator
from skipless.errors import InputError

Product = Callable[[Tensor], Tensor]


def frozen_copy(*modules: nn.Module) -> nn.Sequential:
    """The modules one after another, copied, in eval mode and without gradients.

    A copy, so that neither mode nor flags of the user's model are touched, and an operator goes on meaning the weights
    that it was made at while training changes them.

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
def plain_arithmetic(device: torch.device) -> Iterator[None]:
    """No autocast, and attention in operations that can be differentiated twice.

    Fused attention can be differentiated once, and in reverse only (pytorch #117629, #128971); the fast path of
    `nn.MultiheadAttention` not at all.
    """
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            torch.inference_mode(False),
            torch.autocast(device.type, enabled=False),
            sdpa_kernel(SDPBackend.MATH),
        ):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


def tangents(f: Product, x: Tensor) -> tuple[Product, Product]:
    """`v -> f'(x) v` and `u -> f'(x)^T u`, each from a graph that is built once.

    The first is the transpose of the second, which is linear in u: the reverse product of a reverse product. It costs
    half of a forward-mode product, which computes `f(x)` anew at each call, and asks of `f` no forward derivatives.
    """
    with plain_arithmetic(x.device), torch.enable_grad():
        y, pull_all = torch.func.vjp(f, x)[:2]

    @cache  # the graph of a graph is large, and some callers need no forward product
    def push_all() -> Callable[..., tuple[Tensor, ...]]:
        with plain_arithmetic(x.device), torch.enable_grad():
            return torch.func.vjp(lambda u: torch.func.vjp(f, x)[1](u)[0], torch.zeros_like(y))[1]

    def push(v: Tensor) -> Tensor:
        with plain_arithmetic(x.device), torch.no_grad():
            return push_all()(v)[0]

    def pull(u: Tensor) -> Tensor:
        with plain_arithmetic(x.device), torch.no_grad():
            return pull_all(u)[0]

    return push, pull


def token_operator(push: Product, pull: Product, x: Tensor, name: str) -> LinearOperator:
    """The operator on flattened tokens of the products on tokens shaped as `x`."""
    columns = x.numel()

    def flat(product: Product) -> Product:
        def call(v: Tensor) -> Tensor:
            with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
                return product(v.reshape(x.shape)).reshape(columns)

        return call

    return LinearOperator((columns, columns), flat(push), flat(pull), x.dtype, x.device, name)
