"""C-maps against closed forms, 2-D quadrature, and wide random layers."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.init import CorrelationMap, scaled_uniform_orthogonal, solve_linearity
from skipless.init.correlation_map import gaussian_mean, odd_slope
from skipless.models import create_model
from skipless.models.starting.suited import suited_init

SMOOTH = [nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Tanh(), nn.Softplus(), nn.Mish()]
KINKED = [nn.ReLU(), nn.LeakyReLU(0.3), nn.Hardswish(), nn.ELU()]
RHOS = (-0.9, -0.3, 0.0, 0.2, 0.5, 0.8, 0.99)


def quadrature(f: Callable[[Tensor], Tensor], rho: float, points: int = 120) -> float:
    """E f(u) f(v) / E f(u)^2 by Gauss and Hermite, with v = rho u + sqrt(1 - rho^2) z."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(points)
    weights = torch.tensor(weights / weights.sum())
    u = torch.tensor(nodes)
    v = rho * u[:, None] + math.sqrt(1 - rho**2) * u[None, :]
    return ((f(u) * weights) @ f(v) @ weights / (f(u).square() @ weights)).item()


def arc_cosine(rho: float, slope: float) -> float:
    """Leaky ReLU's map in closed form: relu(x) - slope relu(-x) (Cho and Saul 2009)."""
    same = (math.sqrt(1 - rho**2) + rho * (math.pi - math.acos(rho))) / (2 * math.pi)
    other = (math.sqrt(1 - rho**2) - rho * math.acos(rho)) / (2 * math.pi)
    return ((1 + slope**2) * same - 2 * slope * other) / ((1 + slope**2) / 2)


def named(value: object) -> str:
    """A name that is the same in every process, as test runners that share the tests out need it."""
    return getattr(value, "__name__", str(value))


@pytest.mark.parametrize("activation", SMOOTH, ids=str)
def test_the_map_is_that_of_two_dimensional_quadrature(activation: nn.Module) -> None:
    found = CorrelationMap.of(activation)
    for rho in RHOS:
        assert found(rho) == pytest.approx(quadrature(activation, rho), abs=2e-6)


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.5, 1.0, -1.0])
def test_relu_has_the_arc_cosine_kernel(slope: float) -> None:
    found = CorrelationMap.of(nn.LeakyReLU(slope))
    for rho in RHOS:
        assert found(rho) == pytest.approx(arc_cosine(rho, slope), abs=1e-4)


@pytest.mark.parametrize("activation", [*SMOOTH, *KINKED], ids=str)
def test_weights_are_shares(activation: nn.Module) -> None:
    found = CorrelationMap.of(activation)
    assert min(found.weights) >= 0
    assert sum(found.weights) == pytest.approx(1, abs=1e-12)
    assert found(1.0) == pytest.approx(1, abs=1e-12)
    assert found(0.0) == pytest.approx(gaussian_mean(activation) ** 2 / gaussian_mean(activation, power=2))
    rhos = torch.tensor(RHOS, dtype=torch.float64)
    assert found(rhos).tolist() == pytest.approx([found(rho) for rho in RHOS])


@pytest.mark.parametrize("activation", SMOOTH, ids=str)
def test_the_slope_is_that_of_the_derivative(activation: nn.Module) -> None:
    """C'(1) = E f'(u)^2 / E f(u)^2."""
    step = 1e-4
    derivative = gaussian_mean(lambda u: (activation(u + step) - activation(u - step)) / (2 * step), power=2)
    expected = derivative / gaussian_mean(activation, power=2)
    assert CorrelationMap.of(activation).slope == pytest.approx(expected, rel=1e-4)


def test_a_kink_costs_the_slope_no_more_than_is_said() -> None:
    assert 0.98 < CorrelationMap.of(nn.ReLU()).slope < 1.0
    assert 0.96 < CorrelationMap.of(nn.LeakyReLU(-1.0)).slope < 1.0  # |x|, twice the kink


@pytest.mark.parametrize("activation", [nn.GELU(), nn.SiLU(), nn.ReLU(), nn.Hardswish(), nn.Tanh()], ids=str)
@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_wide_random_layers_follow_it(activation: nn.Module, rho: float) -> None:
    """Two tokens of a given cosine through three layers of two scaled orthogonal maps each, sized anew between them."""
    dim, hidden, c_map = 384, 1536, CorrelationMap.of(activation)
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(dim, 32, generator=generator, dtype=torch.float64))[0].T * dim**0.5
    x = torch.cat((basis[:16], rho * basis[:16] + math.sqrt(1 - rho**2) * basis[16:]))
    expected = rho
    for _ in range(3):
        maps = [scaled_uniform_orthogonal(*size, generator=generator) for size in ((dim, hidden), (hidden, dim))]
        x = activation(x @ maps[0].double()) @ maps[1].double()
        x = nn.functional.normalize(x, dim=1) * dim**0.5
        expected = c_map(expected)
        assert (x[:16] * x[16:]).sum(1).mean().item() / dim == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("linearity", [0.0, 0.3, 0.9, 1.0])
def test_another_linear_share_keeps_the_proportions_of_the_rest(linearity: float) -> None:
    own = CorrelationMap.of(nn.GELU())
    other = own.with_linearity(linearity)
    assert other.linearity == linearity
    assert sum(other.weights) == pytest.approx(1, abs=1e-12)
    if linearity < 1:
        assert other.weights[2] / other.weights[0] == pytest.approx(own.weights[2] / own.weights[0])
        assert own.with_linearity(own.linearity).weights == pytest.approx(own.weights)
    else:
        assert [other(rho) for rho in RHOS] == pytest.approx(RHOS)


def test_a_linear_map_has_no_other_shares() -> None:
    """It gave a map whose weights were not a sum of 1, or one with another share than was asked for."""
    own = CorrelationMap.of(nn.Identity())
    assert [own(rho) for rho in RHOS] == pytest.approx(RHOS)
    assert own.with_linearity(1.0) == own
    assert solve_linearity(nn.Identity(), 36, 0.1) == pytest.approx(1.0)
    with pytest.raises(InputError, match=r"no other share than its linear one: it cannot be 0\.3; give 1"):
        own.with_linearity(0.3)


def test_a_gate_multiplies_by_the_cosine() -> None:
    own = CorrelationMap.of(nn.SiLU())
    for rho in RHOS:
        assert own.gated()(rho) == pytest.approx(rho * own(rho))
    tied = own.gated(4.0)
    assert tied(1.0) == pytest.approx(1)
    assert tied.linearity / tied.weights[2] == pytest.approx(4 * own.weights[0] / own.weights[1])


@pytest.mark.parametrize("activation", [nn.GELU(), nn.SiLU(), nn.ReLU()], ids=str)
@pytest.mark.parametrize(("layers", "cosine"), [(1, 0.5), (4, 0.5), (12, 0.5), (72, 0.2)])
def test_the_solved_share_is_the_least_that_suffices(activation: nn.Module, layers: int, cosine: float) -> None:
    own = CorrelationMap.of(activation)
    share = solve_linearity(activation, layers, cosine)
    assert own.with_linearity(share).after(layers) <= cosine + 1e-6
    if share > own.linearity:
        assert own.with_linearity(share - 1e-4).after(layers) > cosine
    else:
        assert own.after(layers) <= cosine
    assert solve_linearity(activation, 2 * layers, cosine) >= share


@pytest.mark.parametrize(
    ("activation", "slope"),
    [
        *((nn.GELU(), 1.0), (nn.GELU("tanh"), 1.0), (nn.SiLU(), 1.0), (nn.ReLU(), 1.0), (nn.Hardswish(), 1.0)),
        *((nn.Softplus(), 1.0), (nn.LeakyReLU(0.1), 1.1), (nn.LeakyReLU(1 / 3), 4 / 3), (nn.Identity(), 2.0)),
        (lambda x: x * torch.sigmoid(1.702 * x), 1.0),
    ],
    ids=named,
)
def test_odd_parts_that_are_linear(activation: Callable[[Tensor], Tensor], slope: float) -> None:
    assert odd_slope(activation) == pytest.approx(slope, abs=1e-12)


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.ELU(), nn.Mish(), torch.abs, torch.square, torch.log], ids=named)
def test_other_odd_parts_are_refused(activation: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(InputError, match="has no linear odd part: .*; choose one of these, or mlp='orthogonal'"):
        odd_slope(activation)


@pytest.mark.parametrize("activation", [nn.ReLU(inplace=True), nn.SiLU(inplace=True), nn.LeakyReLU(0.2, inplace=True)])
def test_an_activation_in_place_does_not_write_into_the_grid(activation: nn.Module) -> None:
    """It overwrote the points of all later integrals, and its own odd part."""
    before = CorrelationMap.of(nn.GELU())
    own, slope = CorrelationMap.of(activation), odd_slope(activation)
    assert CorrelationMap.of(nn.GELU()) == before
    activation.inplace = False
    assert own == CorrelationMap.of(activation)
    assert slope == odd_slope(activation)


@pytest.mark.parametrize("activation", [nn.PReLU(init=0.2), nn.PReLU(init=0.2).bfloat16()], ids=["float", "bfloat"])
def test_an_activation_may_have_parameters(activation: nn.PReLU) -> None:
    """It ended in torch's error of dtypes that do not match."""
    slope = activation.weight.item()
    assert CorrelationMap.of(activation)(0.3) == pytest.approx(arc_cosine(0.3, slope), abs=1e-4)
    assert odd_slope(activation) == pytest.approx(1 + slope)
    assert activation.weight.dtype in (torch.float32, torch.bfloat16)
    model = create_model("vit_tiny_patch16_224", depth=1, embed_dim=24, num_heads=2, act_layer="prelu")
    assert suited_init(model).mlp == "mirrored"


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_a_device_in_force_does_not_reach_the_grid(device: str) -> None:
    """The grid is made once: made on another device, it spoiled all later integrals."""
    from skipless.init import correlation_map

    correlation_map._grid.cache_clear()
    with torch.device(device):
        assert CorrelationMap.of(nn.ReLU()).linearity == pytest.approx(0.5)
    assert CorrelationMap.of(nn.ReLU()).linearity == pytest.approx(0.5)


def overflowing(u: Tensor) -> Tensor:
    return torch.exp(u**4)


@pytest.mark.parametrize("activation", [torch.zeros_like, torch.log, overflowing])
def test_what_has_no_map_is_refused(activation: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(InputError, match="it has no C-map"):
        CorrelationMap.of(activation)


@pytest.mark.parametrize(
    ("layers", "cosine", "words"), [(0, 0.5, "layers=0, cosine=0.5"), (3, 1.0, "cosine=1.0"), (3, 0.0, "cosine=0.0")]
)
def test_values_out_of_range_are_quoted(layers: int, cosine: float, words: str) -> None:
    with pytest.raises(InputError, match=words):
        solve_linearity(nn.GELU(), layers, cosine)
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match=f"mlp_linearity={share} is a share: give a number from 0 to 1"):
            CorrelationMap.of(nn.GELU()).with_linearity(share)
