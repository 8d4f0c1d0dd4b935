"""SOAP's state: saved, loaded, copied, and kept in the right dtype and count."""

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from optim.two_kinds import assert_same
from torch import Tensor
from torch.nn import Parameter

from skipless.errors import InputError
from skipless.optim import SOAP

SHAPES = [(6, 6), (6, 6), (12, 4), (5,), (5,), (3, 2, 4)]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def make(dtype: torch.dtype = torch.float32, **hyper: Any) -> tuple[SOAP, list[Parameter]]:
    generator = torch.Generator().manual_seed(0)
    params = [Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES]
    groups = [{"params": params[:2]}, {"params": params[2:3], "split": 3}, {"params": params[3:], "weight_decay": 0.0}]
    return SOAP(groups, **({"precondition_frequency": 3, "lr": 0.05} | hyper)), params


def train(optimizer: SOAP, params: list[Parameter], steps: range) -> None:
    for now in steps:
        generator = torch.Generator().manual_seed(100 + now)
        for param in params:
            param.grad = torch.randn(param.shape, generator=generator).to(param.dtype)
        optimizer.step()


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    return [tensor for item in items for tensor in tensors(item)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stop", [1, 4, 6])
def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_one(dtype: torch.dtype, stop: int) -> None:
    whole, params = make(dtype)
    train(whole, params, range(11))

    first, cut = make(dtype)
    train(first, cut, range(stop))
    file = io.BytesIO()
    torch.save([first.state_dict(), cut], file)
    file.seek(0)
    second, resumed = make(dtype, lr=1.0, precondition_frequency=7)  # the checkpoint overrules these
    saved, values = torch.load(file, weights_only=True)
    with torch.no_grad():
        for param, value in zip(resumed, values, strict=True):
            param.copy_(value)
    second.load_state_dict(saved)
    assert_same(second.state_dict(), saved)
    train(second, resumed, range(stop, 11))
    for param, expected in zip(resumed, params, strict=True):
        assert torch.equal(param, expected)
    assert_same(second.state_dict(), whole.state_dict())


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_go_on_alone(clone: Any) -> None:
    optimizer, params = make()
    train(optimizer, params, range(4))
    twin, twin_params = clone((optimizer, params))
    train(optimizer, params, range(4, 8))
    before = copy.deepcopy(optimizer.state_dict())
    train(twin, twin_params, range(4, 8))
    assert_same(twin.state_dict(), before)
    assert_same(optimizer.state_dict(), before)


def test_a_state_dict_holds_plain_values_and_independent_tensors() -> None:
    optimizer, params = make()
    train(optimizer, params, range(4))
    saved = optimizer.state_dict()
    storages = [tensor.untyped_storage() for tensor in tensors(saved)]
    assert len({storage.data_ptr() for storage in storages}) == len(storages)
    assert all(storage.nbytes() == t.nbytes for storage, t in zip(storages, tensors(saved), strict=True))

    def plain(value: Any) -> bool:
        if isinstance(value, dict):
            return all(plain(item) for item in value.values())
        if isinstance(value, list):
            return all(plain(item) for item in value)
        return value is None or isinstance(value, Tensor | int | float | str)

    assert plain(saved)


def test_a_loaded_state_is_not_shared_with_the_checkpoint() -> None:
    optimizer, params = make()
    train(optimizer, params, range(3))
    saved = optimizer.state_dict()
    kept = copy.deepcopy(saved)
    other, other_params = make()
    other.load_state_dict(saved)
    train(other, other_params, range(3, 6))
    assert_same(saved, kept)


@pytest.mark.parametrize("dtype", DTYPES)
def test_state_is_fp32_for_half_precision_and_the_own_dtype_else(dtype: torch.dtype) -> None:
    optimizer, params = make(dtype)
    train(optimizer, params, range(4))
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    assert {tensor.dtype for tensor in tensors(optimizer.state_dict()["state"])} == {expected}
    assert all(param.dtype == dtype and param.isfinite().all() for param in params)


@pytest.mark.parametrize("saved_as", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_state_can_be_loaded_into_parameters_of_another_dtype(saved_as: torch.dtype, dtype: torch.dtype) -> None:
    first, params = make(saved_as)
    train(first, params, range(4))
    second, others = make(dtype)
    saved = first.state_dict()
    second.load_state_dict(saved)
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    for old, new in zip(tensors(saved["state"]), tensors(second.state_dict()["state"]), strict=True):
        assert new.dtype == expected
        assert torch.equal(old.to(expected), new)
    train(second, others, range(4, 8))  # with a refresh of the bases
    assert all(param.isfinite().all() for param in others)
    assert [second.state[param]["step"] for param in others] == [7] * len(others)
    assert all(type(second.state[param]["step"]) is int for param in others)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_model_may_change_its_dtype_between_steps(dtype: torch.dtype) -> None:
    (optimizer, params), (other, others) = make(), make(dtype)
    train(optimizer, params, range(4))
    other.load_state_dict(optimizer.state_dict())
    for param, twin in zip(params, others, strict=True):
        param.data = param.data.to(dtype)  # as nn.Module.to does
        twin.data.copy_(param.data)
    train(optimizer, params, range(4, 8))
    train(other, others, range(4, 8))
    for param, twin in zip(params, others, strict=True):
        assert torch.equal(param, twin)
    assert_same(optimizer.state_dict(), other.state_dict())


def test_bf16_parameters_follow_fp32_ones_up_to_rounding() -> None:
    (exact, params), (rounded, low) = make(lr=1e-3), make(torch.bfloat16, lr=1e-3)
    with torch.no_grad():
        for param, other in zip(params, low, strict=True):
            param.copy_(other)
    for now in range(4):
        generator = torch.Generator().manual_seed(now)
        for param, other in zip(params, low, strict=True):
            other.grad = torch.randn(param.shape, generator=generator).bfloat16()
            param.grad = other.grad.float()
        exact.step()
        rounded.step()
    assert_same(tensors(exact.state_dict()["state"]), tensors(rounded.state_dict()["state"]))
    for param, other in zip(params, low, strict=True):
        torch.testing.assert_close(other.float(), param, rtol=3 * 2**-8, atol=3e-5)


def test_a_late_gradient_starts_its_own_count() -> None:
    optimizer, (early, late, *_) = make()
    alone = SOAP([Parameter(late.detach().clone())], precondition_frequency=3, lr=0.05)
    (twin,) = alone.param_groups[0]["params"]
    for now in range(9):
        generator = torch.Generator().manual_seed(now)
        early.grad = torch.randn(6, 6, generator=generator)
        late.grad = torch.randn(6, 6, generator=generator) if now >= 4 else None
        optimizer.step()
        if late.grad is not None:
            twin.grad = late.grad.clone()
            alone.step()
    assert (optimizer.state[early]["step"], optimizer.state[late]["step"]) == (8, 4)
    torch.testing.assert_close(late, twin, rtol=0, atol=1e-6)


def test_a_paused_gradient_leaves_its_parameter_and_state_alone() -> None:
    optimizer, params = make()
    train(optimizer, params, range(4))
    params[0].grad, before = None, copy.deepcopy((params[0], optimizer.state_dict()["state"][0]))
    optimizer.step()
    assert torch.equal(params[0], before[0])
    assert_same(optimizer.state_dict()["state"][0], before[1])
    train(optimizer, params, range(5, 8))
    assert [optimizer.state[param]["step"] for param in params[:2]] == [6, 7]


def test_changed_values_in_a_group_take_effect() -> None:
    optimizer, params = make(precondition_frequency=100)
    train(optimizer, params, range(3))
    before = optimizer.state[params[0]]["basis_0"].clone()
    train(optimizer, params, range(3, 4))
    assert torch.equal(optimizer.state[params[0]]["basis_0"], before)
    optimizer.param_groups[0]["precondition_frequency"] = 2
    train(optimizer, params, range(4, 5))
    assert not torch.equal(optimizer.state[params[0]]["basis_0"], before)
    before = params[0].detach().clone(), params[2].detach().clone()
    optimizer.param_groups[0]["lr"] = 0.0
    train(optimizer, params, range(5, 6))
    assert torch.equal(params[0], before[0])
    assert not torch.equal(params[2], before[1])
    optimizer.param_groups[0]["max_precond_dim"] = 2
    with pytest.raises(InputError, match="max_precond_dim"):
        train(optimizer, params, range(6, 7))


def test_a_group_can_be_added_and_state_replaced_by_other_hands() -> None:
    optimizer, params = make()
    train(optimizer, params, range(3))
    extra = Parameter(torch.ones(4, 4))
    optimizer.add_param_group({"params": [extra], "lr": 1.0})
    train(optimizer, [*params, extra], range(3, 5))
    assert optimizer.state[extra]["step"] == 1
    assert not torch.equal(extra, torch.ones(4, 4))
    optimizer.state[params[0]] = {key: copy.deepcopy(value) for key, value in optimizer.state[params[0]].items()}
    optimizer.state[params[0]]["exp_avg"].fill_(float("nan"))  # what the optimizer holds now is what counts
    train(optimizer, [*params, extra], range(5, 6))
    assert params[0].isnan().all()
    assert not params[1].isnan().any()


def test_a_closure_runs_with_gradients_and_gives_its_loss() -> None:
    param = Parameter(torch.eye(3))
    optimizer = SOAP([param])

    def closure() -> float:
        optimizer.zero_grad()
        loss = param.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 3.0


def test_a_scheduler_of_torch_drives_it() -> None:
    optimizer, params = make(lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda now: 0.1 / (1 + now))
    train(optimizer, params, range(2))
    scheduler.step()
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.05)


def test_checkpoints_of_others_are_refused() -> None:
    optimizer, params = make()
    train(optimizer, params, range(2))
    saved = optimizer.state_dict()
    with pytest.raises(InputError, match=r"shape \(6, 5\)"):
        SOAP([{"params": [Parameter(torch.ones(6, 5)), params[1]]}, *groups(params)]).load_state_dict(saved)
    with pytest.raises(InputError, match="another model"):
        SOAP(params).load_state_dict(saved)
    adamw = torch.optim.AdamW([{"params": params[:2]}, *groups(params)])
    adamw.step()
    with pytest.raises(InputError, match="another optimizer, with step"):
        optimizer.load_state_dict(adamw.state_dict())


def groups(params: list[Parameter]) -> list[dict[str, Any]]:
    return [{"params": params[2:3]}, {"params": params[3:]}]
