"""A gated MLP without biases, whose gates and values are one map in pairs of opposite sign."""

import math

import pytest
import torch
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.init.correlation_map import gaussian_mean
from skipless.init.mirrored_gated import (
    GATE_SCALE,
    draw_mirrored_gated_mlp,
    gated_linearity,
    odd_product,
    solve_gate_scale,
)

LIMIT = 8 / (3 * math.pi)  # the linear share of u |u|


def drawn(dim: int, hidden: int, activation: nn.Module, linearity: float | None = None, seed: int = 0):
    return draw_mirrored_gated_mlp(dim, hidden, activation, linearity, generator=torch.Generator().manual_seed(seed))()


def mlp(maps: tuple[Tensor, Tensor, Tensor], activation: nn.Module, x: Tensor) -> Tensor:
    gate, up, down = maps
    return (activation(x @ gate) * (x @ up)) @ down


def normal(count: int, dim: int) -> Tensor:
    return torch.randn(count, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("dim", "hidden"), [(96, 192), (96, 257), (96, 384)])
@pytest.mark.parametrize("activation", [nn.SiLU(), nn.GELU(), nn.ReLU(), nn.Sigmoid()], ids=str)
def test_it_is_odd_and_has_the_mean_square_of_its_pairs(dim: int, hidden: int, activation: nn.Module) -> None:
    maps, x = drawn(dim, hidden, activation), normal(2000, dim)
    y = mlp(maps, activation, x)
    torch.testing.assert_close(mlp(maps, activation, -x), -y)
    square = gaussian_mean(odd_product(activation, GATE_SCALE), power=2)
    assert y.square().mean().item() == pytest.approx(square, rel=0.1)
    gate, up, down = maps
    torch.testing.assert_close(gate, GATE_SCALE * up)
    if hidden % 2:
        assert not up[:, -1].any()
        assert not down[-1].any()


@pytest.mark.parametrize("linearity", [None, 0.68, 0.75, 0.84])
def test_the_linear_share_is_the_dial(linearity: float | None) -> None:
    """Of 2 d hidden units A is a rotation, and a direction of tokens has one pair."""
    maps, x = drawn(128, 256, nn.SiLU(), linearity), normal(20_000, 128)
    y = mlp(maps, nn.SiLU(), x)
    best = torch.linalg.lstsq(x, y).solution
    share = ((x @ best).square().mean() / y.square().mean()).item()
    assert share == pytest.approx(linearity or gated_linearity(nn.SiLU(), GATE_SCALE), abs=0.01)
    rotation = best / (best.square().sum() / 128).sqrt()
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(128).double(), atol=0.06, rtol=0)


def test_the_share_grows_to_that_of_a_kink() -> None:
    shares = [gated_linearity(nn.SiLU(), scale) for scale in (0.01, 0.5, 1.0, 2.0, 8.0, 1000.0)]
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(0.6, abs=1e-3)  # of u^3
    assert shares[-1] == pytest.approx(LIMIT, abs=1e-3)
    assert gated_linearity(nn.ReLU(), 1.0) == pytest.approx(LIMIT, abs=1e-3)
    assert gated_linearity(nn.Sigmoid(), 3.0) == pytest.approx(1)  # sigmoid(z) + sigmoid(-z) = 1


@pytest.mark.parametrize("linearity", [0.61, 0.7, 0.8, 0.84])
def test_the_scale_has_the_share(linearity: float) -> None:
    assert gated_linearity(nn.SiLU(), solve_gate_scale(nn.SiLU(), linearity)) == pytest.approx(linearity, abs=1e-6)


def test_a_pair_is_an_odd_increasing_function() -> None:
    u = torch.linspace(-4, 4, 101, dtype=torch.float64)
    values = odd_product(nn.SiLU(), GATE_SCALE)(u)
    assert (values.diff() > 0).all()
    torch.testing.assert_close(
        values, nn.functional.silu(GATE_SCALE * u) * u - nn.functional.silu(-GATE_SCALE * u) * -u
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_orthogonal_tokens_stay_orthogonal(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.linalg.qr(torch.randn(256, 32, dtype=torch.float64, generator=generator))[0].T * 16
    for layer in range(12):
        y = mlp(drawn(256, 683, nn.SiLU(), seed=layer), nn.SiLU(), x)
        x = nn.functional.normalize(y, dim=1) * 16
    cosines = x @ x.T / 256
    assert abs((cosines.sum() - cosines.trace()).item() / (32 * 31)) < 0.01


@pytest.mark.parametrize(
    ("dim", "hidden", "activation", "linearity", "message"),
    [
        (8, 15, nn.SiLU(), None, "at least 16; this one has 15: use mlp='orthogonal'"),
        (8, 16, nn.Tanh(), None, "Tanh.* is odd, and pairs of opposite sign would cancel"),
        (8, 16, nn.SiLU(), 0.9, r"mlp_linearity=0.9: .* linear share of 0.60 to 0.85"),
        (8, 16, nn.SiLU(), 0.5, r"mlp_linearity=0.5: .* build the MLP with biases"),
        (8, 16, nn.SiLU(), 1.5, "is a share"),
    ],
)
def test_what_cannot_be_drawn_is_refused(dim, hidden, activation, linearity, message) -> None:
    with pytest.raises(InputError, match=message):
        draw_mirrored_gated_mlp(dim, hidden, activation, linearity)
