import math

import numpy as np
import pytest
import torch
from reference.init import truncated_target

from skipless.errors import InputError
from skipless.init import query_key
from skipless.init.random_matrices import normal, uniform


def heads_of(w: torch.Tensor, heads: int) -> torch.Tensor:
    return w.unflatten(1, (heads, -1)).transpose(0, 1)


def products(w_q: torch.Tensor, w_k: torch.Tensor, heads: int, key_heads: int | None = None) -> torch.Tensor:
    keys = heads_of(w_k, key_heads or heads).repeat_interleave(heads // (key_heads or heads), 0)
    return heads_of(w_q, heads) @ keys.mT


@pytest.mark.parametrize(
    ("dim", "heads", "alpha", "beta"), [(12, 3, 2.0, 0.6), (32, 2, 1.8, 1.0), (16, 4, 0.3, -1.0), (8, 1, 1.0, 0.0)]
)
def test_each_head_is_the_best_copy_of_its_own_target(dim: int, heads: int, alpha: float, beta: float) -> None:
    """Eq. 11, truncated: rebuild the draws and compare with a full SVD head by head."""
    w_q, w_k = query_key(dim, heads, alpha, beta, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    for product in products(w_q, w_k, heads):
        z = normal(1, dim, dim, std=dim**-0.5, generator=generator)[0].numpy()
        expected = truncated_target(alpha * z + beta * np.eye(dim), dim // heads)
        np.testing.assert_allclose(product.numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 1.8])
def test_no_two_heads_share_their_draw(alpha: float) -> None:
    w_q, w_k = query_key(48, 6, alpha, 1.0, dtype=torch.float64)
    flat = torch.nn.functional.normalize(products(w_q, w_k, 6).flatten(1), dim=1)
    assert (flat @ flat.T).fill_diagonal_(0).max() < 0.6


def test_factors_share_the_singular_values_evenly() -> None:
    w_q, w_k = query_key(24, 3, 2.0, 0.6, dtype=torch.float64)
    for q, k in zip(heads_of(w_q, 3), heads_of(w_k, 3), strict=True):
        torch.testing.assert_close(q.mT @ q, k.mT @ k)
        torch.testing.assert_close((q.mT @ q).diagonal(), torch.linalg.svdvals(q @ k.mT)[:8])


@pytest.mark.parametrize(("draw", "fourth"), [(normal, 3.0), (uniform, 9 / 5)])
def test_noise_has_unit_variance_and_its_own_shape(draw, fourth: float) -> None:
    z = draw(400, 400, generator=torch.Generator().manual_seed(0))
    assert abs(z.mean().item()) < 0.01
    assert abs(z.var().item() - 1) < 0.02
    assert abs((z**4).mean().item() - fourth) < 0.1


def test_noise_is_a_named_choice_with_the_same_scale() -> None:
    kept = {}
    for noise in ("normal", "uniform"):
        generator = torch.Generator().manual_seed(0)
        w_q, w_k = query_key(64, 1, 1.0, 0.0, noise=noise, generator=generator, dtype=torch.float64)
        kept[noise] = (w_q @ w_k.mT) * 8
    assert abs(kept["uniform"].var().item() - 1) < 0.05
    assert kept["uniform"].abs().max() <= math.sqrt(3) + 1e-9 < kept["normal"].abs().max()


def test_sliced_heads_sum_to_the_whole() -> None:
    w_q, w_k = query_key(
        24, 4, 2.0, 0.6, factors="sliced", generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    z = normal(24, 24, std=24**-0.5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(products(w_q, w_k, 4).sum(0), 2 * z + 0.6 * torch.eye(24, dtype=torch.float64))
    norms = products(w_q, w_k, 4).flatten(1).norm(dim=1)
    assert (norms.diff() < 0).all()


@pytest.mark.parametrize("beta", [0.5, -2.0])
def test_partition_deals_the_identity_to_the_heads(beta: float) -> None:
    w_q, w_k = query_key(24, 4, 0.0, beta, factors="partition", dtype=torch.float64)
    parts = products(w_q, w_k, 4)
    torch.testing.assert_close(parts.sum(0), beta * torch.eye(24, dtype=torch.float64))
    torch.testing.assert_close(parts[0] @ parts[1], torch.zeros(24, 24, dtype=torch.float64))


def test_without_noise_each_head_has_a_random_basis_of_its_own() -> None:
    w_q, w_k = query_key(24, 4, 0.0, 0.5, dtype=torch.float64)
    for product in products(w_q, w_k, 4):
        torch.testing.assert_close(torch.linalg.svdvals(product)[:6], torch.full((6,), 0.5, dtype=torch.float64))
        assert product.diagonal().count_nonzero() == 24, "coordinate axes: every head would look at the same six"
        torch.testing.assert_close(product, product.mT)


@pytest.mark.parametrize(("heads", "key_heads", "head_dim"), [(4, 2, 6), (4, 1, 5), (6, 3, 24), (2, 2, 40)])
def test_grouped_and_odd_sized_heads(heads: int, key_heads: int, head_dim: int) -> None:
    dim, alpha, beta = 24, 1.5, 1.0
    args = {"head_dim": head_dim, "key_heads": key_heads, "dtype": torch.float64}
    w_q, w_k = query_key(dim, heads, alpha, beta, generator=torch.Generator().manual_seed(5), **args)
    assert w_q.shape == (dim, heads * head_dim)
    assert w_k.shape == (dim, key_heads * head_dim)
    generator, group = torch.Generator().manual_seed(5), heads // key_heads
    got = products(w_q, w_k, heads, key_heads).unflatten(0, (key_heads, group))
    for key_head in range(key_heads):
        z = normal(group, dim, dim, std=dim**-0.5, generator=generator)
        stack = (alpha * z + beta * torch.eye(dim, dtype=torch.float64)).reshape(-1, dim).numpy()
        if head_dim > dim:
            normal(head_dim, dim, generator=generator)  # the rotation that spreads d directions over the head
        np.testing.assert_allclose(got[key_head].reshape(-1, dim).numpy(), truncated_target(stack, head_dim), atol=1e-9)
    assert w_q.norm(dim=0).min() > 1e-3, "a dead column"
    assert w_k.norm(dim=0).min() > 1e-3, "a dead column"


def test_grouped_heads_balance_queries_with_their_key() -> None:
    w_q, w_k = query_key(48, 8, 1.8, 1.0, key_heads=2, dtype=torch.float64)
    ratio = heads_of(w_q, 8).flatten(1).norm(dim=1).mean() / heads_of(w_k, 2).flatten(1).norm(dim=1).mean()
    assert abs(ratio.item() - 1) < 0.05


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"heads": 5}, "dim=24 is not divisible by heads=5"),
        ({"alpha": 0.0, "beta": 0.0}, "not both 0"),
        ({"alpha": float("inf")}, "alpha=inf"),
        ({"factors": "slices"}, "'slices' is not one of"),
        ({"noise": "cauchy"}, "'cauchy'"),
        ({"factors": "partition"}, "needs alpha=0, got alpha=1.0"),
        ({"key_heads": 3}, "3 key heads"),
        ({"factors": "sliced", "key_heads": 2}, "use 'per_head'"),
        ({"factors": "sliced", "head_dim": 12}, "use 'per_head'"),
        ({"heads": 0}, "heads=0"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_quoted(kwargs: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        query_key(24, **{"heads": 4, "alpha": 1.0, "beta": 1.0, **kwargs})
