"""Checks of SOAP's hyperparameters."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from skipless.errors import InputError


def check_group(group: Mapping[str, Any]) -> None:
    """Raise `InputError`, quoting the value, unless every hyperparameter of a SOAP group can be used."""
    lr, eps, decay = float(group["lr"]), float(group["eps"]), float(group["weight_decay"])
    for name, value in (("lr", lr), ("eps", eps), ("weight_decay", decay)):
        if not (isfinite(value) and value >= 0):
            raise InputError(f"SOAP: {name}={value} must be a finite number, zero or more")
    betas, shampoo_beta = tuple(group["betas"]), group["shampoo_beta"]
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise InputError(f"SOAP: betas={betas} must be two numbers in [0, 1)")
    if not shampoo_beta < 1:
        raise InputError(f"SOAP: shampoo_beta={shampoo_beta} must be below 1; a negative one stands for betas[1]")
    for name in ("precondition_frequency", "max_precond_dim", "split"):
        value = group[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"SOAP: {name}={value!r} must be a whole number, one or more")
    if group["data_format"] not in ("channels_first", "channels_last"):
        raise InputError(f"SOAP: data_format={group['data_format']!r} must be 'channels_first' or 'channels_last'")
