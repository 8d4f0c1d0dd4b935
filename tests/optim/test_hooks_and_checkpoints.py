"""What hooks return is what is loaded and saved; and torch's own API for checkpoints serves SOAP."""

import copy
import io
import json
import sys
from functools import partial
from typing import Any

import pytest
import torch
from optim.two_kinds import KINDS, SHAPES, assert_same, make, same, train, values
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import AdamW

from skipless.errors import InputError
from skipless.optim import SOAP, gathered_state, load_gathered_state_
from skipless.optim.soap import optimizer as optimizer_module
from skipless.optim.soap.stack import Stack


def by_name(optimizer: Any, loaded: dict[str, Any]) -> dict[str, Any]:
    """The hook of torch's documentation: it matches states by the parameters' names."""
    names = [name for group in loaded["param_groups"] for name in group["param_names"]]
    indices = [index for group in loaded["param_groups"] for index in group["params"]]
    index_of = dict(zip(names, indices, strict=True))
    own = [name for group in optimizer.param_groups for name in group["param_names"]]
    state = {new: loaded["state"][index_of[name]] for new, name in zip(indices, own, strict=True)}
    return {**loaded, "state": state}


def named(kind: Any, model: nn.Module, *, reverse: bool) -> Any:
    pairs = list(model.named_parameters())
    return kind(pairs[::-1] if reverse else pairs, lr=0.1, weight_decay=0.0)


def descend(model: nn.Module, optimizer: Any, steps: range) -> None:
    for now in steps:
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(now))
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


def squares() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))  # two pairs of one shape


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_that_matches_by_name_gives_each_parameter_its_own_moments(kind: Any) -> None:
    model = squares()
    optimizer = named(kind, model, reverse=False)
    descend(model, optimizer, range(4))
    saved, at = optimizer.state_dict(), copy.deepcopy(model.state_dict())
    saved = copy.deepcopy(saved)
    descend(model, optimizer, range(4, 8))
    again = squares()
    again.load_state_dict(at)
    other = named(kind, again, reverse=True)
    other.register_load_state_dict_pre_hook(by_name)
    other.load_state_dict(saved)
    other.param_groups[0]["param_names"].reverse()  # torch takes over the checkpoint's
    descend(again, other, range(4, 8))
    for param, twin in zip(again.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(param, twin, rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("through", ["load_state_dict", "load_gathered_state_"])
def test_a_hook_may_unwrap_and_the_post_hook_sees_the_state(kind: Any, through: str) -> None:
    optimizer, params = make(kind)
    train(optimizer, params, range(4))
    saved = copy.deepcopy(optimizer.state_dict())
    other, others = make(kind)
    seen: list[Any] = []
    other.register_load_state_dict_pre_hook(lambda _, loaded: loaded["optimizer"])
    other.register_load_state_dict_post_hook(lambda o: seen.extend(copy.deepcopy(dict(o.state[p])) for p in others))
    wrapped = {"optimizer": saved, "epoch": 3}
    if through == "load_state_dict":
        other.load_state_dict(wrapped)
    else:
        load_gathered_state_(other, wrapped)
    assert_same(seen, [dict(optimizer.state[param]) for param in params])
    assert wrapped.keys() == {"optimizer", "epoch"}


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_that_change_their_dict_in_place_and_the_order_of_several(kind: Any) -> None:
    optimizer, params = make(kind)
    train(optimizer, params, range(4))
    order: list[str] = []

    def hook(name: str, *, first: bool = False) -> None:
        def pre(_: Any, loaded: dict[str, Any]) -> None:
            order.append(f"pre {name}")
            loaded["state"] = {index: state for index, state in loaded["state"].items() if index != 2}

        optimizer.register_load_state_dict_pre_hook(pre, prepend=first)
        optimizer.register_load_state_dict_post_hook(lambda _: order.append(f"post {name}"), prepend=first)

    hook("one")
    hook("zero", first=True)
    hook("two")
    optimizer.load_state_dict(optimizer.state_dict())
    assert order == [f"{what} {name}" for what in ("pre", "post") for name in ("zero", "one", "two")]
    assert not optimizer.state[params[2]]
    assert optimizer.state[params[1]]
    assert len(optimizer._optimizer_load_state_dict_pre_hooks) == 3
    assert len(optimizer._optimizer_load_state_dict_post_hooks) == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("save", [lambda optimizer: optimizer.state_dict(), gathered_state])
def test_hooks_of_saving_see_the_whole_and_what_they_return_is_saved(kind: Any, save: Any) -> None:
    optimizer, params = make(kind)
    train(optimizer, params, range(4))
    expected = {index: optimizer.state[param]["exp_avg"].clone() for index, param in enumerate(params)}
    optimizer.register_state_dict_pre_hook(lambda o: o.state[params[0]]["exp_avg"].fill_(7.0))
    optimizer.register_state_dict_post_hook(
        lambda _, saved: {"state": {**saved["state"], 1: {}}, "param_groups": saved["param_groups"], "note": "mine"}
    )
    saved = save(optimizer)
    assert saved["note"] == "mine"
    assert saved["state"][1] == {}
    assert (saved["state"][0]["exp_avg"] == 7).all()
    assert torch.equal(saved["state"][2]["exp_avg"], expected[2])
    assert len(optimizer._optimizer_state_dict_pre_hooks) == len(optimizer._optimizer_state_dict_post_hooks) == 1


def test_what_is_refused_leaves_the_optimizer_as_it_was() -> None:
    optimizer, params = make(SOAP)
    train(optimizer, params, range(4))
    good = optimizer.state_dict()
    damaged = copy.deepcopy(good)
    damaged["state"][5]["basis_1"] = torch.zeros(1, 3, 3)
    adam, others = make(AdamW)
    train(adam, others, range(2))
    bad_lr = {**good, "param_groups": [{**good["param_groups"][0], "lr": -1.0}, good["param_groups"][1]]}
    cases = {
        r"basis_1 \(1, 3, 3\) instead of \(1, 2, 2\)": damaged,
        "another optimizer, with step, exp_avg": {**good, "state": adam.state_dict()["state"]},
        r"lr=-1\.0": bad_lr,
        r"groups of \[3\] parameters, this optimizer of \[3, 3\]": {**good, "param_groups": good["param_groups"][:1]},
        "it lacks state": {"param_groups": good["param_groups"]},
        "step=-3": {**good, "state": {**good["state"], 0: {**good["state"][0], "step": -3}}},
    }
    before = values(params)
    for message, state in cases.items():
        with pytest.raises(InputError, match=message):
            optimizer.load_state_dict(state)
        assert_same(optimizer.state_dict(), good)
    train(optimizer, params, range(4, 5))
    assert not any(same(values(params), before))


def test_a_hooks_own_error_is_not_renamed() -> None:
    optimizer, _ = make(SOAP)

    def hook(*_: Any) -> None:
        raise ValueError("of the hook")

    optimizer.register_load_state_dict_pre_hook(hook)
    with pytest.raises(ValueError, match="of the hook"):
        optimizer.load_state_dict(optimizer.state_dict())
    assert len(optimizer._optimizer_load_state_dict_pre_hooks) == 1


# --- Checkpoints -----------------------------------------------------------------------------------------------------


def earlier_format(saved: dict[str, Any]) -> dict[str, Any]:
    """What the version before wrote: lists with None."""

    def lists(state: dict[str, Any], rank: int) -> dict[str, Any]:
        old = {name: state[name] for name in ("step", "exp_avg", "exp_avg_sq")}
        for name, kind in (("factors", "factor"), ("bases", "basis")):
            old[name] = [state.get(f"{kind}_{dim}") for dim in range(rank)]
        return old

    return {**saved, "state": {i: lists(state, len(SHAPES[i])) for i, state in saved["state"].items()}}


@pytest.mark.parametrize("load", [lambda o, saved: o.load_state_dict(saved), load_gathered_state_])
def test_checkpoints_of_the_version_before_go_on_bit_for_bit(load: Any) -> None:
    optimizer, params = make(SOAP)
    train(optimizer, params, range(4))
    old = earlier_format(optimizer.state_dict())
    assert old["state"][3]["bases"] == [None]
    file = io.BytesIO()
    torch.save(old, file)
    file.seek(0)
    again, others = make(SOAP)
    for param, other in zip(params, others, strict=True):
        other.data.copy_(param.data)
    load(again, torch.load(file, weights_only=True))
    assert_same(again.state_dict(), optimizer.state_dict())
    train(optimizer, params, range(4, 8))
    train(again, others, range(4, 8))
    assert all(same(values(params), values(others)))


def test_an_optimizer_pickled_by_the_version_before_goes_on() -> None:
    optimizer, params = make(SOAP)
    train(optimizer, params, range(4))
    state = optimizer.__getstate__()
    old = earlier_format({"state": dict(enumerate(map(optimizer.state.__getitem__, params)))})["state"]
    state["state"] = {param: old[index] for index, param in enumerate(params)}
    again = SOAP.__new__(SOAP)
    again.__setstate__(copy.deepcopy(state))
    others = [param for group in again.param_groups for param in group["params"]]
    train(optimizer, params, range(4, 8))
    train(again, others, range(4, 8))
    assert all(same(values(params), values(others)))


def test_a_state_is_flat() -> None:
    optimizer, params = make(SOAP)
    train(optimizer, params, range(2))
    for state in optimizer.state.values():
        assert all(isinstance(value, Tensor) == (name != "step") for name, value in state.items())
    json.dumps(optimizer.state_dict()["param_groups"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("flat", "full"), [(False, False), (False, True), (True, False)])  # torch cannot load both
def test_torchs_own_api_saves_and_loads(kind: Any, flat: bool, full: bool) -> None:
    options = StateDictOptions(flatten_optimizer_state_dict=flat, full_state_dict=full)
    model = squares()
    optimizer = kind(model.parameters(), lr=0.1)
    descend(model, optimizer, range(4))
    saved, at = copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=options)), model.state_dict()
    at = copy.deepcopy(at)
    descend(model, optimizer, range(4, 8))
    again = squares()
    again.load_state_dict(at)
    other = kind(list(again.parameters())[::-1], lr=0.5)  # states are matched by name
    set_optimizer_state_dict(again, other, saved, options=options)
    descend(again, other, range(4, 8))
    assert other.param_groups[0]["lr"] == 0.1
    for param, twin in zip(again.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(param, twin, rtol=0, atol=2e-6)


def test_torchs_flat_dict_may_lack_the_state_of_a_late_parameter() -> None:
    """Torch then gives an empty dict for every name."""
    options = StateDictOptions(flatten_optimizer_state_dict=True)
    model = squares()
    optimizer = SOAP(model.parameters(), lr=0.1)
    descend(model, optimizer, range(3))
    del optimizer.state[model[2].weight]
    saved = get_optimizer_state_dict(model, optimizer, options=options)
    again = squares()
    other = SOAP(again.parameters(), lr=0.1)
    set_optimizer_state_dict(again, other, saved, options=options)
    assert not other.state[again[2].weight]
    descend(again, other, range(3, 5))
    assert [other.state[layer.weight]["step"] for layer in (again[0], again[2])] == [4, 1]


# --- What looking costs ----------------------------------------------------------------------------------------------


def calls(function: Any) -> int:
    """How many functions a call calls, of Python and of C."""
    count = 0

    def profile(_: Any, event: str, __: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def test_an_ordinary_step_builds_nothing_and_hardly_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer, params = make(SOAP, precondition_frequency=1000)
    train(optimizer, params, range(3))
    built: list[Any] = []
    monkeypatch.setattr(optimizer_module, "Stack", lambda *args: built.append(args) or Stack(*args))
    train(optimizer, params, range(3, 6))
    assert not built
    whole = calls(optimizer.step)
    looking = sum(calls(partial(stack.is_current, optimizer.state)) for stack in optimizer._stacks)
    assert looking < whole / 10
    new_groups = [dict(group) for group in optimizer.param_groups]
    optimizer.param_groups = new_groups
    train(optimizer, params, range(6, 8))
    assert not built  # a group of the same parameters needs no new stacks
    assert all(stack.group is new_groups[stack.group_index] for stack in optimizer._stacks)
