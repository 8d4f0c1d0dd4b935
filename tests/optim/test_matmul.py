"""SOAP's matrix products: exact in every memory layout, by either library."""

import pytest
import torch
from torch import Tensor

from skipless.optim import SOAP
from skipless.optim.soap import matmul as matmul_module

SIDE = 192  # its cube is above the smallest product that goes to oneDNN

needs_onednn = pytest.mark.skipif(
    not matmul_module._has_onednn(torch.zeros(1)), reason="torch has no oneDNN on this processor"
)


def laid_out(layout: str, stack: int) -> Tensor:
    """A stack of matrices that lie in memory in one of the ways that SOAP meets."""
    whole = torch.randn(stack, 2 * SIDE, 2 * SIDE, generator=torch.Generator().manual_seed(len(layout)))
    ways = {
        "plain": whole[:, :SIDE, :SIDE].contiguous,
        "transposed": lambda: whole[:, :SIDE, :SIDE].contiguous().mT,
        "rows": lambda: whole[:, :, :SIDE].contiguous()[:, :SIDE],
        "columns": lambda: whole[:, :SIDE][..., :SIDE],
        "columns transposed": lambda: whole[:, :SIDE][..., :SIDE].mT,
    }
    return ways[layout]()


LAYOUTS = ["plain", "transposed", "rows", "columns", "columns transposed"]


@pytest.fixture
def calls(monkeypatch) -> list[tuple[int, ...]]:
    """Shapes of the products that oneDNN computes."""
    made: list[tuple[int, ...]] = []
    linear = matmul_module._onednn_linear
    monkeypatch.setattr(
        matmul_module, "_onednn_linear", lambda x, w: (made.append((*x.shape, len(w))), linear(x, w))[1]
    )
    return made


@pytest.mark.parametrize("stack", [1, 3])
@pytest.mark.parametrize("left", LAYOUTS)
@pytest.mark.parametrize("right", LAYOUTS)
def test_a_product_does_not_depend_on_how_matrices_lie(left: str, right: str, stack: int, calls) -> None:
    x, y = laid_out(left, stack), laid_out(right, stack)
    made = matmul_module.matmul(x, y)
    assert len(calls) == (stack if matmul_module._has_onednn(x) else 0)
    assert made.shape == (stack, SIDE, SIDE)
    torch.testing.assert_close(made.double(), x.double() @ y.double(), rtol=0, atol=3e-4)  # entries of about 14


@needs_onednn
def test_small_products_and_float64_are_left_to_torch(calls, monkeypatch) -> None:
    small, large = torch.randn(1, 96, 96), torch.randn(1, SIDE, SIDE)
    assert torch.equal(matmul_module.matmul(small, small), small @ small)
    assert torch.equal(matmul_module.matmul(large.double(), large.double()), large.double() @ large.double())
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    assert torch.equal(matmul_module.matmul(large, large), large @ large)
    assert not calls


@needs_onednn
def test_soap_is_the_same_by_either_library(calls, monkeypatch) -> None:
    weights = [torch.nn.Parameter(torch.zeros(2 * SIDE, SIDE)) for _ in range(2)]
    for weight, enabled in zip(weights, (True, False), strict=True):
        monkeypatch.setattr(torch.backends.mkldnn, "enabled", enabled)
        optimizer, draws = SOAP([weight], lr=1.0, precondition_frequency=2), torch.Generator().manual_seed(0)
        for _ in range(4):
            weight.grad = torch.randn(weight.shape, generator=draws)
            optimizer.step()
    assert calls
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=2e-3)  # of 3: each rounds its own way
