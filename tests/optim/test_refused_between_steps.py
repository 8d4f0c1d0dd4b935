"""What others do between two steps and cannot be right is refused, again and again, and nothing moves."""

from typing import Any

import pytest
import torch
from optim.two_kinds import make, same, train, values
from torch.nn import Parameter

from skipless.errors import InputError
from skipless.optim import SOAP


def wrong_moment(optimizer: Any, params: list[Parameter]) -> None:
    optimizer.state[params[0]]["exp_avg"] = torch.zeros_like(params[0])


def lost_moment(optimizer: Any, params: list[Parameter]) -> None:
    del optimizer.state[params[0]]["exp_avg_sq"]


def lost_factor(optimizer: Any, params: list[Parameter]) -> None:
    optimizer.state[params[0]]["factor_0"] = None


def foreign_state(optimizer: Any, params: list[Parameter]) -> None:
    zeros = torch.zeros_like(params[3])
    optimizer.state[params[3]] = {"step": torch.tensor(3.0), "exp_avg": zeros, "exp_avg_sq": zeros.clone()}


def twice(optimizer: Any, params: list[Parameter]) -> None:
    optimizer.param_groups[1]["params"].append(params[0])


def bare_group(optimizer: Any, _: Any) -> None:
    optimizer.param_groups.append({"params": [Parameter(torch.ones(2))], "lr": 0.1})


def other_shape(_: Any, params: list[Parameter]) -> None:
    params[2].data = torch.zeros(4, 8)
    params[2].grad = None
    params[2].grad = torch.ones(4, 8)


def no_number(optimizer: Any, _: Any) -> None:
    optimizer.param_groups[0]["lr"] = torch.tensor([0.1, 0.2])


def upwards(optimizer: Any, _: Any) -> None:
    optimizer.param_groups[0]["maximize"] = True


def one_beta(optimizer: Any, _: Any) -> None:
    optimizer.param_groups[0]["betas"] = 0.9


def other_split(optimizer: Any, _: Any) -> None:
    optimizer.param_groups[0]["split"] = 2


def complex_param(optimizer: Any, _: Any) -> None:
    param = Parameter(torch.ones(2, 2, dtype=torch.complex64))
    param.grad = torch.ones_like(param)
    optimizer.param_groups[0]["params"].append(param)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (wrong_moment, r"exp_avg \(6, 6\) instead of \(1, 6, 6\).* replace a tensor by one of its own shape"),
        (lost_moment, "with step, exp_avg, factor_0"),
        (lost_factor, r"factor_0 None instead of \(1, 6, 6\)"),
        (foreign_state, "another optimizer, with step, exp_avg, exp_avg_sq"),
        (twice, r"shape \(6, 6\) is in group 0 and again in group 1: take it out of one"),
        (bare_group, "a group lacks betas, .*: add groups with add_param_group"),
        (other_shape, r"shape \(4, 8\) holds exp_avg \(1, 8, 4\) instead of \(1, 4, 8\)"),
        (no_number, r"lr=tensor\(\[0\.1000, 0\.2000\]\) must be a number"),
        (upwards, "maximize=True has no meaning here"),
        (one_beta, r"betas=0\.9 must be two numbers"),
        (other_split, "leave max_precond_dim, .* and split as they were"),
        (complex_param, "complex64"),
    ],
)
def test_what_cannot_be_right_is_refused(act: Any, message: str) -> None:
    optimizer, params = make(SOAP)
    train(optimizer, params, range(4))
    act(optimizer, params)
    before = values(params)
    for _ in range(2):  # and is refused again
        with pytest.raises(InputError, match=message):
            optimizer.step()
    assert all(same(values(params), before))


def test_a_state_of_no_groups_parameter_is_refused_at_saving() -> None:
    """AdamW has a KeyError here."""
    optimizer, params = make(SOAP)
    train(optimizer, params, range(2))
    del optimizer.param_groups[1]["params"][2]
    for save in (optimizer.state_dict, optimizer.full_state_dict):
        with pytest.raises(InputError, match=r"shape \(3, 2, 4\) is in no group.*delete optimizer\.state"):
            save()
    del optimizer.state[params[5]]
    assert len(optimizer.state_dict()["state"]) == 5


def test_a_warning_survives_new_stacks() -> None:
    """Counted since the last refresh, and then a group is replaced or a gradient pauses."""
    for act in (lambda o, _: o.state.update({p: dict(s) for p, s in o.state.items()}), lambda _, p: p.pop(0)):
        optimizer, params = make(SOAP, precondition_frequency=100)
        train(optimizer, params, range(3))
        params[1].grad = torch.full((6, 6), float("nan"))
        optimizer.step()
        optimizer.zero_grad()
        act(optimizer, left := list(params))
        for param in left:
            param.grad = torch.ones_like(param)
        with pytest.warns(RuntimeWarning, match=r"not finite.*: parameter 1 \(shape \(6, 6\)\)"):
            optimizer.step()
