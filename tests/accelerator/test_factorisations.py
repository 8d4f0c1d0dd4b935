"""Batched factorisations on the device: SOAP's bases and TokenCut's cut, what fails, and what is not finite."""

import pytest
import torch
from reference.tolerances import TOLERANCE, assert_near
from torch import Tensor

from skipless.evaluators import tokencut
from skipless.optim import SOAP
from skipless.optim.soap.eigenbasis import initial_basis, orthogonal_iteration_

DTYPES = [torch.float32, torch.float64]


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("shape", [(3, 24, 24), (3, 24, 7), (3, 7, 24), (1, 160, 160)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_first_bases_are_orthonormal_and_diagonalise(shape: tuple[int, ...], dtype: torch.dtype, device) -> None:
    x = draw(*shape, dtype=dtype).to(device)
    basis, failed = initial_basis(x)
    assert (basis.device.type, basis.dtype, failed) == (device.type, dtype, [])
    assert_near(basis @ basis.mT, torch.eye(shape[1], dtype=dtype).expand(basis.shape))
    rotated = basis.double() @ (x.double() @ x.double().mT) @ basis.double().mT
    off = rotated - torch.diag_embed(rotated.diagonal(dim1=1, dim2=2))
    assert off.abs().max().item() <= TOLERANCE[dtype]["rtol"] * rotated.abs().max().item()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [12, 160])
def test_bases_turn_as_on_the_cpu(size: int, dtype: torch.dtype, device) -> None:
    first, second = draw(2, size, size, dtype=dtype), draw(2, size, size, dtype=dtype, seed=1)
    factor = second @ second.mT
    expected = orthogonal_iteration_(initial_basis(first)[0], factor.clone())
    found = orthogonal_iteration_(initial_basis(first)[0].to(device), factor.to(device))
    assert_near(found @ found.mT, torch.eye(size, dtype=dtype).expand(found.shape))
    assert_near((found.cpu().double() * expected.double()).sum(-1).abs(), torch.ones(2, size), torch.float32)


def test_a_stack_that_cannot_be_decomposed_is_decomposed_one_by_one(device, monkeypatch) -> None:
    x, svd = draw(3, 6, 6).to(device), torch.linalg.svd
    expected = initial_basis(x)[0]

    def failing(matrix: Tensor, **options: bool) -> object:
        if len(matrix) > 1 or torch.equal(matrix.float(), x[1:2]):
            raise torch.linalg.LinAlgError("did not converge")
        return svd(matrix, **options)

    monkeypatch.setattr(torch.linalg, "svd", failing)
    basis, failed = initial_basis(x)
    assert failed == [1]
    assert_near(basis[1], torch.eye(6))
    assert_near(basis[::2], expected[::2])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_a_gradient_that_is_not_finite_counts_as_zero_and_spares_the_others(bad: float, device) -> None:
    params = [torch.nn.Parameter(draw(4, 4, seed=i).to(device)) for i in range(2)]
    alone = torch.nn.Parameter(params[1].detach().clone())
    both, one = (SOAP(given, lr=0.1, precondition_frequency=2) for given in (params, [alone]))
    for step in range(5):
        grad = draw(4, 4, seed=9 + step).to(device)
        params[0].grad, params[1].grad, alone.grad = torch.full_like(grad, bad), grad, grad.clone()
        one.step()
        if step % 2:
            both.step()
        else:  # at a refresh
            with pytest.warns(RuntimeWarning, match="not finite were taken as zero.*parameter 0"):
                both.step()
    assert params[0].isfinite().all()
    assert_near(params[1].detach(), alone.detach())


def test_tokencut_finds_the_same_object(device) -> None:
    features = draw(4, 100, 16)
    features[:, 44:56] += 4 * draw(1, 1, 16, seed=3)
    there = tokencut(features.to(device), (10, 10), image_size=(160, 160))
    here = tokencut(features, (10, 10), image_size=(160, 160))
    assert [one.box for one in there] == [one.box for one in here]
    assert all(torch.equal(one.mask.cpu(), other.mask) for one, other in zip(there, here, strict=True))
