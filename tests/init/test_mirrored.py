import math

import pytest
import torch
from torch import nn

from skipless.errors import InputError
from skipless.init import CorrelationMap, mirrored_mlp

LINEAR_ODD = [
    *(nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.ReLU(), nn.Hardswish(), nn.LeakyReLU(0.2), nn.Softplus()),
    *(nn.ReLU(inplace=True), nn.Identity()),
]


def drawn(dim: int, hidden: int, activation: nn.Module, linearity: float, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return mirrored_mlp(dim, hidden, activation, linearity, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("activation", LINEAR_ODD, ids=str)
@pytest.mark.parametrize(("dim", "hidden"), [(8, 32), (6, 12), (5, 18), (1, 2), (300, 1200)])
def test_it_is_a_rotation_for_tokens_of_any_size(activation: nn.Module, dim: int, hidden: int) -> None:
    w_1, w_2 = drawn(dim, hidden, activation, 1.0)
    assert (w_1.shape, w_2.shape) == ((dim, hidden), (hidden, dim))
    x = (
        torch.randn(9, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        * torch.logspace(-3, 0.7, 9, dtype=torch.float64)[:, None]
    )
    rotation = activation(torch.eye(dim, dtype=torch.float64) @ w_1) @ w_2
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(dim, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(activation(x @ w_1) @ w_2, x @ rotation, atol=1e-9, rtol=1e-9)


def test_rotations_are_drawn_from_all_of_them() -> None:
    """Of Haar's distribution: half of the determinants are -1, and traces have mean 0 and variance 1."""
    eye = torch.eye(4, dtype=torch.float64)
    found = []
    for seed in range(300):
        w_1, w_2 = drawn(4, 8, nn.GELU(), 1.0, seed)
        found.append(nn.functional.gelu(eye @ w_1) @ w_2)
    rotations = torch.stack(found)
    assert 0.4 < (torch.linalg.det(rotations) > 0).double().mean().item() < 0.6
    traces = rotations.diagonal(dim1=1, dim2=2).sum(1)
    assert abs(traces.mean().item()) < 0.2
    assert abs(traces.var().item() - 1) < 0.3


@pytest.mark.parametrize("activation", [nn.GELU(), nn.SiLU(), nn.ReLU(), nn.LeakyReLU(0.5)], ids=str)
@pytest.mark.parametrize("linearity", [0.0, 0.4, 0.9, 1.0])
def test_the_linear_share_is_the_dial(activation: nn.Module, linearity: float) -> None:
    """The best linear map of normal tokens has this share of the mean square, which is that of the tokens."""
    dim, hidden = 256, 1024
    w_1, w_2 = drawn(dim, hidden, activation, linearity)
    x = torch.randn(4000, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = nn.functional.normalize(x, dim=1) * dim**0.5
    y = activation(x @ w_1) @ w_2
    pairs = hidden // 2
    slope = (activation(torch.ones(1)) - activation(-torch.ones(1))).item()
    linear = x @ (w_1[:, :pairs] @ (w_2[:pairs] - w_2[pairs:])) * slope / 2
    assert y.square().mean().item() == pytest.approx(1, abs=0.15)  # what all tokens share is one draw
    assert linear.square().mean().item() == pytest.approx(linearity, abs=1e-9)
    assert ((y - linear) * linear).mean().item() == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("linearity", [0.3, 0.8, 1.0])
@pytest.mark.parametrize("rho", [0.0, 0.5])
def test_cosines_follow_its_map(linearity: float, rho: float) -> None:
    dim, c_map = 512, CorrelationMap.of(nn.GELU()).with_linearity(linearity)
    w_1, w_2 = drawn(dim, 4 * dim, nn.GELU(), linearity)
    rows = (
        torch.linalg.qr(torch.randn(dim, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0].T
        * dim**0.5
    )
    pair = rows[:32], rho * rows[:32] + math.sqrt(1 - rho**2) * rows[32:]
    y, z = (nn.functional.gelu(x @ w_1) @ w_2 for x in pair)
    assert nn.functional.cosine_similarity(y, z).mean().item() == pytest.approx(c_map(rho), abs=0.03)


def test_units_are_in_pairs_of_opposite_sign_and_gradients_part_them() -> None:
    w_1, w_2 = (w.requires_grad_() for w in drawn(6, 24, nn.GELU(), 1.0))
    assert torch.equal(w_1[:, :12], -w_1[:, 12:])
    assert torch.equal(w_2[:12], -w_2[12:])
    x, target = torch.randn(2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (nn.functional.gelu(x @ w_1) @ w_2 - target).square().sum().backward()
    assert w_1.grad is not None
    assert (w_1.grad[:, :12] + w_1.grad[:, 12:]).norm() > 0.1 * w_1.grad.norm()


def test_a_generator_gives_the_same_maps_in_every_dtype() -> None:
    double = drawn(8, 32, nn.SiLU(), 0.7)
    single = mirrored_mlp(8, 32, nn.SiLU(), 0.7, generator=torch.Generator().manual_seed(0))
    for a, b in zip(double, single, strict=True):
        assert b.dtype == torch.float32
        assert torch.equal(a.float(), b)


@pytest.mark.parametrize(
    ("dim", "hidden", "activation", "linearity", "words"),
    [
        (8, 15, nn.GELU(), 1.0, "an even number of at least 16; this one has 15: use mlp='orthogonal'"),
        (8, 14, nn.GELU(), 1.0, "for each of its d = 8 directions"),
        (0, 4, nn.GELU(), 1.0, "d = 0"),
        (8, 32, nn.Tanh(), 1.0, r"Tanh\(\) has no linear odd part"),
        (8, 32, nn.GELU(), 1.5, "mlp_linearity=1.5 is a share"),
        (8, 32, nn.GELU(), float("nan"), "mlp_linearity=nan is a share"),
        (8, 32, nn.Identity(), 0.5, "has no even part: mlp_linearity=0.5 must be 1"),
    ],
)
def test_bad_input_is_quoted(dim: int, hidden: int, activation: nn.Module, linearity: float, words: str) -> None:
    with pytest.raises(InputError, match=words):
        mirrored_mlp(dim, hidden, activation, linearity)
