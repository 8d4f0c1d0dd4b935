"""Checks of the groups and the state of `MuonWithAdamW`."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Muon

from skipless.errors import InputError
from skipless.optim.soap.state import is_absent

_ADAMW = ("lr", "betas", "eps", "weight_decay", "foreach", "fused")
_MUON = ("lr", "weight_decay", "momentum", "nesterov", "ns_coefficients", "ns_steps", "adjust_lr_fn")
_UNKNOWN = ("maximize", "amsgrad", "capturable", "differentiable")  # AdamW's options that Muon has not
_MAX_NS_STEPS = 100  # torch refuses this many, but only within a step


def torch_optimizers(values: Mapping[str, Any]) -> tuple[Muon, AdamW]:
    """Torch's two optimizers with these hyperparameters, of no parameter yet.

    Raises:
        InputError: for a value that one of them refuses.
    """
    placeholder = torch.zeros(1, 1)  # torch makes no optimizer without a parameter
    try:
        muon = Muon([placeholder], eps=values["ns_eps"], **{name: values[name] for name in _MUON})
        adamw = AdamW([placeholder], **{name: values[name] for name in _ADAMW})
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"MuonWithAdamW: {error}") from error
    muon.param_groups, adamw.param_groups = [], []
    return muon, adamw


def check_group(group: Mapping[str, Any]) -> None:
    """Raise `InputError`, quoting the value, unless a group can be used."""
    torch_optimizers(group)
    split, steps, coefficients = group["split"], group["ns_steps"], group["ns_coefficients"]
    if isinstance(split, bool) or not isinstance(split, int) or split < 1:
        raise InputError(f"MuonWithAdamW: split={split!r} must be a whole number, one or more")
    if not isinstance(steps, int) or not 0 <= steps < _MAX_NS_STEPS:
        raise InputError(f"MuonWithAdamW: ns_steps={steps!r} must be a whole number below {_MAX_NS_STEPS}")
    if len(coefficients) != 3:
        raise InputError(f"MuonWithAdamW: ns_coefficients={coefficients!r} must be three numbers")
    for name in _UNKNOWN:
        if group.get(name):
            raise InputError(f"MuonWithAdamW: {name}={group[name]!r} is AdamW's alone: leave it out")
    if group["use_muon"]:
        for param in group["params"]:
            _check_matrix(param, split)
            if param.dtype == torch.bfloat16 and not group["nesterov"]:
                raise InputError(
                    "MuonWithAdamW: nesterov=False and parameters in bfloat16 do not go together: torch's Muon would "
                    "overwrite their momentum; leave nesterov=True, or keep the parameters in float32"
                )


def _check_matrix(param: Tensor, split: int) -> None:
    shape = tuple(param.shape)
    if param.ndim != 2 or not param.is_floating_point():
        kind = f"of shape {shape}" if param.is_floating_point() else f"of {param.dtype}"
        raise InputError(
            f"MuonWithAdamW: Muon takes real matrices, not a parameter {kind}: put it into a group with "
            "use_muon=False, as param_groups(model, weight_decay=..., use_muon=True) does"
        )
    if shape[0] % split:
        raise InputError(f"MuonWithAdamW: split={split} does not divide the {shape[0]} rows of a parameter of {shape}")


def check_loaded(own_groups: Sequence[Mapping[str, Any]], loaded: dict[str, Any]) -> dict[str, Any]:
    """Return a state dict as it is, or raise `InputError` if it is of another optimizer or of other parameters."""
    if missing := {"state", "param_groups"} - loaded.keys():
        raise InputError(f"MuonWithAdamW: no state dict of an optimizer: it lacks {', '.join(sorted(missing))}")
    groups = loaded["param_groups"]
    if any("use_muon" not in group for group in groups):
        raise InputError("MuonWithAdamW: the state is another optimizer's, without use_muon: load its own")
    found, expected = (
        [(len(group["params"]), bool(group["use_muon"])) for group in some] for some in (groups, own_groups)
    )
    if found != expected:
        raise InputError(
            f"MuonWithAdamW: the checkpoint has groups {_listed(found)}, this optimizer {_listed(expected)}: the "
            "checkpoint is of another model or of other groups"
        )
    for saved, own in zip(groups, own_groups, strict=True):
        for key, param in zip(saved["params"], own["params"], strict=True):
            if not is_absent(state := loaded["state"].get(key)):
                _check_state(state, param, use_muon=own["use_muon"])
    return loaded


def _check_state(state: Mapping[str, Any], param: Tensor, *, use_muon: bool) -> None:
    names = ("momentum_buffer",) if use_muon else ("exp_avg", "exp_avg_sq")
    expected = {name: tuple(param.shape) for name in names}
    found = {name: tuple(state[name].shape) for name in names if isinstance(state.get(name), Tensor)}
    if found != expected:
        raise InputError(
            f"MuonWithAdamW: the state of a parameter of shape {tuple(param.shape)} holds "
            f"{', '.join(f'{name} {shape}' for name, shape in found.items()) or ', '.join(map(str, state))} instead of "
            f"{', '.join(names)} of this shape: load the checkpoint of this model"
        )


def _listed(groups: Sequence[tuple[int, bool]]) -> str:
    return ", ".join(f"of {count} parameters by {'Muon' if by_muon else 'AdamW'}" for count, by_muon in groups)
