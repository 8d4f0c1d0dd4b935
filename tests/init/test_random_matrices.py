import pytest
import torch
from torch import Generator

from skipless.init.random_matrices import haar, normal


@pytest.mark.parametrize("shape", [(4, 4), (256, 256), (3, 256, 272), (257, 256), (1024, 300)])
def test_normal_numbers_are_torchs_own(shape: tuple[int, ...]) -> None:
    """The same seed gives the weights that it gave when `torch.randn` drew them, and draws what follows alike."""
    first, second = Generator().manual_seed(7), Generator().manual_seed(7)
    drawn = normal(*shape, std=0.5, generator=first)
    expected = 0.5 * torch.randn(*shape, generator=second, dtype=torch.float64)
    torch.testing.assert_close(drawn, expected, atol=1e-14, rtol=1e-13)
    assert torch.equal(torch.rand(3, generator=first), torch.rand(3, generator=second))


def test_the_global_generator_is_used_without_one() -> None:
    torch.manual_seed(3)
    drawn = normal(512, 512)
    torch.manual_seed(3)
    torch.testing.assert_close(drawn, torch.randn(512, 512, dtype=torch.float64), atol=1e-14, rtol=1e-13)


@pytest.mark.parametrize(("rows", "columns"), [(1024, 256), (256, 1024), (512, 256), (511, 256), (300, 300)])
def test_haar_is_the_q_whose_r_has_a_positive_diagonal(rows: int, columns: int) -> None:
    q = haar(rows, columns, generator=Generator().manual_seed(1))
    tall = torch.randn(
        max(rows, columns), min(rows, columns), generator=Generator().manual_seed(1), dtype=torch.float64
    )
    expected, r = torch.linalg.qr(tall)
    expected = expected * r.diagonal().sign()
    torch.testing.assert_close(q, expected if rows >= columns else expected.mT, atol=1e-10, rtol=0)
