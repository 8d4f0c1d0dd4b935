import math

import pytest
import torch
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.init.correlation_map import gaussian_mean
from skipless.init.gated import GATE_BIAS, draw_gated_mlp, solve_gate_spread

SIZES = [(192, 192), (192, 512), (192, 768)]


def drawn(dim: int, hidden: int, activation: nn.Module, linearity: float, seed: int = 0) -> tuple[Tensor, ...]:
    return draw_gated_mlp(dim, hidden, activation, linearity, generator=torch.Generator().manual_seed(seed))()


@pytest.mark.parametrize(("dim", "hidden"), SIZES)
@pytest.mark.parametrize("activation", [nn.SiLU(), nn.GELU()], ids=str)
@pytest.mark.parametrize("linearity", [0.93, 0.99, 1.0])
def test_the_linear_share_is_the_dial(dim: int, hidden: int, activation: nn.Module, linearity: float) -> None:
    """Whatever the number of hidden units: of 4 d the output map passes on a quarter of what varies."""
    gate, into, out_of = drawn(dim, hidden, activation, linearity)
    x = torch.randn(4000, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gates = activation(GATE_BIAS + x @ gate)
    y = (gates * (x @ into)) @ out_of
    linear = gates.mean() * x @ into @ out_of
    assert y.square().mean().item() == pytest.approx(1, abs=0.03)
    assert (linear.square().mean() / y.square().mean()).item() == pytest.approx(linearity, abs=0.01)
    assert ((y - linear) * linear).mean().item() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(("dim", "hidden"), SIZES)
def test_with_a_share_of_one_it_is_a_rotation(dim: int, hidden: int) -> None:
    gate, into, out_of = drawn(dim, hidden, nn.SiLU(), 1.0)
    assert gate.abs().max() < 1e-9
    rotation = nn.functional.silu(torch.tensor(GATE_BIAS).double()) * into @ out_of
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(dim).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("dim", "hidden"), [(256, 256), (256, 1024)])
@pytest.mark.parametrize("linearity", [0.0, 0.95])
def test_orthogonal_tokens_stay_orthogonal(dim: int, hidden: int, linearity: float) -> None:
    generator = torch.Generator().manual_seed(9)
    x = torch.linalg.qr(torch.randn(dim, 32, dtype=torch.float64, generator=generator))[0].T * dim**0.5
    for layer in range(3):
        gate, into, out_of = drawn(dim, hidden, nn.SiLU(), linearity, layer)
        y = (nn.functional.silu(GATE_BIAS + x @ gate) * (x @ into)) @ out_of
        x = nn.functional.normalize(y, dim=1) * dim**0.5
    cosines = x @ x.T / dim
    assert abs((cosines.sum() - cosines.trace()).item() / (32 * 31)) < 0.03


@pytest.mark.parametrize("passed", [1.0, 0.25])
def test_the_spread_falls_as_the_share_grows(passed: float) -> None:
    spreads = [solve_gate_spread(nn.SiLU(), share, passed) for share in (0.0, 0.9, 0.95, 0.99, 1.0)]
    assert spreads == sorted(spreads, reverse=True)
    assert spreads[0] == 1
    assert spreads[-1] == pytest.approx(0, abs=1e-9)

    def gates(z: Tensor) -> Tensor:
        return nn.functional.silu(GATE_BIAS + spreads[3] * z)

    mean, square = gaussian_mean(gates), gaussian_mean(gates, power=2)
    assert mean**2 / (mean**2 + passed * (square - mean**2)) == pytest.approx(0.99)
    assert math.isfinite(mean)


@pytest.mark.parametrize(
    ("dim", "hidden", "activation", "linearity", "words"),
    [
        (8, 7, nn.SiLU(), 1.0, "needs at least d = 8 hidden units, not 7"),
        (8, 16, nn.SiLU(), -0.1, "mlp_linearity=-0.1 is a share"),
        (8, 16, nn.Threshold(2.0, 0.0), 1.0, r"is 0 at 1\.5, where the gates would start: use mlp='orthogonal'"),
    ],
)
def test_bad_input_is_quoted(dim: int, hidden: int, activation: nn.Module, linearity: float, words: str) -> None:
    with pytest.raises(InputError, match=words):
        draw_gated_mlp(dim, hidden, activation, linearity)
