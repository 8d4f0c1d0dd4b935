"""Parameter groups: what decays, what does not, and the proof that nothing is lost."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from math import isfinite
from typing import Any

from torch import Tensor, nn

from skipless.errors import InputError

# Weights that hold queries, keys and values as three stacked matrices: timm's, and `nn.MultiheadAttention`'s.
_FUSED_QKV = ("qkv.weight", "in_proj_weight")


def param_groups(
    model: nn.Module,
    *,
    weight_decay: float,
    no_decay: Collection[str] = ("pos_embed", "cls_token", "reg_token"),
    split_qkv: bool = True,
) -> list[dict[str, Any]]:
    """Sort a model's trainable parameters into groups with and without weight decay.

    No decay on vectors, scalars, biases and parameters whose own name (the last part of `blocks.0.norm1.weight`) is in
    `no_decay`; where `cls_token` is, `dist_token` of DeiT's distilled models is too. Frozen parameters are left out; a
    parameter that is shared by two modules comes once, under its first name.

    Args:
        model: the model.
        weight_decay: decay of the decaying groups, in the optimizer's unit.
        no_decay: own names of parameters that do not decay.
        split_qkv: give fused qkv weights, `(3k, d)`, a group with `split=3`: SOAP then sees three matrices.

    Returns:
        Groups for any `torch.optim.Optimizer`: `params`, `weight_decay` and, for SOAP, `split`. None is empty.

    Raises:
        InputError: nothing is trainable, the decay is negative, or a fused weight does not fall into three.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8))
        >>> [(len(group["params"]), group["weight_decay"]) for group in param_groups(model, weight_decay=0.05)]
        [(1, 0.05), (3, 0.0)]
    """
    if not (isfinite(weight_decay) and weight_decay >= 0):
        raise InputError(f"weight_decay={weight_decay} must be a finite number, zero or more")
    members: dict[tuple[float, int], list[Tensor]] = {(weight_decay, 1): [], (weight_decay, 3): [], (0.0, 1): []}
    # Here and not in the defaults: those are written into runs' recipes, which must go on being what they were.
    spared = {"bias", *no_decay, *(("dist_token",) if "cls_token" in no_decay else ())}
    for name, param in model.named_parameters():
        if param.requires_grad:
            decays = param.ndim > 1 and name.rpartition(".")[2] not in spared
            key = (weight_decay if decays else 0.0, _split(name, param) if split_qkv else 1)
            members.setdefault(key, []).append(param)
    groups = [
        {"params": params, "weight_decay": decay, "split": split}
        for (decay, split), params in members.items()
        if params
    ]
    check_complete(model, groups)
    return groups


def check_complete(model: nn.Module, groups: Sequence[Mapping[str, Any]]) -> None:
    """Raise `InputError` unless the groups hold every trainable parameter of the model exactly once, and no other."""
    held = Counter(id(param) for group in groups for param in group["params"])
    names = {id(param): name for name, param in model.named_parameters()}
    trainable = {id(param) for param in model.parameters() if param.requires_grad}
    if not trainable:
        raise InputError(f"{type(model).__name__} has no trainable parameter: set requires_grad on some")
    faults = {
        "in no group": trainable - held.keys(),
        "more than once": {key for key, times in held.items() if times > 1},
        "frozen or of another model": held.keys() - trainable,
    }
    for fault, keys in faults.items():
        if keys:
            listed = ", ".join(sorted(names.get(key, "a parameter of another model") for key in keys))
            raise InputError(f"parameter groups of {type(model).__name__}: {fault}: {listed}")


def _split(name: str, param: Tensor) -> int:
    """Into how many matrices a weight falls."""
    if not name.endswith(_FUSED_QKV):
        return 1
    if param.ndim != 2 or param.shape[0] % 3:
        raise InputError(
            f"{name} of shape {tuple(param.shape)} does not fall into queries, keys and values: pass split_qkv=False"
        )
    return 3
