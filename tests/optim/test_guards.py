"""What SOAP refuses, survives and leaves alone."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from skipless.errors import InputError
from skipless.optim import SOAP


def step(optimizer: SOAP, *grads: torch.Tensor) -> None:
    params = [param for group in optimizer.param_groups for param in group["params"]]
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad
    optimizer.step()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", -1.0),
        ("lr", float("nan")),
        ("eps", -1e-8),
        ("weight_decay", -0.1),
        ("betas", (0.9, 1.0)),
        ("betas", (-0.1, 0.9)),
        ("shampoo_beta", 1.5),
        ("precondition_frequency", 0),
        ("max_precond_dim", 0),
        ("split", 0),
    ],
)
def test_bad_values_are_quoted(name: str, value: Any) -> None:
    quoted = rf"{name}=.*{value[1] if isinstance(value, tuple) else value}"
    with pytest.raises(InputError, match=quoted):
        SOAP([Parameter(torch.ones(2, 2))], **{name: value})
    optimizer = SOAP([Parameter(torch.ones(2, 2))])
    with pytest.raises(InputError, match=quoted):
        optimizer.add_param_group({"params": [Parameter(torch.ones(2))], name: value})
    assert len(optimizer.param_groups) == 1
    optimizer.param_groups[0][name] = value
    with pytest.raises(InputError, match=quoted):
        step(optimizer, torch.ones(2, 2))


def test_an_unknown_layout_and_an_uneven_split_are_refused() -> None:
    optimizer = SOAP([Parameter(torch.ones(4, 2))])
    optimizer.param_groups[0]["data_format"] = "channels_middle"
    with pytest.raises(InputError, match="'channels_middle'"):
        step(optimizer, torch.ones(4, 2))
    with pytest.raises(InputError, match=r"split=3 does not divide the 4 rows of a parameter of shape \(4, 2\)"):
        step(SOAP([Parameter(torch.ones(4, 2))], split=3), torch.ones(4, 2))


def test_sparse_gradients_and_complex_parameters_are_refused_before_anything_moves() -> None:
    params = [Parameter(torch.ones(3)), Parameter(torch.ones(4, 2))]
    optimizer = SOAP(params)
    step(optimizer, torch.ones(3), torch.ones(4, 2))
    with pytest.raises(InputError, match=r"shape \(4, 2\) has a sparse gradient"):
        step(optimizer, torch.ones(3), torch.ones(4, 2).to_sparse())
    assert torch.equal(params[0], torch.ones(3))
    with pytest.raises(InputError, match=r"shape \(3, 3\) is torch.complex64"):
        SOAP([Parameter(torch.ones(3, 3, dtype=torch.complex64))])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_a_gradient_that_is_not_finite_counts_as_zero_and_is_reported(bad: float) -> None:
    def run(poison: float | None) -> tuple[list[Parameter], SOAP]:
        generator = torch.Generator().manual_seed(0)
        params = [Parameter(torch.ones(5, 5)), Parameter(torch.ones(5, 5)), Parameter(torch.ones(5))]
        optimizer = SOAP(params, precondition_frequency=4)
        for now in range(6):
            grads = [torch.randn(param.shape, generator=generator) for param in params]
            if now == 2:
                for grad in grads[1:]:
                    grad.zero_()
                    if poison is not None:
                        grad[..., 0] = poison
            step(optimizer, *grads)
        return params, optimizer

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clean, _ = run(None)
    with pytest.warns(RuntimeWarning, match="not finite") as caught:
        poisoned, optimizer = run(bad)
    assert sorted(str(warning.message).rpartition(": ")[2] for warning in caught) == [
        "parameter 1 (shape (5, 5))",
        "parameter 2 (shape (5,))",
    ]
    for ours, expected in zip(poisoned, clean, strict=True):
        assert torch.equal(ours, expected)
    assert all(optimizer.state[p][name].isfinite().all() for p in poisoned[:2] for name in ("basis_0", "basis_1"))


def test_a_first_gradient_that_is_not_finite_leaves_axes_for_a_basis() -> None:
    optimizer = SOAP([Parameter(torch.ones(4, 4))])
    with pytest.warns(RuntimeWarning, match="not finite"):
        step(optimizer, torch.full((4, 4), float("nan")))
    (param,) = optimizer.param_groups[0]["params"]
    assert torch.equal(optimizer.state[param]["basis_0"][0].abs(), torch.eye(4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gradient_that_cannot_be_decomposed_gets_the_identity_alone(monkeypatch, dtype) -> None:
    svd, tried = torch.linalg.svd, []

    def failing(matrix: torch.Tensor, **options: Any) -> Any:
        tried.append((len(matrix), matrix.dtype))
        if (matrix[:, 0, 0] > 100).any():
            raise torch.linalg.LinAlgError("did not converge")
        return svd(matrix, **options)

    params = [Parameter(torch.ones(3, 3, dtype=dtype)) for _ in range(3)]
    optimizer = SOAP(params, max_precond_dim=3, lr=0.1, precondition_frequency=2)
    grads = [torch.randn(3, 3, dtype=dtype) for _ in range(3)]
    grads[1][0, :] = 1e3
    grads[1][:, 0] = 1e3
    monkeypatch.setattr(torch.linalg, "svd", failing)
    with pytest.warns(RuntimeWarning, match=r"cannot be decomposed.*: parameter 1 \(shape \(3, 3\)\)"):
        step(optimizer, *grads)
    monkeypatch.undo()
    bases = [optimizer.state[param]["basis_0"][0] for param in params]
    assert torch.equal(bases[1], torch.eye(3, dtype=dtype))
    for basis, grad in ((bases[0], grads[0]), (bases[2], grads[2])):
        turned = basis @ grad @ grad.T @ basis.T
        torch.testing.assert_close(turned, turned.diagonal().diag(), rtol=0, atol=1e-4)
    assert set(tried) == {(3, torch.float64), (1, torch.float64)}
    for _ in range(4):
        step(optimizer, *(torch.randn(3, 3, dtype=dtype) for _ in range(3)))
    assert all(param.isfinite().all() for param in params)
    assert not torch.equal(optimizer.state[params[1]]["basis_0"][0], torch.eye(3, dtype=dtype))


def test_long_sides_and_vectors_have_no_factor() -> None:
    params = [Parameter(torch.ones(4, 9)), Parameter(torch.ones(9, 9)), Parameter(torch.ones(3))]
    optimizer = SOAP(params, max_precond_dim=8)
    step(optimizer, *(torch.randn(param.shape) for param in params))
    moments = {"step", "exp_avg", "exp_avg_sq"}
    assert [set(optimizer.state[p]) - moments for p in params] == [{"factor_0", "basis_0"}, set(), set()]


def test_zero_gradients_and_vanishing_ones_do_no_harm() -> None:
    for scale in (0.0, 1e-30):
        param = Parameter(torch.ones(4, 4))
        optimizer = SOAP([param], precondition_frequency=2, weight_decay=0.0)
        for _ in range(5):
            step(optimizer, scale * torch.randn(4, 4))
        torch.testing.assert_close(param.detach(), torch.ones(4, 4), rtol=0, atol=1e-12)
        assert all(optimizer.state[param][name].isfinite().all() for name in ("basis_0", "basis_1"))


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0), (3, 0, 2)])
@pytest.mark.parametrize("options", [{}, {"merge_dims": True, "precondition_1d": True}])
def test_parameters_without_entries_are_left_alone(shape: tuple[int, ...], options: dict[str, bool]) -> None:
    empty, (param, twin) = Parameter(torch.ones(shape)), (Parameter(torch.ones(4, 4)) for _ in range(2))
    optimizer = SOAP([empty, param], precondition_frequency=2, **options)
    alone = SOAP([twin], precondition_frequency=2, **options)
    for _ in range(4):
        grad = torch.randn(4, 4)
        step(optimizer, torch.ones(shape), grad)
        step(alone, grad)
    assert torch.equal(param, twin)
    assert not optimizer.state.get(empty)
    again = SOAP([empty, param], **options)
    again.load_state_dict(optimizer.state_dict())
    step(again, torch.ones(shape), grad)
    step(alone, grad)
    assert torch.equal(param, twin)


BACKENDS = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)


@pytest.fixture
def precisions() -> Iterator[Any]:
    """What PyTorch now does with fp32 products, by either of its interfaces; put back afterwards."""

    def read() -> tuple[str, ...]:
        try:
            overall = torch.get_float32_matmul_precision()
        except RuntimeError as error:
            overall = str(error)
        return overall, *(backend.fp32_precision for backend in BACKENDS)

    yield read
    torch.set_float32_matmul_precision("highest")
    for backend in BACKENDS:
        backend.fp32_precision = "none"


@pytest.mark.parametrize("interface", ["overall", "by backend", "old"])
def test_reduced_precision_is_kept_out_and_put_back(monkeypatch, precisions: Any, interface: str) -> None:
    seen = []
    multiply = torch.Tensor.baddbmm_

    def spy(*args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append((*precisions(), torch.is_autocast_enabled("cpu")))
        return multiply(*args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "baddbmm_", spy)
    if interface == "overall":
        torch.set_float32_matmul_precision("medium")
    elif interface == "by backend":
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    else:
        torch.backends.cuda.matmul.allow_tf32 = True
    before = precisions()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        step(SOAP([Parameter(torch.ones(4, 4))]), torch.randn(4, 4))
        assert torch.is_autocast_enabled("cpu")
    assert precisions() == before
    assert seen == [("highest", "ieee", "ieee", False)] * 2


def test_the_first_gradient_moves_nothing_and_no_gradient_neither() -> None:
    params = [Parameter(torch.ones(3, 3)), Parameter(torch.ones(3))]
    optimizer = SOAP(params)
    optimizer.step()
    assert not any(optimizer.state.values())
    step(optimizer, torch.randn(3, 3), torch.randn(3))
    assert torch.equal(params[0], torch.ones(3, 3))
    assert torch.equal(params[1], torch.ones(3))
