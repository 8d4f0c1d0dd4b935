import pytest
import torch

from skipless.errors import InputError
from skipless.init import value_output


@pytest.mark.parametrize("dim", [1, 2, 7, 32, 96])
@pytest.mark.parametrize("c", [0.5, 1.0, 3.0])
def test_every_singular_value_of_the_product_is_c_squared(dim: int, c: float) -> None:
    w_v, w_o = value_output(dim, c, dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.svdvals(w_v @ w_o), torch.full((dim,), c**2, dtype=torch.float64))


def test_c_stands_on_both_sides() -> None:
    for factor in value_output(12, 3.0, dtype=torch.float64):
        torch.testing.assert_close(factor @ factor.mT, 9 * torch.eye(12, dtype=torch.float64))


def test_it_is_full_width_and_not_per_head() -> None:
    """A per-head construction would make every d_h x d_h block of the product orthogonal; full width mixes all."""
    w_v, w_o = value_output(32, 1.0, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    off_block = (w_v @ w_o)[:16, 16:]
    assert off_block.square().mean() > 0.5 / 32


@pytest.mark.parametrize(("inner", "rank"), [(8, 8), (24, 12)])
def test_other_inner_widths(inner: int, rank: int) -> None:
    w_v, w_o = value_output(12, 2.0, inner=inner, dtype=torch.float64)
    assert w_v.shape == (12, inner)
    assert w_o.shape == (inner, 12)
    s = torch.linalg.svdvals(w_v @ w_o)
    torch.testing.assert_close(s[:rank], torch.full((rank,), 4.0, dtype=torch.float64))
    assert s[rank:].lt(1e-12).all()


def test_the_generator_decides() -> None:
    first, again, other = (value_output(8, 1.0, generator=torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


@pytest.mark.parametrize(
    ("dim", "c", "inner"), [(0, 1.0, None), (4, 0.0, None), (4, -1.0, None), (4, float("nan"), None), (4, 1.0, 0)]
)
def test_bad_input_is_quoted(dim: int, c: float, inner: int | None) -> None:
    with pytest.raises(InputError, match=r"dim=0|c=0|c=-1|c=nan|inner=0"):
        value_output(dim, c, inner=inner)
