import pytest
import torch
from reference.init import mean_square_gain

from skipless.errors import InputError
from skipless.init import scaled_uniform_orthogonal
from skipless.init.random_matrices import haar


@pytest.mark.parametrize(("fan_in", "fan_out"), [(64, 256), (256, 64), (32, 32), (5, 7), (1, 9)])
def test_mean_square_gain_is_one(fan_in: int, fan_out: int) -> None:
    """Transposed, 64 -> 256 has 0.25 and 256 -> 64 has 4."""
    w = scaled_uniform_orthogonal(fan_in, fan_out, dtype=torch.float64)
    assert w.shape == (fan_in, fan_out)
    assert abs(w.square().sum().item() / fan_out - 1) < 1e-12
    assert abs(mean_square_gain(w.numpy()) - 1) < 0.15
    s = torch.linalg.svdvals(w)
    torch.testing.assert_close(s, torch.full_like(s, max(fan_out / fan_in, 1) ** 0.5))


def test_haar_and_not_merely_orthogonal() -> None:
    """QR without its signs put right has a diagonal of one sign: E trace(Q) is then far from Haar's 0."""
    generator = torch.Generator().manual_seed(0)
    traces = torch.stack([haar(8, 8, generator=generator).trace() for _ in range(500)])
    assert abs(traces.mean().item()) < 0.2
    assert abs(traces.var().item() - 1) < 0.2


def test_bad_input_is_quoted() -> None:
    with pytest.raises(InputError, match="fan_out=0"):
        scaled_uniform_orthogonal(3, 0)
