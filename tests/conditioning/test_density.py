import math

import numpy as np
import pytest
import torch
from reference import spectrum as reference

from skipless.conditioning.operators.linear_operator import LinearOperator
from skipless.conditioning.spectra.density import spectral_density
from skipless.errors import InputError


@pytest.mark.parametrize(("rows", "columns"), [(60, 60), (90, 60), (60, 90)])
def test_the_dense_density_is_that_of_all_singular_values(rows: int, columns: int) -> None:
    a = reference.matrix(np.logspace(1, -2, 60), rows, columns, seed=0)
    found = spectral_density(LinearOperator.from_dense(torch.tensor(a)))
    assert (found.method, found.vectors) == ("dense", 0)
    np.testing.assert_allclose(found.density, reference.density(a, found.grid.numpy(), found.width), atol=1e-9)
    assert not found.error.any()


def test_lanczos_quadrature_agrees_within_its_error() -> None:
    """Two bumps with a third and two thirds of the values; 16 vectors see them to a few standard errors."""
    values = np.append(np.linspace(0.1, 0.2, 100), np.linspace(1.0, 3.0, 200))
    a = reference.matrix(values, 320, 300, seed=0)
    found = spectral_density(LinearOperator.from_dense(torch.tensor(a)), vectors=16, steps=60, width=0.1, dense_rows=10)
    assert (found.method, found.vectors, found.steps) == ("lanczos", 16, 60)
    truth = reference.density(a, found.grid.numpy(), found.width)
    assert found.error.max() < 0.1 * truth.max()
    assert np.all(np.abs(found.density.numpy() - truth) < 5 * found.error.numpy() + 0.02 * truth.max())
    assert abs(found.share_below(0.5) - 1 / 3) < 0.05


@pytest.mark.parametrize("dense_rows", [10, 1000])
def test_it_integrates_to_one_and_counts_zeros_at_the_precision(dense_rows: int) -> None:
    a = torch.tensor(reference.matrix(np.linspace(1, 2, 30), 60, 60, seed=2))
    found = spectral_density(LinearOperator.from_dense(a), steps=50, width=0.2, points=2000, dense_rows=dense_rows)
    decades = torch.trapezoid(found.density, found.grid.log10()).item()
    assert abs(decades - 1) < 1e-3
    assert abs(found.share_below(1e-10) - 0.5) < (1e-12 if dense_rows == 1000 else 0.15)
    assert all(map(math.isfinite, found.as_json()["grid"]))


def test_the_seed_decides() -> None:
    operator = LinearOperator.from_dense(torch.tensor(reference.matrix(np.linspace(1, 2, 50), 50, 50, seed=2)))
    first, again, other = (spectral_density(operator, seed=seed, dense_rows=1, steps=5) for seed in (0, 0, 100))
    assert torch.equal(first.density, again.density)
    assert not torch.equal(first.density, other.density)


def test_bad_input_is_quoted() -> None:
    with pytest.raises(InputError, match=r"vectors=1, steps=80"):
        spectral_density(LinearOperator.from_dense(torch.eye(3)), vectors=1)
    with pytest.raises(InputError, match=r"null is 0 to working precision"):
        spectral_density(LinearOperator.from_dense(torch.zeros(3, 3), "null"))
    with pytest.raises(InputError, match=r"K is torch.float16"):
        spectral_density(LinearOperator.from_dense(torch.eye(3).half(), "K"))
