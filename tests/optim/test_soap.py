"""SOAP against its naive float64 twin, and what must hold whatever the shape."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from reference.soap import NaiveSoap
from torch import Tensor
from torch.nn import Parameter

from skipless.optim import SOAP
from skipless.optim.soap import eigenbasis as eigenbasis_module

Shape = tuple[int, ...]


def draw(shapes: list[Shape], steps: int, seed: int = 0) -> tuple[list[Parameter], list[list[Tensor]]]:
    """Parameters in float64 and their gradients for some steps."""
    generator = torch.Generator().manual_seed(seed)
    values = [
        [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes] for _ in range(steps + 1)
    ]
    return [Parameter(value) for value in values[0]], values[1:]


def step(optimizer: SOAP, params: list[Parameter], grads: list[Tensor]) -> None:
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad.clone()
    optimizer.step()


def assert_follows_twin(shapes: list[Shape], steps: int, twin_view: Any = None, **hyper: Any) -> list[NaiveSoap]:
    """Step ours and one twin per parameter (or per part of it, by `twin_view`) side by side."""
    params, grads = draw(shapes, steps)
    twin_hyper = {key: value for key, value in hyper.items() if key not in ("split", "merge_dims", "data_format")}
    view = twin_view or (lambda x: [x])
    twins = [[NaiveSoap(part.numpy(), **twin_hyper) for part in view(p.detach())] for p in params]
    optimizer = SOAP(params, **hyper)
    for now in grads:
        step(optimizer, params, now)
        for param, grad, parts in zip(params, now, twins, strict=True):
            expected = [twin.step(part.numpy()) for twin, part in zip(parts, view(grad), strict=True)]
            for ours, theirs in zip(view(param.detach()), expected, strict=True):
                np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=1e-8)
    return [twin for parts in twins for twin in parts]


# No side is longer than the product of the others: elsewhere the algorithm does not say what the basis is.
SHAPES: list[Shape] = [(6, 6), (1, 7), (3, 4, 5), (4, 2, 3, 2), (5,), (2, 1, 2), ()]


@settings(max_examples=25, deadline=None)
@given(
    shapes=st.lists(st.sampled_from(SHAPES), min_size=1, max_size=4),
    frequency=st.integers(1, 4),
    weight_decay=st.sampled_from([0.0, 0.1]),
    limit=st.sampled_from([4, 5, 100]),
    shampoo_beta=st.sampled_from([-1.0, 0.8]),
    flags=st.tuples(st.booleans(), st.booleans()),
)
def test_equals_the_twin(shapes, frequency, weight_decay, limit, shampoo_beta, flags) -> None:
    normalize, correct_bias = flags
    shapes = [shape for shape in shapes if shape != (1, 7) or limit < 7]
    hyper = {"lr": 0.02, "betas": (0.9, 0.97), "precondition_frequency": frequency, "weight_decay": weight_decay}
    hyper |= {"max_precond_dim": limit, "shampoo_beta": shampoo_beta}
    assert_follows_twin(shapes or [(6, 6)], 7, normalize_grads=normalize, correct_bias=correct_bias, **hyper)


def test_stacks_of_one_shape_equal_twins_one_by_one() -> None:
    assert_follows_twin([(8, 8)] * 5 + [(4, 5, 6)] * 3 + [(3,)] * 4, 7, precondition_frequency=2, lr=0.05)


def test_a_matrix_wider_than_a_block_of_the_factor_equals_the_twin(monkeypatch) -> None:
    monkeypatch.setattr(eigenbasis_module, "_BLOCK", 4)  # 11 = 4 + 4 + 3
    assert_follows_twin([(11, 11), (8, 8), (5, 4, 6)], 7, precondition_frequency=2, lr=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_triangular_products_are_whole_after_filling(dtype: torch.dtype) -> None:
    x = torch.randn(2, 300, 150, dtype=dtype)
    for layout in (x, x.mT.contiguous().mT, torch.randn(2, 300, 300, dtype=dtype)[..., ::2]):
        start = torch.randn(2, 300, 300, dtype=dtype)
        start = start + start.mT
        factor = eigenbasis_module.symmetrize_(eigenbasis_module.accumulate_(start.clone(), layout, 0.7))
        torch.testing.assert_close(factor, 0.7 * start + 0.3 * layout @ layout.mT, rtol=1e-4, atol=1e-4)
        assert torch.equal(factor, factor.mT)


def test_split_makes_stacked_matrices_separate_ones() -> None:
    assert_follows_twin([(18, 6)] * 2, 7, lambda x: list(x.split(6)), split=3, precondition_frequency=2)


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_merged_dims_equal_the_twin_of_the_merged_tensor(data_format: str) -> None:
    def joined(x: Tensor) -> list[Tensor]:  # (5, 2, 3, 2): at most 6 -> (5, 6, 2), or as channels first (5, 4, 3)
        return [x.permute(0, 3, 1, 2).reshape(5, 4, 3) if data_format == "channels_last" else x.reshape(5, 6, 2)]

    hyper: dict[str, Any] = {"merge_dims": True, "max_precond_dim": 6, "data_format": data_format}
    assert_follows_twin([(5, 2, 3, 2)], 7, joined, precondition_frequency=2, **hyper)


def test_vectors_get_a_basis_on_request() -> None:
    # One gradient fixes one direction only; of a single entry that is the whole basis.
    assert_follows_twin([(1,)], 5, precondition_1d=True, precondition_frequency=2)
    params, grads = draw([(6,)], 3)
    optimizer = SOAP(params, precondition_1d=True)
    for now in grads:
        step(optimizer, params, now)
    assert optimizer.state[params[0]]["basis_0"].shape == (1, 6, 6)


def test_the_second_moment_follows_its_directions_when_eigenvalues_change_places() -> None:
    """A moment that stayed behind, or moved without its direction, would miss the twin's trace by far."""
    params, grads = draw([(6, 6)], 9, seed=3)
    for now, grad in enumerate(grads):
        grad[0] *= torch.linspace(1, 8, 6).roll(now)[:, None]  # the strong rows wander
    twin = NaiveSoap(params[0].detach().numpy(), lr=0.05, precondition_frequency=1)
    optimizer = SOAP(params, lr=0.05, precondition_frequency=1)
    for now in grads:
        step(optimizer, params, now)
        np.testing.assert_allclose(params[0].detach().numpy(), twin.step(now[0].numpy()), rtol=0, atol=1e-8)
    assert any((order != np.arange(6)).any() for order in twin.orders)


@pytest.mark.parametrize("frequency", [1, 3, 10])
@pytest.mark.parametrize("shape", [(24, 6), (6, 24), (9, 6)])
def test_rounding_of_the_first_gradient_stays_rounding(shape: Shape, frequency: int) -> None:
    """Null spaces of tall and wide matrices get a basis that depends continuously on the gradient."""
    moves = []
    for disturbance in (0.0, 1e-7):
        params, grads = draw([shape], 13)
        grads[0][0] += disturbance * torch.randn(shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
        optimizer, start = SOAP(params, precondition_frequency=frequency, weight_decay=0.0), params[0].detach().clone()
        for now in grads:
            step(optimizer, params, now)
        moves.append(params[0].detach() - start)
    assert torch.linalg.norm(moves[1] - moves[0]) < 1e-4 * torch.linalg.norm(moves[0])  # the reference: 0.3


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.float64, 2e-13)])
@pytest.mark.parametrize("frequency", [3, 100])
@pytest.mark.parametrize("shape", [(16, 16), (24, 8), (8, 24)])
def test_rounding_of_gradients_with_a_steep_spectrum_stays_rounding(shape: Shape, frequency: int, dtype, bound) -> None:
    """A network that hardly learns yet has such gradients. Only the loss must agree: weak directions may differ.

    With `eigh` of the product and refreshes without a shift it is 1e-5 to 1e-4, and 1e-11 to 1e-7.
    """

    def apart(seed: int) -> float:
        generator = torch.Generator().manual_seed(seed)
        noise = partial(torch.randn, generator=generator, dtype=torch.float64)
        rank = min(shape)
        u, w = (torch.linalg.qr(noise(side, side)).Q[:, :rank] for side in shape)
        falling = torch.logspace(0, -4, rank, dtype=torch.float64)
        grads = [u * falling @ noise(rank, rank) @ (w * falling.sqrt()).T for _ in range(22)]
        moves = []
        for rounding in (0.0, torch.finfo(dtype).eps / 8):
            param = Parameter(torch.zeros(shape, dtype=dtype))
            optimizer = SOAP([param], lr=0.01, precondition_frequency=frequency, weight_decay=0.0)
            for grad in grads[:-1]:
                step(optimizer, [param], [(grad + rounding * grad.abs().max() * noise(*shape)).to(dtype)])
            moves.append(param.detach().double())
        seen = (grads[-1] * (moves[1] - moves[0])).sum().abs()
        return (seen / grads[-1].norm() / moves[0].norm()).item()

    assert sum(apart(seed) for seed in range(4)) / 4 < bound


@pytest.mark.parametrize("shape", [(24, 6), (6, 24), (7, 7), (3, 4, 20)])
def test_factors_are_means_of_products_and_bases_orthonormal(monkeypatch, shape: Shape) -> None:
    monkeypatch.setattr(eigenbasis_module, "_BLOCK", 4)  # what lies above the blocks is computed on saving only
    params, grads = draw([shape], 6)
    optimizer = SOAP(params, precondition_frequency=3, betas=(0.9, 0.8))
    for now in grads:
        step(optimizer, params, now)
    state = optimizer.state_dict()["state"][0]
    for axis, side in enumerate(shape):
        factor, basis = state[f"factor_{axis}"], state[f"basis_{axis}"]
        unfolded = [grad[0].movedim(axis, 0).flatten(1) for grad in grads]
        weights = [0.2 * 0.8 ** (5 - t) for t in range(6)]
        expected = sum(weight * x @ x.T for weight, x in zip(weights, unfolded, strict=True))
        torch.testing.assert_close(factor[0], expected)
        torch.testing.assert_close(basis[0] @ basis[0].T, torch.eye(side, dtype=torch.float64))


def test_the_update_is_the_same_in_rotated_coordinates() -> None:
    """What the whole method is for: rotating the problem rotates the trajectory. Adam does not have this."""
    u, w = (torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q for _ in range(2))
    params, grads = draw([(6, 6)], 8)
    turned = [Parameter(u @ params[0].detach() @ w)]
    plain_soap, turned_soap = (SOAP(p, lr=0.05, precondition_frequency=3) for p in (params, turned))
    for (grad,) in grads:
        step(plain_soap, params, [grad])
        step(turned_soap, turned, [u @ grad @ w])
    torch.testing.assert_close(turned[0].detach(), u @ params[0].detach() @ w, rtol=0, atol=1e-8)


def test_beats_adamw_on_an_ill_conditioned_quadratic() -> None:
    def final_loss(make: Any) -> float:
        generator = torch.Generator().manual_seed(0)
        u, w = (torch.linalg.qr(torch.randn(16, 16, generator=generator)).Q for _ in range(2))
        a, b = u * torch.logspace(0, -1.5, 16) @ u.T, w * torch.logspace(0, -1.5, 16) @ w.T
        param = Parameter(torch.randn(16, 16, generator=generator))
        optimizer = make([param])
        for now in range(200):
            for group in optimizer.param_groups:
                group["lr"] = 0.1 * (1 - now / 200)
            optimizer.zero_grad()
            loss = (a @ param @ b).square().sum()
            loss.backward()
            optimizer.step()
        return loss.item()

    soap = final_loss(lambda p: SOAP(p, weight_decay=0.0, precondition_frequency=5))
    adamw = final_loss(lambda p: torch.optim.AdamW(p, betas=(0.95, 0.95), weight_decay=0.0))
    assert soap < adamw / 10
