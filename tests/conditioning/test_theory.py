"""The paper's propositions and moments, against explicit matrices and sampling."""

import math

import pytest
import torch
from reference import jacobian as naive
from timm.models.vision_transformer import Block
from torch import nn

from skipless.conditioning.operators.jacobian import attn_jacobian
from skipless.conditioning.theory.propositions import (
    attention_terms,
    concatenation_bound,
    diffuse_bound,
    dominance_bound,
    gap_moments,
    logit_moments,
    perturbation_ratio,
    row_margin,
    row_range,
)
from skipless.errors import InputError
from skipless.init import SkiplessInit
from skipless.models import create_model


def kappa(matrix: torch.Tensor) -> float:
    s = torch.linalg.svdvals(matrix.double())
    return (s[0] / s[-1]).item()


# Eqs. 10 and 13


@pytest.mark.parametrize("heads", [1, 2, 3, 6])
@pytest.mark.parametrize("kwargs", [{"qkv_bias": True}, {"init_values": 0.5, "proj_bias": False}])
def test_dominant_and_perturbation_term(heads: int, kwargs) -> None:
    torch.manual_seed(heads)
    made = Block(12, heads, **kwargs).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.6)
    x, weights = torch.randn(5, 12).double(), naive.timm_weights(made)
    expected = naive.dominant(x, weights, heads), naive.perturbation(x, weights, heads)
    v = torch.randn(60).double()
    for term, matrix in zip(attention_terms(made, x), expected, strict=True):
        assert (term.to_dense() - matrix).norm() <= 1e-10 * matrix.norm()
        assert (term.matvec(v) - matrix @ v).norm() <= 1e-10 * (matrix @ v).norm()
        assert (term.rmatvec(v) - matrix.T @ v).norm() <= 1e-10 * (matrix.T @ v).norm()
    whole = naive.dense(lambda x: naive.attention(x, weights, heads), x)
    assert (sum(expected) - whole).norm() <= 1e-10 * whole.norm(), "Eq. 13's two terms are not K"
    assert (attn_jacobian(made, x).to_dense() - whole).norm() <= 1e-10 * whole.norm()


def test_a_bias_on_the_values_drops_out() -> None:
    torch.manual_seed(0)
    made, x = Block(12, 2, qkv_bias=True).double(), torch.randn(5, 12).double()
    before = [term.to_dense() for term in attention_terms(made, x)]
    made.attn.qkv.bias.data[24:] += 3
    for term, matrix in zip(attention_terms(made, x), before, strict=True):
        assert torch.allclose(term.to_dense(), matrix, atol=1e-12)


# Proposition 1


def dominant_logits(n: int, margin: float, seed: int) -> torch.Tensor:
    """Rows whose diagonal leads by at least the margin, others by chance or all exactly at it."""
    generator = torch.Generator().manual_seed(seed)
    below = 3 * torch.rand(n, n, dtype=torch.double, generator=generator) * (seed % 2)
    m = -below
    m.fill_diagonal_(margin)
    return m + torch.randn(n, 1, dtype=torch.double, generator=generator)


@pytest.mark.parametrize("n", [1, 2, 10, 100])
@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_a_dominant_diagonal_bounds_kappa(n: int, temperature: float) -> None:
    proved = 0
    for seed, lead in enumerate((1.0, 3.0, 3.0, 6.0, 8.0, 12.0)):
        logits = dominant_logits(n, lead * temperature, seed)
        assert row_margin(logits) == pytest.approx(lead * temperature) or n == 1 or seed % 2
        bound = dominance_bound(n, lead, 1.0)
        assert bound == dominance_bound(n, lead * temperature, temperature)
        a = (logits / temperature).softmax(1)
        assert torch.linalg.matrix_norm(a - torch.eye(n).double(), 2) <= bound.epsilon + 1e-12
        if bound.kappa is not None:
            proved += 1
            assert kappa(a) <= bound.kappa + 1e-12
    assert proved >= 2, "nothing was tested"


def test_epsilon_is_within_two_of_what_it_bounds() -> None:
    """All logits of a row at the margin: A = I - R with |R|_2 = n q / (1 + (n-1) q), and eps at most 2 (n-1) q."""
    for n, margin in ((2, 4.0), (50, 8.0), (197, 9.0)):
        q = math.exp(-margin)
        bound = dominance_bound(n, margin)
        attained = n * q / (1 + (n - 1) * q)
        assert attained <= bound.epsilon <= 2 * (n - 1) * q
        assert bound.epsilon <= 2.1 * attained
        assert kappa((margin * torch.eye(n).double()).softmax(1)) == pytest.approx(1 / (1 - attained))


def test_epsilon_goes_to_0_with_the_margin_and_is_void_without_one() -> None:
    epsilons = [dominance_bound(50, margin).epsilon for margin in (5.0, 10.0, 20.0, 40.0)]
    assert epsilons == sorted(epsilons, reverse=True)
    assert epsilons[-1] < 1e-14
    for margin in (-1e9, -1.0, 0.0):
        bound = dominance_bound(50, margin)
        assert bound.kappa is None
        assert math.isfinite(bound.epsilon)


@pytest.mark.parametrize("n", [2, 10, 100])
def test_diffuse_rows_bound_kappa_from_below(n: int) -> None:
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        spread, temperature = (0.01, 0.3, 2.0, 8.0)[seed % 4], (0.5, 3.0)[seed % 2]
        logits = torch.rand(n, n, dtype=torch.double, generator=generator)
        if seed >= 10:
            logits = logits.round()  # the extreme case of the variance bound: two values in a row
        low, high = logits.amin(1, True), logits.amax(1, True)
        logits = spread * (logits - low) / (high - low).clamp_min(1e-9)
        bound = diffuse_bound(n, row_range(logits), temperature)
        a = (logits / temperature).softmax(1)
        assert (a - 1 / n).norm() <= bound.epsilon + 1e-14
        s = torch.linalg.svdvals(a)
        assert bound.kappa is None or s[0] >= bound.kappa * s[-1] * (1 - 1e-9)


def test_the_diffuse_bound_has_the_papers_growth() -> None:
    """kappa >~ tau / Delta, worse as n grows; and for n = 2 it is attained by a matrix of two values."""
    assert diffuse_bound(10, 1e-4).kappa == pytest.approx(2 * 3 * 1e4, rel=1e-6)
    assert diffuse_bound(1001, 1e-4).kappa == pytest.approx(diffuse_bound(11, 1e-4).kappa * 10)
    assert diffuse_bound(10, 1e9).kappa == 1
    a = (torch.eye(2).double() * 0.5).softmax(1)
    assert diffuse_bound(2, 0.5).kappa <= kappa(a) <= 1.1 * diffuse_bound(2, 0.5).kappa


def test_figure_5s_two_cases_lie_within_the_bounds() -> None:
    """alpha = 0.1, beta = 5 and 0 on a 10 x 10 matrix: kappa near 1, and in the hundreds."""
    generator = torch.Generator().manual_seed(0)
    peaked, diffuse = [], []
    for _ in range(50):
        z = torch.randn(10, 10, dtype=torch.double, generator=generator) / 10**0.5
        for beta, found in ((5.0, peaked), (0.0, diffuse)):
            logits = 0.1 * z + beta * torch.eye(10).double()
            found.append(kappa(logits.softmax(1)))
            upper, lower = dominance_bound(10, row_margin(logits)), diffuse_bound(10, row_range(logits))
            assert lower.kappa <= found[-1]
            assert upper.kappa is None or found[-1] <= upper.kappa
            assert (upper.kappa is None) == (beta == 0)
    assert max(peaked) < 1.3
    assert 200 < sorted(diffuse)[25] < 1500


def test_bad_bounds_are_named(unchecked) -> None:
    with pytest.raises(InputError, match="n=0"):
        dominance_bound(0, 1.0)
    with pytest.raises(InputError, match="temperature=0"):
        diffuse_bound(3, 1.0, 0.0)
    with pytest.raises(InputError, match="margin=nan is not finite"):
        dominance_bound(3, math.nan)
    with pytest.raises(InputError, match="spread=-1.0: a largest minus a least"):
        diffuse_bound(3, -1.0)
    with pytest.raises(InputError, match="n x n matrix of finite values"):
        row_margin(torch.full((2, 2), math.inf))
    with pytest.raises(InputError, match="n x n matrix of finite values"):
        row_range(torch.ones(2, 3))


# Proposition 2


def vit(alpha: float, beta: float, heads: int, dim: int = 24):
    return create_model(
        "vit_tiny_patch16_224", init=SkiplessInit(alpha, beta, 1.0), seed=0, depth=1, embed_dim=dim, num_heads=heads
    ).double()


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize(("alpha", "beta"), [(0.1, 4.0), (1.8, 1.0), (2.0, 0.1)])
def test_the_ratio_is_that_of_the_dense_terms(heads: int, alpha: float, beta: float) -> None:
    made, x = vit(alpha, beta, heads), torch.randn(6, 24, generator=torch.Generator().manual_seed(3)).double()
    weights = naive.timm_weights(made.blocks[0])
    b, e = (torch.linalg.svdvals(f(x, weights, heads)) for f in (naive.dominant, naive.perturbation))
    found = perturbation_ratio(made.blocks[0], x)
    assert found.shape == (144, 144)
    assert found.perturbation.value == pytest.approx(e[0].item(), rel=1e-6)
    assert found.dominant_max.value == pytest.approx(b[0].item(), rel=1e-6)
    assert found.dominant_min.value == pytest.approx(b[-1].item(), rel=1e-6)
    assert found.ratio.value == pytest.approx((e[0] / b[-1]).item(), rel=1e-6)
    assert found.small == (e[0] < b[-1]).item()
    assert (found.kappa_bound is None) == (not found.small)
    if found.kappa_bound is not None:
        assert kappa(attn_jacobian(made.blocks[0], x).to_dense()) <= found.kappa_bound


def test_both_answers_occur() -> None:
    """Otherwise the test above would not test the bound, or nothing else."""
    x = torch.randn(6, 24, generator=torch.Generator().manual_seed(3)).double()
    assert perturbation_ratio(vit(0.1, 4.0, 1).blocks[0], x).small is True
    assert perturbation_ratio(vit(1.8, 1.0, 1).blocks[0], x).small is False


def test_a_singular_dominant_term_leaves_the_ratio_open() -> None:
    made, x = vit(1.8, 1.0, 1), torch.randn(6, 24).double()
    made.blocks[0].attn.proj.weight.data[:, 0] = 0
    found = perturbation_ratio(made.blocks[0], x)
    assert found.ratio.upper is None
    assert found.small is False
    assert found.kappa_bound is None


def test_iterations_agree_with_dense_beyond_the_dense_size() -> None:
    """n d = 1,536: |E| by Lanczos, sigma(B) from its two factors."""
    made = vit(1.0, 1.5, 1, dim=32).float()
    x = torch.randn(48, 32, generator=torch.Generator().manual_seed(0))
    found = perturbation_ratio(made.blocks[0], x)
    assert found.perturbation.method == "lanczos"
    _, perturbation = attention_terms(made.blocks[0], x)
    gram = perturbation.to_dense() @ perturbation.to_dense().T
    assert found.perturbation.value == pytest.approx(torch.linalg.eigvalsh(gram)[-1].sqrt().item(), rel=1e-4)


def test_what_eq_10_does_not_describe_is_refused() -> None:
    made = Block(12, 2, qk_norm=True)
    for function in (attention_terms, perturbation_ratio):
        with pytest.raises(InputError, match="Eq. 10 does not describe attn"):
            function(made, torch.randn(4, 12))


# Eqs. 14 to 20


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 1.0), (1.0, 0.0), (2.0, 0.6), (0.7, 0.7)])
@pytest.mark.parametrize("dim", [4, 24])
def test_moments_are_those_of_sampled_logits(dim: int, alpha: float, beta: float) -> None:
    draws, scale = 30_000, 0.5
    generator = torch.Generator().manual_seed(dim)
    x, y = (torch.randn(draws, 1, dim, generator=generator) for _ in range(2))
    z = torch.randn(draws, dim, dim, generator=generator) / dim**0.5
    mapped = scale * (alpha * torch.bmm(x, z) + beta * x)
    on, off = ((mapped * other).sum((1, 2)).double() for other in (x, y))
    found = logit_moments(dim, alpha, beta, logit_scale=scale)
    gap = gap_moments(dim, alpha, beta, logit_scale=scale)
    for sample, mean, variance in (
        (on, found.diagonal_mean, found.diagonal_variance),
        (off, found.off_diagonal_mean, found.off_diagonal_variance),
        (on - off, gap.mean, gap.variance),
    ):
        assert sample.mean().item() == pytest.approx(mean, abs=5 * (variance / draws) ** 0.5)
        # Five standard errors of a variance, from the sample's own fourth moment.
        error = ((sample - sample.mean()) ** 2).std().item() / draws**0.5
        assert sample.var().item() == pytest.approx(variance, abs=5 * error)


def test_the_printed_values_are_kept_apart() -> None:
    """Eqs. 17, 19 and 20 as printed; 14, 15, 16 and 18 read alike."""
    printed, corrected = (logit_moments(100, 2.0, 0.5, reading=r) for r in ("printed", "corrected"))
    assert printed.diagonal_variance == corrected.diagonal_variance == 4 * 102 + 0.25 * 200
    assert (printed.off_diagonal_variance, corrected.off_diagonal_variance) == (4 + 25, 400 + 25)
    assert logit_moments(100, 1.0, 0.0, reading="printed").off_diagonal_variance == 1
    assert gap_moments(100, 2.0, 0.5, reading="printed").variance == 4 * 103 + 0.25 * 300
    assert gap_moments(100, 2.0, 0.5).variance == 4 * 202 + 0.25 * 300
    assert logit_moments(100, 0.0, 1.0, reading="printed").off_diagonal_variance == 100


def test_bad_moments_are_named(unchecked) -> None:
    with pytest.raises(InputError, match="dim=0"):
        logit_moments(0, 1.0, 1.0)
    with pytest.raises(InputError, match="reading='mine' is not one of 'corrected', 'printed'"):
        gap_moments(3, 1.0, 1.0, reading="mine")


# A.4.4


def blocks(rows: int, columns: tuple[int, ...], seed: int, coherence: float = 0.3) -> list[torch.Tensor]:
    """Blocks with their own range of singular values, in subspaces that overlap by about `coherence`."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(rows, rows, dtype=torch.double, generator=generator)).Q
    out, start = [], 0
    for width in columns:
        directions = basis[:, torch.arange(start, start + width) % rows]
        noise = torch.randn(rows, width, dtype=torch.double, generator=generator) / rows**0.5
        scale = 1 + torch.rand(width, dtype=torch.double, generator=generator)
        out.append((directions + coherence * noise) * scale)
        start += width
    return out


@pytest.mark.parametrize("columns", [(3, 4), (5, 5), (2, 3, 4)])
def test_tall_blocks_obey_equation_37(columns: tuple[int, ...]) -> None:
    proved = 0
    for seed in range(20):
        parts = blocks(20, columns, seed, coherence=0.1 * (seed % 5))
        found = concatenation_bound(parts)
        assert found.orientation == "tall"
        assert found.kappa == pytest.approx(kappa(torch.cat(parts, 1)))
        assert found.kappa_max == pytest.approx(max(map(kappa, parts)))
        assert found.worst_block_holds == (found.kappa <= found.kappa_max)
        if found.bound is not None:
            proved += 1
            assert found.kappa <= found.bound * (1 + 1e-12)
            assert found.bound <= found.printed * (1 + 1e-12)
    assert proved >= 8, "nothing was tested"


def test_the_quantities_are_those_of_the_paper() -> None:
    a, b = blocks(12, (3, 4), seed=1)
    found = concatenation_bound([a, b])
    sa, sb = torch.linalg.svdvals(a), torch.linalg.svdvals(b)
    rho = torch.linalg.matrix_norm(a.T @ b, 2).item()
    tau = (max(sa[0], sb[0]) / min(sa[0], sb[0])).item()
    s_max, s_min = max(sa[0], sb[0]).item(), min(sa[-1], sb[-1]).item()
    assert (found.coherence, found.balance) == pytest.approx((rho, tau), rel=1e-12)
    assert (found.s_max, found.s_min) == pytest.approx((s_max, s_min))
    assert found.bound == pytest.approx(math.sqrt((s_max**2 + rho) / (s_min**2 - rho)))
    worst = max(kappa(a), kappa(b))
    assert found.printed == pytest.approx(tau * math.sqrt((1 + rho / s_max**2) / (1 - rho / s_min**2)) * worst)


@pytest.mark.parametrize("columns", [(12, 12), (30, 12), (40, 25, 60)])
def test_wide_blocks_obey_equation_6_without_any_assumption(columns: tuple[int, ...]) -> None:
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        parts = [torch.randn(12, width, dtype=torch.double, generator=generator) * 10**seed for width in columns]
        parts[1] = parts[0][:, : columns[1]] * 0.01 if seed % 2 and columns[1] <= columns[0] else parts[1]
        found = concatenation_bound(parts)
        assert found.orientation == "wide"
        assert found.kappa == pytest.approx(kappa(torch.cat(parts, 1)))
        assert found.kappa <= found.bound * (1 + 1e-9)
        assert found.bound <= found.kappa_max * (1 + 1e-9)
        assert found.worst_block_holds or found.kappa == pytest.approx(found.kappa_max)
        rho = torch.linalg.matrix_norm(parts[0].T @ parts[1], 2).item()
        assert len(parts) > 2 or found.coherence == pytest.approx(rho)


def test_incoherence_in_the_papers_sense_is_not_enough() -> None:
    """rho = 1e-4 with norms of 1 looks small; against s_min^2 = 1e-4 it is not, and Eq. 6 fails many times over."""
    a = torch.tensor([[1.0, 0.0], [0.0, 0.01], [0.0, 0.0], [0.0, 0.0]])
    b = torch.tensor([[0.0, 0.0], [0.0, 0.00999], [1.0, 0.0], [0.0, 0.001]])
    found = concatenation_bound([a, b])
    assert found.coherence < 1.1e-4
    assert found.bound is None or found.bound > 5 * found.kappa_max
    assert found.kappa > 5 * found.kappa_max
    assert found.worst_block_holds is False


def test_nothing_is_claimed_between_tall_and_wide_or_of_singular_blocks() -> None:
    mixed = concatenation_bound(blocks(10, (7, 7), seed=0))
    assert (mixed.orientation, mixed.bound) == ("mixed", None)
    assert mixed.kappa == pytest.approx(kappa(torch.cat(blocks(10, (7, 7), seed=0), 1)))
    a = torch.eye(6)[:, :2]
    singular = concatenation_bound([a, torch.ones(6, 2)])
    assert (singular.kappa_max, singular.kappa, singular.worst_block_holds) == (None, None, None)
    assert concatenation_bound([a, a]).worst_block_holds is False
    assert concatenation_bound([a, torch.zeros(6, 1)]).balance is None


def test_bad_blocks_are_named() -> None:
    for bad in ([torch.ones(2, 2)], [torch.ones(2, 2), torch.ones(3, 2)], [torch.ones(2, 2), torch.ones(2, 0)]):
        with pytest.raises(InputError, match="two or more with the same number of rows"):
            concatenation_bound(bad)
    with pytest.raises(InputError, match="not finite"):
        concatenation_bound([torch.ones(2, 1), torch.full((2, 1), math.nan)])
