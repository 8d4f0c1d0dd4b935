import pytest
import torch
from torch import Generator, Tensor

from skipless.init import query_key, truncated_svd
from skipless.init.random_matrices import haar, normal
from skipless.init.truncated_svd import top_right_singular

DIM = 512  # from here on float32 makes the decomposition and float64 corrects it


def with_singular_values(s: Tensor, seed: int = 0) -> Tensor:
    generator = Generator().manual_seed(seed)
    return haar(len(s), len(s), generator=generator) * s @ haar(len(s), len(s), generator=generator)


def best(a: Tensor, rank: int) -> Tensor:
    """The best approximation of a matrix at a rank, by its full SVD."""
    u, s, vh = torch.linalg.svd(a, full_matrices=False)
    return u[:, :rank] * s[:rank] @ vh[:rank]


def projected(a: Tensor, rank: int) -> Tensor:
    _, v = top_right_singular(a[None], rank)
    torch.testing.assert_close(v.mT @ v, torch.eye(rank, dtype=torch.float64), atol=1e-12, rtol=0)
    return a @ v @ v.mT


@pytest.mark.parametrize("seed", range(20))
def test_products_are_those_of_a_full_svd_in_float64(seed: int) -> None:
    alpha, beta = ((2.0, 0.6), (1.8, 1.0), (0.1, 2.0), (0.001, -1.0))[seed % 4]
    w_q, w_k = query_key(DIM, 1, alpha, beta, head_dim=64, generator=Generator().manual_seed(seed), dtype=torch.float64)
    z = normal(1, DIM, DIM, std=DIM**-0.5, generator=Generator().manual_seed(seed))[0]
    expected = best(alpha * z + beta * torch.eye(DIM, dtype=torch.float64), 64)
    assert (w_q @ w_k.mT - expected).norm() < 1e-9 * expected.norm()
    torch.testing.assert_close((w_q.mT @ w_q).diagonal(), (w_k.mT @ w_k).diagonal())


def test_heads_that_share_a_key_keep_the_best_directions_of_all() -> None:
    args = {"head_dim": 64, "key_heads": 1, "dtype": torch.float64}
    w_q, w_k = query_key(DIM, 3, 1.5, 1.0, generator=Generator().manual_seed(5), **args)
    z = normal(3, DIM, DIM, std=DIM**-0.5, generator=Generator().manual_seed(5))
    stack = (1.5 * z + torch.eye(DIM, dtype=torch.float64)).flatten(0, 1)
    product = w_q.unflatten(1, (3, 64)).permute(1, 0, 2).reshape(-1, 64) @ w_k.mT
    torch.testing.assert_close(product, best(stack, 64), atol=1e-9, rtol=0)


def test_a_cut_between_close_values_needs_float64() -> None:
    """Two neighbours at the cut differ by 1e-6 of their size: float32 mixes their directions."""
    s = torch.linspace(2.0, 0.1, DIM, dtype=torch.float64)
    s[64] = s[63] * (1 - 1e-6)
    a = with_singular_values(s)
    expected = best(a, 64)
    assert (projected(a, 64) - expected).norm() < 1e-6 * expected.norm()
    v = torch.linalg.eigh(a.float().mT @ a.float())[1].flip(-1)[:, :64].double()
    assert (a @ v @ v.mT - expected).norm() > 1e-3 * expected.norm()


@pytest.mark.parametrize("tied", [slice(40, 80), slice(0, DIM), slice(60, 200), slice(90, 110)])
def test_ties_are_cut_somewhere_and_the_product_is_still_a_best_one(tied: slice) -> None:
    s = torch.linspace(2.0, 0.1, DIM, dtype=torch.float64)
    s[tied] = s[tied][0].clone()
    a = with_singular_values(s)
    error = (a - projected(a, 64)).norm()
    assert error <= s[64:].norm() * (1 + 1e-9), "no approximation of this rank is better, and none need be worse"


def test_what_the_correction_cannot_do_is_decomposed_in_float64(monkeypatch) -> None:
    called = []
    monkeypatch.setattr(truncated_svd, "_RESIDUAL", 0.0)
    whole = truncated_svd._decomposed
    monkeypatch.setattr(truncated_svd, "_decomposed", lambda *args: called.append(1) or whole(*args))
    a = with_singular_values(torch.linspace(2.0, 0.1, DIM, dtype=torch.float64))
    projected(a, 64)
    assert called


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12])
def test_scales_beyond_float32_are_decomposed_all_the_same(scale: float) -> None:
    a = scale * with_singular_values(torch.linspace(2.0, 0.1, DIM, dtype=torch.float64))
    expected = best(a, 64)
    assert (projected(a, 64) - expected).norm() < 1e-6 * expected.norm()


@pytest.mark.parametrize("dim", [256, DIM])
def test_signs_do_not_depend_on_the_decomposition(dim: int) -> None:
    """Another processor's library may return -v for v; W_Q and W_K would then differ from machine to machine."""
    a = normal(1, dim, dim, generator=Generator().manual_seed(0))
    _, v = top_right_singular(a, 16)
    _, s, vh = torch.linalg.svd(a[0])
    expected = vh[:16].mT
    expected = expected * expected.gather(0, expected.abs().argmax(0, keepdim=True)).sign()
    torch.testing.assert_close(v, expected, atol=1e-9, rtol=0)
    assert s[0] > s[16]
