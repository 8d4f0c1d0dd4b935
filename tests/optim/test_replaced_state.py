"""What others do to an optimizer's state between two steps counts, and is saved; for SOAP as for AdamW."""

import copy
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from optim.two_kinds import KINDS, SHAPES, Action, assert_same, make, moments, same, train, values
from torch import Tensor
from torch.nn import Parameter
from torch.optim import AdamW, Optimizer

from skipless.optim import SOAP, gathered_state

# --- What makes an optimizer forget ---------------------------------------------------------------------------------


def forget_all(optimizer: Optimizer, _: Any) -> list[int]:
    optimizer.state.clear()
    return list(range(len(SHAPES)))


def forget_new_state(optimizer: Optimizer, _: Any) -> list[int]:
    optimizer.state = defaultdict(dict)
    return list(range(len(SHAPES)))


def forget_one(optimizer: Optimizer, params: list[Parameter]) -> list[int]:
    del optimizer.state[params[1]]
    return [1]


def forget_one_replaced(optimizer: Optimizer, params: list[Parameter]) -> list[int]:
    optimizer.state[params[4]] = {}
    return [4]


def forget_some_in_place(optimizer: Optimizer, params: list[Parameter]) -> list[int]:
    for index in (0, 2):
        optimizer.state[params[index]].clear()
    return [0, 2]


def forget_by_hook(optimizer: Optimizer, _: Any) -> list[int]:
    def hook(_: Any, loaded: dict[str, Any]) -> dict[str, Any]:
        kept = {index: state for index, state in loaded["state"].items() if index not in (1, 3)}
        return {**loaded, "state": kept}

    optimizer.register_load_state_dict_pre_hook(hook)
    optimizer.load_state_dict(optimizer.state_dict())
    return [1, 3]


def forget_by_post_hook(optimizer: Optimizer, params: list[Parameter]) -> list[int]:
    optimizer.register_load_state_dict_post_hook(lambda o: o.state.pop(params[5]))
    optimizer.load_state_dict(optimizer.state_dict())
    return [5]


FORGETS: list[Action] = [
    *(forget_all, forget_new_state, forget_one, forget_one_replaced, forget_some_in_place, forget_by_hook),
    forget_by_post_hook,
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("act", FORGETS)
def test_what_is_forgotten_starts_afresh_and_the_rest_goes_on(kind: Any, act: Action) -> None:
    (plain, undisturbed), (optimizer, params) = make(kind), make(kind)
    train(plain, undisturbed, range(9))
    train(optimizer, params, range(4))
    forgotten = act(optimizer, params)
    fresh, others = make(kind)
    for param, other in zip(params, others, strict=True):
        other.data.copy_(param.data)
    train(optimizer, params, range(4, 9))
    train(fresh, others, range(4, 9))
    for index, param in enumerate(params):
        expected, wrong = (others, undisturbed) if index in forgotten else (undisturbed, others)
        torch.testing.assert_close(param, expected[index], rtol=0, atol=2e-6)
        assert not torch.allclose(param, wrong[index], atol=1e-4)
        assert int(optimizer.state[param]["step"]) == int(
            (fresh if index in forgotten else plain).state[expected[index]]["step"]
        )


# --- What replaces a moment -----------------------------------------------------------------------------------------


def zero_in_place(state: dict[str, Any]) -> None:
    state["exp_avg"].zero_()


def zero_replaced(state: dict[str, Any]) -> None:
    state["exp_avg"] = torch.zeros_like(state["exp_avg"])


def zero_by_update(state: dict[str, Any]) -> None:
    state.update({"exp_avg": 0 * state["exp_avg"]})


def zero_memory(state: dict[str, Any]) -> None:
    state["exp_avg"].data = torch.zeros_like(state["exp_avg"])


def zero_set(state: dict[str, Any]) -> None:
    state["exp_avg"].set_(torch.zeros_like(state["exp_avg"]))


def zero_expanded(state: dict[str, Any]) -> None:
    state["exp_avg"] = torch.zeros_like(state["exp_avg"].mT if state["exp_avg"].ndim > 1 else state["exp_avg"])
    state["exp_avg"] = state["exp_avg"].mT if state["exp_avg"].ndim > 1 else state["exp_avg"]


ZEROS = [zero_replaced, zero_by_update, zero_memory, zero_set, zero_expanded]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", [[0], [2], [0, 1], [3], list(range(len(SHAPES)))])
@pytest.mark.parametrize("zero", ZEROS)
def test_a_moment_that_is_replaced_counts_and_is_saved(kind: Any, which: list[int], zero: Any) -> None:
    """As ReLoRA does it. All ways give what zeroing in place gives."""
    runs = {}
    for reset in (None, zero_in_place, zero):
        optimizer, params = make(kind)
        train(optimizer, params, range(4))
        for index in which if reset else []:
            with torch.no_grad():
                reset(optimizer.state[params[index]])
        saved = moments(optimizer)
        train(optimizer, params, range(4, 8))
        runs[reset] = values(params), saved, moments(optimizer)
    assert all(not runs[zero][1][index].any() for index in which)
    for index in range(len(SHAPES)):
        torch.testing.assert_close(runs[zero][0][index], runs[zero_in_place][0][index], rtol=0, atol=2e-6)
        torch.testing.assert_close(runs[zero][2][index], runs[zero_in_place][2][index], rtol=0, atol=2e-6)
        assert torch.allclose(runs[zero][0][index], runs[None][0][index], atol=1e-5) == (index not in which)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_count_that_is_set_counts(kind: Any) -> None:
    """Adam's bias correction follows it, for one of two that were counted together."""
    (plain, expected), (optimizer, params) = make(kind), make(kind)
    train(plain, expected, range(5))
    train(optimizer, params, range(4))
    state = optimizer.state[params[1]]
    state["step"] = torch.tensor(1000.0) if isinstance(state["step"], Tensor) else 1000
    train(optimizer, params, range(4, 5))
    assert optimizer.state[params[1]]["step"] == 1001
    assert optimizer.state[params[0]]["step"] == plain.state[expected[0]]["step"]
    assert [torch.allclose(a, b, atol=2e-6) for a, b in zip(params, expected, strict=True)] == [
        index != 1 for index in range(len(SHAPES))
    ]


# --- What is saved is what was there ----------------------------------------------------------------------------------


def test_a_state_dict_that_is_kept_is_a_snapshot_through_and_through() -> None:
    """AdamW's is live throughout; ours was half of each."""
    optimizer, params = make(SOAP, lr=torch.tensor(0.05))
    train(optimizer, params, range(4))
    kept = optimizer.state_dict()
    expected, at = copy.deepcopy(kept), values(params)
    train(optimizer, params, range(4, 9))
    end = values(params)
    optimizer.param_groups[0]["lr"].zero_()
    assert_same(kept, expected)
    for param, value in zip(params, at, strict=True):
        param.data.copy_(value)
    optimizer.load_state_dict(kept)
    optimizer.load_state_dict(kept)  # and it may be loaded again
    train(optimizer, params, range(4, 9))
    assert all(same(values(params), end))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("cast", [(1,), (4,), (1, 4), (0,), (3,), (1, 3)])
def test_one_of_a_pair_may_be_cast(kind: Any, dtype: torch.dtype, cast: tuple[int, ...]) -> None:
    """Where only second ones were cast, their stacks were taken for current: the state kept the old dtype."""
    optimizer, params = make(kind)
    train(optimizer, params, range(4))
    for index in cast:
        params[index].data = params[index].data.to(dtype)
        if kind is AdamW:
            optimizer.state[params[index]] = {
                key: value if key == "step" else value.to(dtype)
                for key, value in optimizer.state[params[index]].items()
            }
    train(optimizer, params, range(4, 8))
    wide = dtype if kind is AdamW or dtype == torch.float64 else torch.float32
    found = [optimizer.state_dict()["state"][index]["exp_avg"].dtype for index in range(len(SHAPES))]
    assert found == [wide if index in cast else torch.float32 for index in range(len(SHAPES))]


@pytest.mark.parametrize("save", [lambda optimizer: optimizer.state_dict(), gathered_state])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("cast", [(1,), (0, 1), range(len(SHAPES))])
def test_what_is_saved_just_after_a_cast_goes_on_as_the_run_does(
    save: Callable[[Any], Any], dtype: torch.dtype, cast: Sequence[int]
) -> None:
    """The state has the old dtype until the next step; loaded, it has the parameter's."""
    optimizer, params = make(SOAP)
    train(optimizer, params, range(4))
    for index in cast:
        params[index].data = params[index].data.to(dtype)
    saved = copy.deepcopy(save(optimizer))
    other, copies = make(SOAP)
    for copied, param in zip(copies, params, strict=True):
        copied.data = param.data.clone()
    other.load_state_dict(saved)
    train(optimizer, params, range(4, 8))
    train(other, copies, range(4, 8))
    assert all(same(values(params), values(copies)))
    assert_same(optimizer.state_dict()["state"], other.state_dict()["state"])
