"""Checks of SOAP's hyperparameters and parameters."""

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any

from torch import Tensor

from skipless.errors import InputError

_NEEDED = {"params", "lr", "betas", "shampoo_beta", "eps", "weight_decay", "precondition_frequency"} | {
    *("max_precond_dim", "merge_dims", "precondition_1d", "normalize_grads", "data_format", "correct_bias", "split")
}
# Options of torch's optimizers that change what a step computes.
_UNKNOWN = ("maximize", "amsgrad")


def check_group(group: Mapping[str, Any]) -> None:
    """Raise `InputError`, quoting the value, unless every hyperparameter of a SOAP group can be used."""
    if missing := _NEEDED - group.keys():
        raise InputError(f"SOAP: a group lacks {', '.join(sorted(missing))}: add groups with add_param_group")
    for name in ("lr", "eps", "weight_decay"):
        value = number(name, group[name])
        if not (isfinite(value) and value >= 0):
            raise InputError(f"SOAP: {name}={value} must be a finite number, zero or more")
    betas, shampoo_beta = group["betas"], number("shampoo_beta", group["shampoo_beta"])
    if not isinstance(betas, list | tuple) or len(betas) != 2 or not all(0 <= number("betas", b) < 1 for b in betas):
        raise InputError(f"SOAP: betas={betas} must be two numbers in [0, 1)")
    if not shampoo_beta < 1:
        raise InputError(f"SOAP: shampoo_beta={shampoo_beta} must be below 1; a negative one stands for betas[1]")
    for name in ("precondition_frequency", "max_precond_dim", "split"):
        value = group[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"SOAP: {name}={value!r} must be a whole number, one or more")
    if group["data_format"] not in ("channels_first", "channels_last"):
        raise InputError(f"SOAP: data_format={group['data_format']!r} must be 'channels_first' or 'channels_last'")
    for name in _UNKNOWN:
        if group.get(name):
            raise InputError(f"SOAP: {name}={group[name]!r} has no meaning here: leave it out")


def number(name: str, value: Any) -> float:
    """Give a value as a number; it may also be a tensor of one entry."""
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"SOAP: {name}={value!r} must be a number, or a tensor of one entry") from None


def check_real(params: Iterable[Tensor]) -> None:
    """Raise `InputError` unless all parameters hold real floating-point numbers."""
    for param in params:
        if not param.is_floating_point():
            raise InputError(
                f"SOAP: a parameter of shape {tuple(param.shape)} is {param.dtype}; SOAP takes real floating-point "
                "ones: give such parameters to another optimizer"
            )


def check_unique(param_groups: Sequence[Mapping[str, Any]]) -> None:
    """Raise `InputError` if a parameter is in two groups, or twice in one."""
    seen: dict[int, int] = {}
    for index, group in enumerate(param_groups):
        for param in group["params"]:
            if id(param) in seen:
                raise InputError(
                    f"SOAP: a parameter of shape {tuple(param.shape)} is in group {seen[id(param)]} and again in group "
                    f"{index}: take it out of one"
                )
            seen[id(param)] = index
