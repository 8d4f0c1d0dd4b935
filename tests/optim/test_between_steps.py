"""Everything that torch lets others do to an optimizer between two steps: SOAP must act on it as AdamW does.

One table for each property. AdamW runs through the same tables, so that they say what torch's own optimizers do.
`test_replaced_state` has the tables for what is done to the state.
"""

import copy
import pickle
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from optim.two_kinds import KINDS, SHAPES, Action, grads_at, make, same, train, values
from torch import Tensor
from torch.nn import Parameter
from torch.optim import AdamW, Optimizer

# --- What changes nothing -------------------------------------------------------------------------------------------


def new_groups(optimizer: Optimizer, _: Any) -> None:
    optimizer.param_groups = [dict(group) for group in optimizer.param_groups]


def groups_in_place(optimizer: Optimizer, _: Any) -> None:
    optimizer.param_groups[:] = [{**group, "params": list(group["params"])} for group in optimizer.param_groups]


def dealt_again(optimizer: Optimizer, params: list[Parameter]) -> None:
    """One parameter of each pair goes to a group of its own, of the same values."""
    first, second = optimizer.param_groups
    first["params"], second["params"] = [params[0], params[2]], [params[3], params[5]]
    optimizer.add_param_group({**first, "params": [params[1]]})
    optimizer.add_param_group({**second, "params": [params[4]]})


def other_order(optimizer: Optimizer, _: Any) -> None:
    for group in optimizer.param_groups:
        group["params"].reverse()
    optimizer.param_groups.reverse()


def new_state_dicts(optimizer: Optimizer, params: list[Parameter]) -> None:
    for param in params[::2]:
        optimizer.state[param] = dict(optimizer.state[param])


def new_state(optimizer: Optimizer, _: Any) -> None:
    optimizer.state = defaultdict(dict, optimizer.state)


def new_memory(optimizer: Optimizer, _: Any) -> None:
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, Tensor):
                value.data = value.data.clone()


def extra_entries(optimizer: Optimizer, params: list[Parameter]) -> None:
    optimizer.state[params[0]]["mine"] = torch.ones(3)
    optimizer.state["notes"] = {"by": "another hand"}  # pyright: ignore[reportArgumentType]
    optimizer.param_groups[0]["lr_scale"] = 1.0


def new_data(_: Any, params: list[Parameter]) -> None:
    for param in params:
        param.data = param.data.clone()


def swapped(_: Any, params: list[Parameter]) -> None:
    """What `Module.to` does if torch is told to swap."""
    for param in params:
        torch.utils.swap_tensors(param, Parameter(param.detach().clone()))


def frozen_for_a_while(_: Any, params: list[Parameter]) -> None:
    for param in params:
        param.requires_grad_(False)
        param.requires_grad_(True)


def zeroed(optimizer: Optimizer, _: Any) -> None:
    optimizer.zero_grad(set_to_none=False)
    optimizer.zero_grad(set_to_none=True)


def idle_step(optimizer: Optimizer, _: Any) -> None:
    optimizer.zero_grad()
    optimizer.step()


def tensor_lr(optimizer: Optimizer, _: Any) -> None:
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"], dtype=torch.float64)


def betas_as_a_list(optimizer: Optimizer, _: Any) -> None:
    for group in optimizer.param_groups:
        group["betas"] = list(group["betas"])


def saved_and_loaded(optimizer: Optimizer, _: Any) -> None:
    optimizer.load_state_dict(optimizer.state_dict())


def hooks_that_copy(optimizer: Optimizer, _: Any) -> None:
    handles = [
        optimizer.register_state_dict_pre_hook(lambda _: None),
        optimizer.register_state_dict_post_hook(lambda _, saved: {**saved}),
        optimizer.register_load_state_dict_pre_hook(lambda _, loaded: copy.deepcopy(loaded)),
        optimizer.register_load_state_dict_post_hook(lambda _: None),
        optimizer.register_step_pre_hook(lambda _, args, kwargs: (args, kwargs)),
        optimizer.register_step_post_hook(lambda _, args, kwargs: None),
    ]
    optimizer.load_state_dict(optimizer.state_dict())
    for handle in handles[:3]:
        handle.remove()


def looked_at(optimizer: Optimizer, _: Any) -> None:
    optimizer.state_dict()
    repr(optimizer)
    copy.deepcopy(optimizer)
    pickle.dumps(optimizer)


NEUTRAL: list[Action] = [
    *(new_groups, groups_in_place, dealt_again, other_order, new_state_dicts, new_state, new_memory, extra_entries),
    *(new_data, swapped, frozen_for_a_while, zeroed, idle_step, tensor_lr, betas_as_a_list, saved_and_loaded),
    *(hooks_that_copy, looked_at),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("when", [1, 4])
@pytest.mark.parametrize("act", NEUTRAL)
def test_what_changes_no_value_changes_no_step(kind: Any, when: int, act: Action) -> None:
    (plain, expected), (optimizer, params) = make(kind), make(kind)
    train(plain, expected, range(8))
    train(optimizer, params, range(when))
    act(optimizer, params)
    train(optimizer, params, range(when, 8))
    for param, twin in zip(params, expected, strict=True):  # a pair in two stacks multiplies in another order
        torch.testing.assert_close(param, twin, rtol=0, atol=2e-6)


COPIES: list[Callable[[Any], Any]] = [
    lambda value: value.clone() if isinstance(value, Tensor) else value,
    copy.deepcopy,
    lambda value: value.double() if isinstance(value, Tensor) and value.ndim else value,
    lambda value: torch.as_tensor(value).clone(),  # a step count that has become a tensor
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", COPIES)
def test_copies_in_the_state_change_nothing(kind: Any, change: Callable[[Any], Any]) -> None:
    if kind is AdamW and change is COPIES[2]:
        pytest.skip("AdamW asks for moments of the parameter's dtype")
    (plain, expected), (optimizer, params) = make(kind), make(kind)
    train(plain, expected, range(8))
    train(optimizer, params, range(4))
    for state in optimizer.state.values():
        state.update({key: change(value) for key, value in state.items()})
    train(optimizer, params, range(4, 8))
    assert all(same(values(params), values(expected)))


# --- What stops some parameters -------------------------------------------------------------------------------------


def stop_new_groups(optimizer: Optimizer, params: list[Parameter]) -> list[int]:
    new_groups(optimizer, params)
    optimizer.param_groups[0]["lr"] = 0.0
    return [0, 1, 2]


def stop_group_replaced(optimizer: Optimizer, _: Any) -> list[int]:
    optimizer.param_groups[1] = {**optimizer.param_groups[1], "lr": 0.0}
    return [3, 4, 5]


def stop_dealt(optimizer: Optimizer, params: list[Parameter]) -> list[int]:
    optimizer.param_groups[1]["lr"] = 0.0
    optimizer.param_groups[0]["params"] = params[:1]
    optimizer.param_groups[1]["params"] = params[1:]
    return [1, 2, 3, 4, 5]


def stop_exchanged(optimizer: Optimizer, _: Any) -> list[int]:
    """The groups exchange all their parameters; the order of the list stays."""
    first, second = optimizer.param_groups
    first["params"], second["params"] = second["params"], first["params"]
    first["lr"] = 0.0
    return [3, 4, 5]


def stop_moved_into_added_group(optimizer: Optimizer, params: list[Parameter]) -> list[int]:
    optimizer.param_groups[0]["params"] = params[:2]
    optimizer.add_param_group({"params": [params[2]], "lr": 0.0})
    return [2]


def stop_tensor_lr(optimizer: Optimizer, _: Any) -> list[int]:
    optimizer.param_groups[0]["lr"] = torch.tensor(0.0)
    return [0, 1, 2]


def stop_tensor_lr_filled(optimizer: Any, params: list[Parameter]) -> list[int]:
    optimizer.param_groups[0]["lr"] = lr = torch.tensor(0.05)
    for param in params:
        param.grad = None
    optimizer.step()
    lr.zero_()
    return [0, 1, 2]


def stop_removed(optimizer: Optimizer, params: list[Parameter]) -> list[int]:
    optimizer.param_groups[0]["params"] = [params[0], params[2]]
    return [1]


def stop_group_removed(optimizer: Optimizer, _: Any) -> list[int]:
    del optimizer.param_groups[0]
    return [0, 1, 2]


def stop_by_post_hook(optimizer: Optimizer, _: Any) -> list[int]:
    optimizer.register_load_state_dict_post_hook(lambda o: o.param_groups[0].update(lr=0.0))
    optimizer.load_state_dict(optimizer.state_dict())
    return [0, 1, 2]


def stop_by_pre_hook(optimizer: Optimizer, _: Any) -> list[int]:
    def hook(_: Any, loaded: dict[str, Any]) -> dict[str, Any]:
        first, second = loaded["param_groups"]
        return {**loaded, "param_groups": [{**first, "lr": 0.0}, second]}

    optimizer.register_load_state_dict_pre_hook(hook)
    optimizer.load_state_dict(optimizer.state_dict())
    return [0, 1, 2]


def stop_by_step_hook(optimizer: Optimizer, _: Any) -> list[int]:
    optimizer.register_step_pre_hook(lambda o, *_: o.param_groups[0].update(lr=0.0))
    return [0, 1, 2]


def stop_by_no_gradient(optimizer: Optimizer, params: list[Parameter]) -> list[int]:
    def hook(*_: Any) -> None:
        params[0].grad = params[4].grad = None

    optimizer.register_step_pre_hook(hook)
    return [0, 4]


def stop_by_scheduler(optimizer: Optimizer, _: Any) -> list[int]:
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda now: float(now < 1), lambda _: 1.0])
    optimizer.zero_grad()
    optimizer.step()
    scheduler.step()
    return [0, 1, 2]


STOPS: list[Action] = [
    *(stop_new_groups, stop_group_replaced, stop_dealt, stop_exchanged, stop_moved_into_added_group, stop_tensor_lr),
    *(stop_tensor_lr_filled, stop_removed, stop_group_removed, stop_by_post_hook, stop_by_pre_hook, stop_by_step_hook),
    *(stop_by_no_gradient, stop_by_scheduler),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("act", STOPS)
def test_what_stops_a_parameter_stops_it_alone(kind: Any, act: Action) -> None:
    optimizer, params = make(kind)
    train(optimizer, params, range(4))
    stopped = act(optimizer, params)
    before = values(params)
    train(optimizer, params, range(4, 6))
    assert same(values(params), before) == [index in stopped for index in range(len(SHAPES))]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "change", [{"betas": (0.5, 0.6)}, {"eps": 0.1}, {"weight_decay": 0.5}, {"lr": 0.2}, {"lr": torch.tensor([0.2])}]
)
@pytest.mark.parametrize("act", [None, new_groups, groups_in_place, dealt_again])
def test_changed_values_count_in_groups_old_and_new(kind: Any, change: dict[str, Any], act: Action | None) -> None:
    (plain, expected), (optimizer, params) = make(kind), make(kind)
    for one, own in ((plain, expected), (optimizer, params)):
        train(one, own, range(3))
    before = values(params)
    if act is not None:
        act(optimizer, params)
    for one in (plain, optimizer):
        for group in one.param_groups:
            group.update(change)
    undisturbed, others = make(kind)
    train(undisturbed, others, range(6))
    train(plain, expected, range(3, 6))
    train(optimizer, params, range(3, 6))
    for param, twin, other, old in zip(params, expected, others, before, strict=True):
        torch.testing.assert_close(param, twin, rtol=0, atol=2e-6)
        assert not torch.equal(param, other)
        assert not torch.equal(param, old)


@pytest.mark.parametrize("kind", KINDS)
def test_a_closure_may_change_the_groups(kind: Any) -> None:
    optimizer, params = make(kind)
    train(optimizer, params, range(3))
    before = values(params)

    def closure() -> float:
        assert torch.is_grad_enabled()
        optimizer.param_groups = [{**group, "lr": 0.0} for group in optimizer.param_groups]
        return 2.5

    for param, grad in zip(params, grads_at(3), strict=True):
        param.grad = grad
    assert optimizer.step(closure) == 2.5
    assert all(same(values(params), before))
