"""Sine-activated low-rank weights: against the formula in float64, derivatives of all kinds, SineLowRank."""

import copy
import math
import pickle

import pytest
import torch
from reference import sine as twin
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.utils import parametrize

from skipless.errors import InputError
from skipless.nn import SineLowRank
from skipless.nn.sine import sine_linear, sine_weight

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")


def _factors(dtype: torch.dtype = torch.double) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    sizes = ((2, 3, 5), (4, 2), (2, 5))
    return tuple(torch.randn(size, generator=generator).to(dtype).requires_grad_() for size in sizes)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_weight_is_the_formula(dtype) -> None:
    _, b, a = _factors(dtype)
    found = sine_weight(b, a, 30.0, 2.0)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    tolerance = 1e-10 if dtype == torch.float64 else 2e-5
    torch.testing.assert_close(found.double(), twin.delta(b, a, 30.0, 2.0, 1, 1), rtol=0, atol=tolerance)


def test_derivatives_of_both_orders_and_directions() -> None:
    x, b, a = _factors()
    checks = {"check_forward_ad": True, "check_batched_grad": True, "check_batched_forward_grad": True}
    assert gradcheck(lambda *parts: sine_linear(*parts, 2.0, 3.0), (x, b, a), **checks)
    assert gradcheck(lambda *parts: sine_weight(*parts, 2.0, 3.0), (b, a), **checks)
    assert gradgradcheck(lambda *parts: sine_linear(*parts, 2.0, 3.0), (x, b, a))
    assert gradgradcheck(lambda *parts: sine_weight(*parts, 2.0, 3.0), (b, a))


def test_under_vmap() -> None:
    x, b, a = _factors()
    stacked = torch.stack([b, 2 * b])
    found = torch.func.vmap(lambda one: sine_linear(x, one, a, 2.0, 3.0))(stacked)
    torch.testing.assert_close(found[1], sine_linear(x, 2 * b, a, 2.0, 3.0))


def test_only_what_asks_for_a_gradient_gets_one() -> None:
    x, b, a = (part.detach() for part in _factors())
    sine_linear(x, b.requires_grad_(), a, 2.0, 3.0).sum().backward()
    assert b.grad is not None
    assert (x.grad, a.grad) == (None, None)


@pytest.mark.parametrize("setting", ["medium", "high"])
def test_the_product_is_exact_whatever_the_settings_for_training(setting, device) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(setting)
    try:
        generator = torch.Generator().manual_seed(0)
        b, a = (torch.randn(size, generator=generator) for size in ((64, 8), (8, 64)))
        found = sine_weight(b.to(device), a.to(device), 200.0, 1.0).cpu().double()
    finally:
        torch.set_float32_matmul_precision(before)
    exact = torch.sin(200 * (b.double() @ a.double()))
    assert (found - exact).abs().max() < 2e-3
    assert torch.get_float32_matmul_precision() == before


def _layer(**options) -> nn.Linear:
    torch.manual_seed(0)
    layer = nn.Linear(48, 32)
    return parametrize.register_parametrization(layer, "weight", SineLowRank(4, **options))


@pytest.mark.parametrize("scaling", [None, 3.0])
def test_a_parametrized_weight_is_the_formula(scaling) -> None:
    layer = _layer(frequency=150.0, scaling=scaling).double()
    u, v = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
    torch.testing.assert_close(layer.weight, twin.delta(u, v.mT, 150.0, scaling, 1, 1), rtol=0, atol=1e-10)
    assert (tuple(u.shape), tuple(v.shape)) == ((32, 4), (48, 4))
    assert set(layer.state_dict()) == {"bias", "parametrizations.weight.original0", "parametrizations.weight.original1"}


def test_it_starts_where_the_sine_is_not_linear_and_the_weight_as_large_as_others() -> None:
    torch.manual_seed(0)
    layer = parametrize.register_parametrization(nn.Linear(768, 512), "weight", SineLowRank(8))
    u, v = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
    assert (200 * (u @ v.mT)).std().item() == pytest.approx(200 / (3 * math.sqrt(768)), rel=0.05)
    assert layer.weight.std().item() == pytest.approx(math.sqrt(0.5 / 768), rel=0.1)
    assert int(torch.linalg.matrix_rank(layer.weight)) == 512


def test_a_generator_decides_the_draw_and_does_not_hinder_copies() -> None:
    layers = [_layer(generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(layers[0].weight, layers[1].weight)
    assert not torch.equal(layers[0].weight, layers[2].weight)
    assert torch.equal(copy.deepcopy(layers[0]).weight, layers[0].weight)
    assert torch.equal(pickle.loads(pickle.dumps(layers[0].parametrizations.weight[0])).forward(
        layers[0].parametrizations.weight.original0, layers[0].parametrizations.weight.original1
    ), layers[0].weight)  # fmt: skip


def test_the_svd_start_is_the_weight_where_its_rank_suffices() -> None:
    """A weight that is a sine of a product of that rank comes back, and so does one that is assigned later."""
    generator = torch.Generator().manual_seed(0)
    u, v = torch.randn(32, 4, generator=generator), torch.randn(48, 4, generator=generator)
    weight = sine_weight(u, 0.02 * v.mT, 5.0, math.sqrt(48))
    layer = nn.Linear(48, 32)
    layer.weight.data.copy_(weight)
    parametrize.register_parametrization(layer, "weight", SineLowRank(4, frequency=5.0, start="svd"))
    torch.testing.assert_close(layer.weight, weight, rtol=0, atol=1e-5)
    other = _layer(frequency=5.0)
    other.weight = weight
    torch.testing.assert_close(other.weight, weight, rtol=0, atol=1e-5)


def test_it_learns_what_plain_low_rank_cannot() -> None:
    """A rotation of 32 dimensions, with rank 4: the best plain weight leaves 28 of 32 parts of the error."""
    torch.manual_seed(0)
    target = nn.init.orthogonal_(torch.empty(32, 32))
    layer = nn.Linear(32, 32, bias=False)
    parametrize.register_parametrization(layer, "weight", SineLowRank(4, 20.0, scaling=1.0))
    optimizer = torch.optim.Adam(layer.parameters(), 1e-3)
    for _ in range(600):
        loss = (layer.weight - target).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert int(torch.linalg.matrix_rank(layer.weight)) > 16
    assert loss.item() < 28


def test_cached_and_baked() -> None:
    layer = _layer()
    x = torch.randn(3, 48)
    expected = layer(x)
    with parametrize.cached():
        assert layer.weight is layer.weight
        assert torch.equal(layer(x), expected)
    parametrize.remove_parametrizations(layer, "weight")
    assert torch.equal(layer(x), expected)
    assert set(layer.state_dict()) == {"weight", "bias"}


def test_in_bfloat16_the_product_is_in_float32() -> None:
    layer = _layer(frequency=2000.0).to(torch.bfloat16)
    u, v = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
    assert layer.weight.dtype == torch.bfloat16
    torch.testing.assert_close(layer.weight.double(), twin.delta(u, v.mT, 2000.0, None, 1, 1), rtol=0, atol=2e-3)


def test_what_it_cannot_take_is_refused(unchecked) -> None:
    for options, told in (
        ({"rank": 0}, "rank=0: give a rank of 1 or more"),
        ({"rank": 2, "frequency": 0.0}, "frequency=0.0: give a number above 0"),
        ({"rank": 2, "scaling": -1.0}, "scaling=-1.0: give a number above 0"),
        ({"rank": 2, "start": "zero"}, "start='zero' is not one of 'random', 'svd'"),
    ):
        with pytest.raises(InputError, match=told):
            SineLowRank(**options)
    with pytest.raises(InputError, match=r"rank=9 for a weight of shape \(6, 8\)"):
        parametrize.register_parametrization(nn.Linear(8, 6), "weight", SineLowRank(9))
    with pytest.raises(InputError, match=r"a weight of shape \(4, 2, 3, 3\)"):
        parametrize.register_parametrization(nn.Conv2d(2, 4, 3), "weight", SineLowRank(1))
