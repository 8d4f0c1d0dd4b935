"""Conditioning is measured in full precision, whatever the settings for training are."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from skipless.conditioning import (
    LinearOperator,
    attn_jacobian,
    check_assumptions,
    measure_conditioning,
    mlp_jacobian,
    param_jacobian,
    predict_token_cosine,
    spectral_density,
    spectrum,
)
from skipless.models import block_views, create_model
from skipless.precision import full_precision

PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "convolution", "dot", "_linear_pointwise"}


def state() -> tuple[str, ...]:
    """The settings that decide how float32 is multiplied."""
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul, torch.backends.cudnn.conv)
    return tuple(backend.fp32_precision for backend in backends)


class Products(TorchDispatchMode):
    """Notes the products of float32 that are made while a reduced precision is in force."""

    def __init__(self) -> None:
        super().__init__()
        self.made, self.reduced = 0, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Note and run it."""
        name = func.overloadpacket.__name__
        if name in PRODUCTS and any(isinstance(arg, Tensor) and arg.dtype == torch.float32 for arg in args):
            self.made += 1
            if {"tf32", "bf16"} & set(state()):
                self.reduced.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def reduced() -> Iterator[None]:
    """Training in TF32, as users set it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return create_model("vit_tiny_patch16_224", depth=2, img_size=32, embed_dim=24, num_heads=2, seed=0)


def block(model: nn.Module) -> nn.Module:
    return block_views(model)[0].block


X, IMAGES = (torch.randn(size, generator=torch.Generator().manual_seed(0)) for size in ((5, 24), (4, 3, 32, 32)))
MEASURES: dict[str, Callable[[nn.Module], object]] = {
    "K, closed": lambda model: attn_jacobian(block(model), X, method="closed").matvec(torch.ones(120)),
    "K, autograd": lambda model: attn_jacobian(block(model), X, method="autograd").rmatvec(torch.ones(120)),
    "K, dense": lambda model: attn_jacobian(block(model), X).to_dense(),
    "K^": lambda model: mlp_jacobian(block(model), X).blocks(),
    "J": lambda model: (j := param_jacobian(model, IMAGES)).rmatvec(torch.ones(j.shape[0])),
    "spectrum": lambda _: spectrum(LinearOperator.from_dense(torch.eye(200) * 2), method="lanczos"),
    "density": lambda _: spectral_density(LinearOperator.from_dense(torch.diag(torch.rand(50) + 1)), dense_rows=0),
    "measure": lambda model: measure_conditioning(model, IMAGES),
    "assumptions": lambda model: check_assumptions(model, IMAGES),
    "token cosine": lambda model: predict_token_cosine(model, IMAGES),
}


@pytest.mark.parametrize("name", MEASURES)
def test_a_measurement_does_not_use_tf32(name: str, model, reduced) -> None:
    before = state()
    with Products() as products:
        MEASURES[name](model)
    assert products.made > 0
    assert not products.reduced
    assert state() == before


def test_full_precision_covers_convolutions() -> None:
    before = torch.backends.cudnn.conv.fp32_precision
    with full_precision():
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"
    assert torch.backends.cudnn.conv.fp32_precision == before
