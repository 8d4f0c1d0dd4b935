"""Cores of attention against whole matrices, under all masks; nothing hidden has an influence; memory."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from skipless.errors import InputError
from skipless.nn import (
    AttentionCore,
    ExponentialSPA,
    OrthogonalAttention,
    PolynomialAttention,
    ShapedAttention,
    UniformSPA,
    ValueSkipInit,
)
from skipless.nn.attention import orthogonal, polynomial, powers
from tests.reference import attention_cores as twin

B, H, N, C = 2, 3, 7, 4
RHO = (0.2, 0.5)


def _cores(n: int = N, causal: bool = False) -> dict[str, AttentionCore]:
    place = {"heads": H, "index": 1, "depth": 2}
    found = {
        "p1": PolynomialAttention(1, **place),
        "p2": PolynomialAttention(2, 1 / 14, **place),
        "p3": PolynomialAttention(3, "learned", **place),
        "shaped": ShapedAttention(**place),
        "value": ValueSkipInit(**place),
        "e-spa": ExponentialSPA(n, 0.05, causal=causal, **place),
        "u-spa": UniformSPA(n, RHO, causal=causal, **place),
        "orthogonal": OrthogonalAttention(0.8, **place),
    }
    for core in found.values():
        for parameter in core.parameters():
            torch.nn.init.uniform_(parameter, 0.5, 1.5, generator=torch.Generator().manual_seed(1))
    return {name: core.double() for name, core in found.items()}


NAMES = tuple(_cores())


def _qkv(n: int = N, m: int | None = None, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = (n, m or n, m or n)
    return [torch.randn(B, H, size, C, generator=generator, dtype=torch.double) for size in sizes]


def _expected(name: str, core: Any, q: Tensor, k: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    seen, bias = twin.dense_mask(mask, causal, *q.shape[:3], k.shape[2])
    x = twin.logits(q, k)
    zero = torch.zeros(H, dtype=torch.double)
    if name.startswith("p"):
        a = twin.polynomial(x + bias, seen, core.power, core.scale if name == "p2" else None)
        return a if core.gain is None else a * core.gain.double()[:, None, None]
    if name == "shaped":
        return twin.shaped(x, bias, seen, core.alpha, core.beta, core.gamma)
    if name == "value":
        return twin.shaped(x, bias, seen, core.alpha, core.beta, zero)
    if name == "orthogonal":
        return torch.stack([twin.orthogonal(q[:, h], k[:, h], seen[:, h], core.alpha[h]) for h in range(H)], 1)
    n = k.shape[2]
    kernels = (
        [twin.exponential_kernel(n, step, 2, 0.05) for step in (1, 2)]
        if name == "e-spa"
        else [twin.uniform_kernel(n, rho) for rho in RHO]
    )
    return twin.signal_preserving(x, bias, seen, *kernels, core.causal)


def _padding() -> Tensor:
    mask = torch.ones(B, 1, 1, N, dtype=torch.bool)
    mask[1, ..., -2:] = False
    return mask


def _masks() -> dict[str, Tensor | None]:
    bias = torch.randn(1, H, N, N, generator=torch.Generator().manual_seed(5), dtype=torch.double)
    return {
        "none": None,
        "padding": _padding(),
        "padding as lowest numbers": torch.zeros(B, 1, 1, N).masked_fill(~_padding(), torch.finfo(torch.float32).min),
        "bias": bias,
        "bias and padding": bias.masked_fill(~_padding(), -torch.inf),
    }


def _possible(name: str, mask: str, causal: bool) -> bool:
    return name != "orthogonal" or not (causal or "bias" in mask)


CASES = [one for one in itertools.product(NAMES, _masks(), (False, True)) if _possible(*one)]


@pytest.mark.parametrize(("name", "mask", "causal"), CASES)
def test_a_core_is_its_matrix_times_the_values(name: str, mask: str, causal: bool) -> None:
    core, given, (q, k, v) = _cores(causal=causal)[name], _masks()[mask], _qkv()
    found = core(q, k, v, mask=given, causal=causal)
    torch.testing.assert_close(found, _expected(name, core, q, k, given, causal) @ v, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("count", [2, 7, 8, 9, 20])  # of 2 dimensions: up to 8 tokens exp(S) itself is computed
@pytest.mark.parametrize("padded", [False, True])
def test_orthogonal_attention_of_few_tokens_and_of_many(count: int, padded: bool) -> None:
    core = OrthogonalAttention(0.8)
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, 1, count, 2, generator=generator, dtype=torch.double).requires_grad_() for _ in range(3))
    seen = torch.ones(1, 1, 1, count, dtype=torch.bool)
    seen[..., -1] = not padded
    expected = (
        twin.orthogonal(q[:, 0], k[:, 0], seen.expand(1, 1, count, count)[:, 0], core.alpha[0].item())[:, None] @ v
    )
    found = core(q, k, v, mask=seen)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    weights = torch.randn(found.shape, generator=generator, dtype=torch.double)
    for one, other in zip(
        *(torch.autograd.grad((y * weights).sum(), (q, k, v)) for y in (found, expected)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "orthogonal"])
def test_fewer_queries_than_keys_are_the_last_rows(name: str) -> None:
    core, (q, k, v) = _cores(causal=True)[name], _qkv()
    whole = core(q, k, v, causal=True)
    for first in (3, N - 1):
        torch.testing.assert_close(core(q[:, :, first:], k, v, causal=True), whole[:, :, first:])


@pytest.mark.parametrize(("name", "mask", "causal"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_is_as_close_as_it_can_be(name: str, mask: str, causal: bool, dtype: torch.dtype) -> None:
    core, given = _cores(causal=causal)[name], _masks()[mask]
    q, k, v = (part.to(dtype) for part in _qkv())
    given = given.to(dtype) if given is not None and given.dtype == torch.double else given
    found = core.to(dtype)(q, k, v, mask=given, causal=causal)
    assert found.dtype == dtype
    expected = _expected(name, core, q, k, given, causal) @ v.double()
    assert (found.double() - expected).norm() <= (1e-5 if dtype == torch.float32 else 0.05) * expected.norm()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_hidden_has_no_influence_and_no_gradient(name: str) -> None:
    core, (q, k, v) = _cores()[name], _qkv()
    parts = [part.clone().requires_grad_() for part in (k, v)]
    out = core(q, *parts, mask=_padding())[1, :, :-2]
    for gradient in torch.autograd.grad(out.sum(), parts):
        assert gradient[1, :, -2:].abs().max() == 0
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("orthogonal", "e-spa", "u-spa")])
def test_a_query_that_sees_nothing_gives_finite_numbers(name: str) -> None:
    mask = torch.ones(B, 1, N, N, dtype=torch.bool)
    mask[0, :, 0] = False
    parts = [part.requires_grad_() for part in _qkv()]
    out = _cores()[name](*parts, mask=mask)
    assert out.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(out.sum(), parts))


MANY = {"none": None, "padding": (1, 1, 1, -1), "one for all": (-1,), "by query": (1, 1, -1, 1), "any": (1, 2, -1, -1)}


def _mask(kind: str, n: int) -> Tensor | None:
    """A mask that hides a third of what it is of."""
    if (shape := MANY[kind]) is None:
        return None
    generator = torch.Generator().manual_seed(3)
    return torch.rand([n if size < 0 else size for size in shape], generator=generator) > 1 / 3


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven keys go through as thousands do."""
    monkeypatch.setattr(polynomial, "_MANY_KEYS", 6)
    monkeypatch.setattr(powers, "ROWS", 4)
    monkeypatch.setattr(powers, "_KEYS", 5)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("power", [1, 2, 3])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", MANY)
def test_tiles_give_what_a_whole_matrix_gives(power: int, causal: bool, mask: str) -> None:
    n = 11
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(1, 2, n, 3, generator=generator, dtype=torch.double).requires_grad_() for _ in range(3)]
    core = PolynomialAttention(power, "learned", heads=2).double()
    torch.nn.init.uniform_(core.gain, generator=generator)
    q, k, v = given
    hides = _mask(mask, n)
    seen, _ = twin.dense_mask(hides, causal, 1, 2, n, n)
    expected = twin.polynomial(twin.logits(q, k), seen, power, None) * core.gain[:, None, None] @ v
    found = core(q, k, v, mask=hides, causal=causal)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    ours, theirs = (torch.autograd.grad(out.sin().sum(), [*given, core.gain]) for out in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("power", [1, 2, 3])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", ["none", "any"])
def test_tiles_have_second_derivatives_and_are_known_to_torch_func(power: int, causal: bool, mask: str) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 7, 2, generator=generator, dtype=torch.double).requires_grad_() for _ in range(3))
    core, hides = PolynomialAttention(power), _mask(mask, 7)
    attend = lambda q, k, v: core(q, k, v, mask=hides, causal=causal)  # noqa: E731
    assert torch.autograd.gradcheck(attend, (q, k, v), fast_mode=True)
    assert torch.autograd.gradgradcheck(attend, (q, k, v), fast_mode=True)
    of_tokens = lambda x: attend(x, x.flip(-1), 2 * x)  # noqa: E731
    x = q.detach()
    jacobian = torch.func.jacrev(of_tokens)(x).reshape(x.numel(), -1)
    pullback = lambda u: torch.func.vjp(of_tokens, x)[1](u)[0]  # noqa: E731
    pushforward = torch.func.vjp(pullback, torch.zeros_like(x))[1]
    units = torch.eye(x.numel(), dtype=torch.double).reshape(-1, *x.shape)
    columns = torch.func.vmap(pushforward)(units)[0].reshape(x.numel(), -1)
    torch.testing.assert_close(columns.mT, jacobian, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("power", [1, 2, 3])
@pytest.mark.parametrize("causal", [False, True])
def test_tiles_of_many_heads_under_autocast(power: int, causal: bool) -> None:
    """More heads than go through at once; queries in float32, as a norm leaves them, are cast as a product's are."""
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(5, 3, 14, 4, generator=generator).requires_grad_() for _ in range(3)]
    with torch.autocast("cpu", torch.bfloat16):
        found = PolynomialAttention(power)(*parts, causal=causal)
    assert found.dtype == torch.bfloat16
    doubles = [part.detach().double().requires_grad_() for part in parts]
    expected = PolynomialAttention(power)(*doubles, causal=causal)
    weights = torch.randn(found.shape, generator=generator)
    gradients = (torch.autograd.grad((out * weights).sum(), of) for out, of in ((found, parts), (expected, doubles)))
    for one, other in [(found, expected), *zip(*gradients, strict=True)]:
        assert (one.double() - other).norm() <= 0.05 * other.norm()


class _Largest(TorchDispatchMode):
    """The most numbers that any tensor has, and a guess of the most bytes at a time."""

    most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else (out,):
            if isinstance(one, Tensor):
                self.most = max(self.most, one.untyped_storage().nbytes() // one.element_size())
        return out


@pytest.mark.parametrize(
    ("name", "causal"),
    [(name, False) for name in ("p1", "p2", "p3", "shaped", "value", "orthogonal")]
    + [(name, True) for name in ("p1", "p2", "p3", "shaped", "value")],
)
def test_the_largest_tensor_grows_linearly(name: str, causal: bool) -> None:
    most = []
    for n in (2048, 4096):
        parts = [torch.randn(1, H, n, 8).requires_grad_() for _ in range(3)]
        with _Largest() as largest:
            _cores()[name].float()(*parts, causal=causal).sum().backward()
        assert largest.most < n * n
        most.append(largest.most)
    assert most[1] <= 2.01 * most[0]


def test_many_keys_go_through_in_tiles() -> None:
    n = 1050
    q, k, v = (torch.randn(1, 2, n, 3, generator=torch.Generator().manual_seed(i)).double() for i in range(3))
    expected = (q @ k.mT / 3**0.5).tril() ** 3 * torch.arange(1, n + 1).double()[:, None] ** -0.5 @ v
    with _Largest() as largest:
        found = PolynomialAttention(3)(q, k, v, causal=True)
    assert largest.most < n * n
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_a_solved_scale_gives_a_mean_diagonal_of_one() -> None:
    q, _, v = _qkv()
    core = PolynomialAttention(3, "solved", heads=H).double()
    core.solving = True
    core(q, q, v, mask=_padding())
    core.solving = False
    diagonal = core.matrix(q, q, mask=_padding()).diagonal(dim1=2, dim2=3)
    there = _padding().expand(B, H, 1, N)[:, :, 0]
    torch.testing.assert_close(
        (diagonal * there).sum((0, 2)) / there.sum((0, 2)), torch.ones(H, dtype=torch.double), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda q: OrthogonalAttention()(q, q, q, causal=True), "bidirectional"),
        (lambda q: OrthogonalAttention()(q, q, q, dropout=0.1), "dropout 0"),
        (lambda q: OrthogonalAttention()(q, q, q, mask=torch.ones(N, N).tril().bool()), "masks by key"),
        (lambda q: OrthogonalAttention()(q, q, q, mask=torch.ones(1, 1, 1, N)), "bias"),
        (lambda q: OrthogonalAttention()(q[:, :, 1:], q, q), "cache"),
        (lambda q: ExponentialSPA(N)(q, q, q, causal=True), "bidirectional"),
        (lambda q: ExponentialSPA(N + 1)(q, q, q), f"tokens={N}"),
        (lambda q: PolynomialAttention(3, "solved")(q, q, q), "solve_attention_"),
        (lambda _: PolynomialAttention(4), "1, 2 or 3"),
        (lambda _: PolynomialAttention(3, float("inf")), "'visible'"),
        (lambda _: PolynomialAttention(3, -1.0), "above 0"),
        (lambda _: UniformSPA(4, (0.5, 0.2)), "rising"),
        (lambda _: UniformSPA(4, (0.2, 0.5), depth=3), "2 numbers for 3 blocks"),
        (lambda _: ExponentialSPA(4, 0.0), "above 0"),
        (lambda _: ExponentialSPA(0), "tokens=0"),
        (lambda _: ShapedAttention(heads=0), "heads=0"),
    ],
)
def test_what_cannot_be_is_refused(call: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        call(_qkv()[0].float())


@pytest.mark.parametrize("size", [0.0, 1e-8, 0.1, 3.0, 40.0])
@pytest.mark.parametrize("skew", [True, False])
def test_exponentials_and_their_gradients_are_those_of_torch(size: float, skew: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 9, 9, generator=generator, dtype=torch.double)
    x = size * (x - x.mT if skew else x) / 9
    x.requires_grad_()
    weights = torch.randn(x.shape, generator=generator, dtype=torch.double)
    found, expected = orthogonal._exponential(x), torch.linalg.matrix_exp(x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12 * expected.abs().max().item())
    ours, theirs = (torch.autograd.grad((out * weights).sum(), x)[0] for out in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11 * theirs.abs().max().item())
    torch.testing.assert_close(torch.func.vmap(orthogonal._exponential)(x), expected, rtol=1e-12, atol=1e-12)


def test_what_is_not_finite_stays_so() -> None:
    q = torch.full((1, 1, 3, 2), torch.nan)
    assert OrthogonalAttention()(q, q, q).isnan().all()
