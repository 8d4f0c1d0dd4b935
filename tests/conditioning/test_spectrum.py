import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from reference import spectrum as reference
from torch import Tensor

from skipless.conditioning.operators.linear_operator import LinearOperator
from skipless.conditioning.spectra.dense import matrix_spectrum
from skipless.conditioning.spectra.estimates import Estimate, Spectrum
from skipless.conditioning.spectra.golub_kahan import Bidiagonalization, probabilistic_bounds
from skipless.conditioning.spectra.spectrum import SpectrumMethod, spectrum
from skipless.errors import InputError

DOUBLE, SINGLE = torch.float64, torch.float32
EPS = np.finfo(np.float64).eps
SHAPES = {"square": (80, 80), "tall": (130, 80), "wide": (80, 130)}


def by_products(a: Tensor, name: str = "K") -> LinearOperator:
    """An operator that hides its matrix."""
    return replace(LinearOperator.from_dense(a, name), dense=None)


def agrees(record: Spectrum, a: Tensor) -> None:
    """Bounds hold what LAPACK finds, up to LAPACK's own rounding, and what has converged is right to the tolerance."""
    largest, smallest = reference.ends(a.numpy())
    room = 8 * EPS * largest
    for estimate, truth in ((record.sigma_max, largest), (record.sigma_min, smallest)):
        assert estimate.lower - room <= truth
        assert estimate.upper is not None
        assert truth <= estimate.upper + room
        if estimate.converged:
            assert abs(estimate.value - truth) <= record.tolerance * truth + room
    assert record.kappa.lower <= largest / max(smallest, 1e-300) * (1 + 1e-9)


def is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(is_plain, value.values()))
    return (
        all(map(is_plain, value)) if isinstance(value, list) else not isinstance(value, float) or math.isfinite(value)
    )


@pytest.mark.parametrize("dtype", [DOUBLE, SINGLE])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", reference.SPECTRA)
def test_every_method_is_right_where_it_says_so(name: str, shape: str, dtype: torch.dtype) -> None:
    rows, columns = SHAPES[shape]
    a = torch.tensor(reference.matrix(reference.SPECTRA[name](80), rows, columns, seed=3), dtype=dtype)
    methods: tuple[SpectrumMethod, ...] = ("dense", "lanczos", "inverse", "gram")
    for method in methods:
        if method != "inverse" or rows == columns:
            record = spectrum(LinearOperator.from_dense(a, name), method=method, tolerance=1e-6)
            assert record.sigma_max.method == ("lanczos" if method == "inverse" else method)
            assert record.method == method
            agrees(record, a)
            assert is_plain(record.as_json())


@pytest.mark.parametrize("method", ["dense", "lanczos", "inverse"])
@pytest.mark.parametrize("name", [n for n in reference.SPECTRA if "1e12" not in n])
def test_and_in_float64_it_says_so(name: str, method: SpectrumMethod) -> None:
    """Up to kappa = 1e6 every method converges; the test above would pass with methods that never do."""
    a = torch.tensor(reference.matrix(reference.SPECTRA[name](80), 80, 80, seed=3))
    assert spectrum(by_products(a), method=method).converged


@pytest.mark.parametrize("method", ["dense", "lanczos"])
def test_in_float32_what_is_well_conditioned_converges(method: SpectrumMethod) -> None:
    a = torch.tensor(reference.matrix(reference.SPECTRA["even"](120), 130, 120, seed=0), dtype=SINGLE)
    record = spectrum(LinearOperator.from_dense(a), method=method, tolerance=1e-6)
    assert record.converged
    agrees(record, a)


def test_the_rounding_of_float32_products_is_in_the_bounds() -> None:
    """A tolerance that float32 cannot keep is not said to be kept, and the error that is stated is kept."""
    a = torch.tensor(reference.matrix(np.logspace(0, -4, 100), 100, 100, seed=1))
    record = spectrum(by_products(a.float()), method="lanczos", tolerance=1e-6)
    assert not record.sigma_min.converged
    assert record.sigma_min.known
    agrees(record, a.float())


@pytest.mark.parametrize("dtype", [DOUBLE, SINGLE])
@pytest.mark.parametrize("method", ["dense", "gram", "lanczos", "inverse"])
@pytest.mark.parametrize("rank", [0, 1, 7, 39])
def test_a_singular_matrix_has_a_bound_and_no_infinity(rank: int, method: SpectrumMethod, dtype: torch.dtype) -> None:
    a = torch.tensor(
        reference.matrix(np.linspace(1, 2, rank), 40, 40, seed=5) if rank else np.zeros((40, 40)), dtype=dtype
    )
    record = spectrum(LinearOperator.from_dense(a, "K"), method=method)
    kappa = record.kappa
    assert not kappa.converged
    assert kappa.upper is None
    assert kappa.value == kappa.lower < math.inf
    assert str(kappa).startswith(">= ")
    if rank:
        assert kappa.lower > (0.02 / torch.finfo(dtype).eps) ** (0.5 if method == "gram" else 1)
    if method in {"dense", "gram"}:
        assert record.rank == rank
    assert is_plain(record.as_json())
    json.dumps(record.as_json(), allow_nan=False)


def test_beyond_the_precision_of_float32_it_says_so() -> None:
    """A float32 matrix with kappa = 1e9 has a sigma_min made of rounding, whatever float64 finds in it."""
    a = torch.tensor(reference.matrix(np.logspace(0, -9, 100), 100, 100, seed=2))
    assert abs(spectrum(LinearOperator.from_dense(a)).kappa.value / 1e9 - 1) < 1e-5
    kappa = spectrum(LinearOperator.from_dense(a.float())).kappa
    assert not kappa.converged
    assert str(kappa).startswith(">= ")
    assert 1e6 < kappa.lower < 1e9


def deficient(share: float, dim: int = 150) -> tuple[Tensor, float]:
    """A matrix with sigma_min = 1e-3 far below the others, whose vector has hardly any part in the start of seed 0."""
    start = Bidiagonalization(LinearOperator.from_dense(torch.eye(dim, dtype=DOUBLE)), 0).right.last.numpy()
    basis = np.linalg.qr(np.column_stack([start, reference.rotation(dim, dim, 9)[:, 1:]]))[0]
    turn = np.eye(dim)
    angle = math.asin(share)
    turn[[0, 0, 1, 1], [0, 1, 0, 1]] = math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle)
    small = (basis @ turn)[:, 1]  # <small, start> = share, up to sign
    rest = np.linalg.qr(np.column_stack([small, reference.rotation(dim, dim, 8)[:, 1:]]))[0][:, 1:]
    right = np.column_stack([rest, small])
    return torch.tensor(reference.rotation(dim, dim, 4) * np.append(np.linspace(1, 2, dim - 1), 1e-3) @ right.T), 1e-3


@pytest.mark.parametrize("share", [1e-4, 1e-6, 1e-7])
def test_a_start_that_hardly_contains_the_smallest_does_not_fool_it(share: float) -> None:
    """After 28 steps B_k shows the bottom of a cluster a thousand times too high; the bound knows of nothing there."""
    a, truth = deficient(share)
    run = Bidiagonalization(by_products(a), 0)
    misled = False
    for steps in range(2, 80, 2):
        run.extend(steps)
        known = probabilistic_bounds(run, 1e-6)
        misled |= known.smallest > 100 * truth
        assert known.lower <= truth * (1 + 1e-10)  # rounding moves it by eps sigma_max / sigma_min
    assert misled
    agrees(spectrum(by_products(a), method="lanczos"), a)


def test_bounds_miss_no_more_often_than_they_say() -> None:
    """With failure = 0.2 each side may miss in a fifth of the seeds; looked at half way to convergence."""
    a = torch.tensor(reference.matrix(np.logspace(0, -1, 40), 40, 40, seed=1))
    largest, smallest = reference.ends(a.numpy())
    above = below = informative = 0
    for seed in range(seeds := 60):
        run = Bidiagonalization(by_products(a), seed)
        run.extend(24)
        known = probabilistic_bounds(run, 0.2)
        assert known.largest <= largest * (1 + 1e-12)
        assert known.smallest >= smallest * (1 - 1e-12)
        above += known.upper < largest * (1 - 1e-12)
        below += known.lower > smallest * (1 + 1e-12)
        informative += 0 < known.lower < 0.99 * known.smallest
    assert informative > 0.8 * seeds
    assert above <= 0.4 * seeds  # 12 expected at most, deviation 3
    assert below <= 0.4 * seeds


@pytest.mark.parametrize("dtype", [DOUBLE, SINGLE])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 9), (9, 1), (2, 2), (50, 50), (80, 50)])
def test_scaled_rotations_are_done_in_a_step(rows: int, columns: int, dtype: torch.dtype) -> None:
    q = reference.rotation(max(rows, columns), min(rows, columns), 0)
    a = 7 * torch.tensor(q if rows >= columns else q.T, dtype=dtype)
    record = spectrum(by_products(a), method="lanczos", tolerance=1e-6)
    assert record.converged
    assert record.sigma_min.iterations == 1
    assert abs(record.kappa.value - 1) < 1e-6
    agrees(record, a)


def diagonal(values: Tensor, name: str = "K") -> LinearOperator:
    """A large operator that costs nothing."""
    n = len(values)
    return LinearOperator((n, n), lambda v: values * v, lambda v: values * v, values.dtype, values.device, name)


def test_auto_takes_the_cheapest_way_that_answers() -> None:
    even = torch.linspace(1, 3, 1501, dtype=DOUBLE)
    ends = torch.tensor([3.0, 3e-5], dtype=DOUBLE)
    hard = torch.cat([torch.logspace(0, -4, 1499, dtype=DOUBLE), ends])
    assert spectrum(diagonal(even[:300])).method == "dense"
    record = spectrum(diagonal(even))
    assert (record.method, record.converged) == ("lanczos", True)
    assert abs(record.kappa.value - 3) < 3e-6
    record = spectrum(diagonal(hard), max_iterations=40)
    assert (record.method, record.sigma_max.method, record.converged) == ("inverse", "lanczos", True)
    assert abs(record.kappa.value / 1e5 - 1) < 1e-6
    record = spectrum(diagonal(hard), max_iterations=40, inverse_rows=1000)
    assert (record.method, record.converged, record.rank) == ("lanczos", False, None)
    assert 10 < record.kappa.value == record.kappa.lower < 1e5
    assert str(record).startswith("K (1501 x 1501): kappa >= ")


def test_a_matrix_too_long_to_be_stored_goes_by_its_gram_matrix() -> None:
    values = torch.tensor([5.0, 3.0, 2.0, 0.5], dtype=DOUBLE)
    parts = 6_000_000

    def spread(v: Tensor) -> Tensor:
        return (values * v).repeat_interleave(parts) / parts**0.5

    operator = LinearOperator(
        (4 * parts, 4),
        spread,
        lambda u: values * u.view(4, parts).sum(1) / parts**0.5,
        DOUBLE,
        torch.device("cpu"),
        "J",
    )
    record = spectrum(operator)
    assert (record.method, record.rank, record.converged) == ("gram", 4, True)
    assert abs(record.kappa.value - 10) < 1e-6


def test_blocks_are_factored_one_by_one() -> None:
    blocks = torch.randn(30, 12, 12, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    whole = torch.block_diag(*blocks)
    record = spectrum(replace(by_products(whole), blocks=lambda: blocks))
    agrees(record, whole)
    assert (record.method, record.rank, record.shape) == ("dense", 360, (360, 360))


def test_memory_is_kept() -> None:
    """Two vectors a step: 40 steps of 1501 + 1501 float64 numbers, and no more."""
    record = spectrum(diagonal(torch.logspace(0, -5, 1501, dtype=DOUBLE)), memory=40 * 2 * 1501 * 8)
    assert (record.method, record.sigma_min.iterations) == ("lanczos", 40)
    with pytest.raises(InputError, match=r"1501 rows: its LU factors do not fit in 0.0 GiB; raise memory="):
        spectrum(diagonal(torch.ones(1501)), method="inverse", memory=2**20)


def test_the_seed_decides_and_the_answer_does_not_depend_on_it() -> None:
    a = by_products(torch.tensor(reference.matrix(np.logspace(0, -1.5, 100), 100, 100, seed=1)))
    first, again, other = (spectrum(a, method="lanczos", seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert abs(first.kappa.value / other.kappa.value - 1) < 2e-6


def test_transposing_changes_nothing() -> None:
    a = by_products(torch.tensor(reference.matrix(np.linspace(1, 4, 80), 90, 80, seed=1)))
    here, there = (spectrum(each, method="lanczos") for each in (a, a.mT))
    assert here.sigma_min == there.sigma_min
    assert here.sigma_max == there.sigma_max


def test_kappa_of_the_gram_matrix_is_the_square() -> None:
    record = spectrum(LinearOperator.from_dense(torch.diag(torch.tensor([8.0, 2.0]))))
    assert record.kappa.value == 4
    assert record.kappa_gram.value == 16
    assert record.kappa_gram.converged
    bound = replace(record, sigma_min=Estimate(0.0, 0.0, 1e-3, False, "lanczos", 5))
    assert bound.kappa_gram.value == pytest.approx(bound.kappa.lower**2)
    assert bound.kappa_gram.upper is None


def test_what_a_caller_keeps_is_left_alone() -> None:
    a = torch.randn(60, 60, generator=torch.Generator().manual_seed(0), dtype=DOUBLE).requires_grad_()
    before = a.detach().clone()
    spectrum(by_products(a), method="lanczos")
    eye = diagonal(torch.ones(60))
    assert spectrum(replace(eye, matvec=lambda v: v, rmatvec=lambda v: v), method="lanczos").kappa.value == 1
    assert torch.equal(a.detach(), before)
    assert a.grad is None


def test_attention_maps_a_record_each() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 3, 20, 20, generator=generator).softmax(-1)
    records = matrix_spectrum(maps, name="A")
    assert [record.name for record in records] == [f"A[{i}, {j}]" for i in range(2) for j in range(3)]
    for record, a in zip(records, maps.flatten(0, 1), strict=True):
        agrees(record, a)
        assert record.converged
    (alone,) = matrix_spectrum(maps[0, 0], name="A")
    assert alone.name == "A"
    assert alone.kappa == records[0].kappa


@pytest.mark.parametrize("method", ["auto", "dense", "gram", "lanczos", "inverse"])
def test_numbers_that_are_none_are_named(method: SpectrumMethod) -> None:
    a = torch.eye(5)
    a[2, 3] = math.nan
    with pytest.raises(InputError, match=r"^weights .*not finite"):
        spectrum(LinearOperator.from_dense(a, "weights"), method=method)


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_quoted() -> None:
    good = LinearOperator.from_dense(torch.eye(4), "K")
    with pytest.raises(InputError, match=r"K has bfloat16 products; convert"):
        spectrum(LinearOperator.from_dense(torch.eye(4).bfloat16(), "K"))
    with pytest.raises(InputError, match=r"map is float16; convert"):
        matrix_spectrum(torch.eye(4).half(), name="map")
    with pytest.raises(InputError, match=r"shape \(0, 4\): there is nothing to measure"):
        matrix_spectrum(torch.zeros(0, 4))
    with pytest.raises(InputError, match=r"method='qr' is not one of 'auto', 'dense'"):
        spectrum(good, method="qr")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"tolerance=0.*between 0 and 1"):
        spectrum(good, tolerance=0)
    with pytest.raises(InputError, match=r"max_iterations=0"):
        spectrum(good, max_iterations=0)
    with pytest.raises(InputError, match=r"5 x 4: method='inverse' needs a square one; use 'lanczos'"):
        spectrum(LinearOperator.from_dense(torch.ones(5, 4)), method="inverse")
    with pytest.raises(InputError, match=r"K is 4 x 4, a product \(2, 2\)"):
        spectrum(replace(good, dense=None, matvec=lambda v: v.view(2, 2)), method="lanczos")


def test_a_wrong_transpose_is_found() -> None:
    a = torch.randn(30, 30, generator=torch.Generator().manual_seed(0))
    wrong = replace(by_products(a), rmatvec=lambda u: a @ u)
    with pytest.raises(InputError, match=r"matvec and rmatvec are not products with one matrix and its transpose"):
        spectrum(wrong, method="lanczos")
