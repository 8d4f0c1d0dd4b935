"""The state that SOAP keeps for one parameter: flat, of tensors under fixed names.

- `step`: updates so far, an int; 0 after the first gradient, which only initialises the preconditioner.
- `exp_avg`, `exp_avg_sq`: the moments in the eigenbases, `(split, *dims)`.
- `factor_0`, `basis_0`, `factor_1`, ...: the factor and the basis of a dimension, `(split, s, s)` (see `eigenbasis`).
  Only dimensions that are preconditioned have them.

Tools that move or save the state of any optimizer look for tensors among the values of such a dict. So does torch's
`torch.distributed.checkpoint.state_dict`, which takes no lists.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from skipless.errors import InputError
from skipless.optim.soap.layout import Layout
from skipless.optim.soap.validate import number

_MOMENTS = ("exp_avg", "exp_avg_sq")
# What an earlier version kept in lists, with one entry for each dimension: a tensor or None.
_LISTS = {"factors": "factor", "bases": "basis"}


def state_dtype(param: Tensor) -> torch.dtype:
    """The dtype of a parameter's state: fp32 for half precision, else the parameter's own."""
    return torch.promote_types(param.dtype, torch.float32)


def state_shapes(layout: Layout) -> dict[str, tuple[int, ...]]:
    """Name the tensors of a parameter's state, in a fixed order, and give their shapes.

    Example:
        >>> group = dict(split=1, max_precond_dim=5, merge_dims=False, precondition_1d=False,
        ...              data_format="channels_first")
        >>> state_shapes(Layout.of(torch.zeros(4, 6), group))
        {'exp_avg': (1, 4, 6), 'exp_avg_sq': (1, 4, 6), 'factor_0': (1, 4, 4), 'basis_0': (1, 4, 4)}
    """
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(_MOMENTS, (layout.split, *layout.dims))
    sizes = {dim: layout.dims[dim] for dim, has_basis in enumerate(layout.preconditioned) if has_basis}
    for kind in _LISTS.values():
        shapes |= {f"{kind}_{dim}": (layout.split, size, size) for dim, size in sizes.items()}
    return shapes


def empty_state(layout: Layout, step: int, like: Tensor) -> dict[str, Any]:
    """A parameter's state with uninitialised tensors of `like`'s dtype and device, as `torch.empty` makes them."""
    return {"step": step, **{name: like.new_empty(shape) for name, shape in state_shapes(layout).items()}}


def flat_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Rename what an earlier version kept in lists; a state of this version comes back as it is.

    Example:
        >>> flat_state({"step": 1, "factors": [None, 2.0], "bases": [None, 3.0]})
        {'step': 1, 'factor_1': 2.0, 'basis_1': 3.0}
    """
    flat = {name: value for name, value in state.items() if name not in _LISTS}
    for name, kind in _LISTS.items():
        flat |= {f"{kind}_{dim}": value for dim, value in enumerate(state.get(name, ())) if value is not None}
    return flat


def is_absent(state: Any) -> bool:
    """Whether a state says that a parameter has none: torch unflattens a missing state to an empty dict per name."""
    return not state or all(isinstance(value, Mapping) and not value for value in state.values())


def check_state(state: Mapping[str, Any], layout: Layout) -> None:
    """Raise `InputError` unless a parameter's state is SOAP's and of this layout."""
    if state.keys() == {"step"}:
        raise InputError(
            f"SOAP: the state of a parameter of shape {layout.shape} is kept by another process; this state dict is "
            "one rank's part: save with gathered_state, called on all ranks, and load that"
        )
    expected = state_shapes(layout)
    found = {name: tuple(value.shape) for name, value in state.items() if isinstance(value, Tensor)}
    ours = {name for name in found if str(name).startswith(tuple(_LISTS.values()))}
    if "step" not in state or not found.keys() >= set(_MOMENTS) or (not ours and found["exp_avg"] == layout.shape):
        raise InputError(
            f"SOAP: cannot use the state of another optimizer, with {', '.join(map(str, state))}, for a parameter of "
            f"shape {layout.shape}: load SOAP's own, or clear the whole state of the parameter"
        )
    if not number("step", state["step"]) >= 0:
        raise InputError(f"SOAP: step={state['step']} of a parameter of shape {layout.shape} must be zero or more")
    names = [*expected, *sorted(ours - expected.keys())]
    if wrong := [name for name in names if found.get(name) != expected.get(name)]:
        listed = ", ".join(f"{name} {found.get(name)} instead of {expected.get(name)}" for name in wrong)
        raise InputError(
            f"SOAP: the state of a parameter of shape {layout.shape} holds {listed}: load the checkpoint of this "
            "model, leave max_precond_dim, merge_dims, precondition_1d, data_format and split as they were at the "
            "first step, and replace a tensor by one of its own shape"
        )
