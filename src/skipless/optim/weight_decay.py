"""Parameter groups with and without weight decay, and a check that they hold every parameter once."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from math import isfinite
from typing import Any

from torch import Tensor, nn

from skipless.errors import InputError

# Weights that hold queries, keys and values as three stacked matrices: timm's, and `nn.MultiheadAttention`'s.
_FUSED_QKV = ("qkv.weight", "in_proj_weight")
# GPT-2's `c_attn` has the three in columns, (d, 3d). SOAP splits rows, so that this weight stays one matrix.
# Parameters of a transformer block, by the names that libraries give the list of blocks.
_BLOCK = re.compile(r"(^|\.)(blocks|layers|layer|h)\.(encoder_layer_)?\d+\.")
# Other names are not in the default of `no_decay`, because recipes record that default and must not change.
_ALSO_CALLED = {
    "pos_embed": ("position_embeddings", "pos_embedding", "relative_position_bias_table", "freqs"),
    "cls_token": ("dist_token", "class_token", "distillation_token", "mask_token"),
    "reg_token": ("register_tokens",),
}


def param_groups(
    model: nn.Module,
    *,
    weight_decay: float,
    no_decay: Collection[str] = ("pos_embed", "cls_token", "reg_token"),
    split_qkv: bool = True,
    block_lr: float = 1.0,
    use_muon: bool = False,
) -> list[dict[str, Any]]:
    """Sort a model's trainable parameters into groups with and without weight decay.

    Vectors, scalars and biases do not decay. Neither do parameters whose own name (the last part of
    `blocks.0.norm1.weight`) is in `no_decay`. If `cls_token` or `pos_embed` is in it, what other models have in its
    place does not decay either: `dist_token` of DeiT, `class_token` and `pos_embedding` of torchvision, biases by
    relative position of BEiT, learnt rotary frequencies, Hugging Face's `distillation_token` and `mask_token`. Frozen
    parameters are left out. A parameter that two modules share comes once, under its first name.

    Args:
        model: the model.
        weight_decay: decay of the decaying groups, in the optimizer's unit.
        no_decay: own names of parameters that do not decay.
        split_qkv: give fused qkv weights, `(3k, d)`, a group with `split=3`; SOAP and Muon then see three matrices.
        block_lr: learning rate of the transformer blocks relative to that of everything else. It becomes the groups'
            `lr_scale`, as timm's layer decay does: `fit` and timm's schedulers multiply by it. `build_optimizer` starts
            with it, too. Other loops must set a group's `lr` to `rate * group.get("lr_scale", 1.0)`. A step decays by
            rate x decay, so blocks get `weight_decay / block_lr` (`wd_scale`): they forget as fast as the rest.
        use_muon: say of each group whether it is Muon's, as `MuonWithAdamW` takes it. Muon's are the weight matrices in
            transformer blocks. Embeddings, tables, convolutions, matrices of one row or column, vectors and whatever
            lies outside the blocks are AdamW's.

    Returns:
        Groups for any `torch.optim.Optimizer`: `params`, `weight_decay` and, for SOAP and Muon, `split`; with
        `block_lr`, blocks have groups of their own; with `use_muon`, so has Muon. No group is empty.

    Raises:
        InputError: if nothing is trainable, the decay is negative, a fused weight does not split into three, `block_lr`
            is not positive or has no block to act on, or Muon has no matrix.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8))
        >>> [(len(group["params"]), group["weight_decay"]) for group in param_groups(model, weight_decay=0.05)]
        [(1, 0.05), (3, 0.0)]
    """
    if not (isfinite(weight_decay) and weight_decay >= 0):
        raise InputError(f"weight_decay={weight_decay} must be a finite number, zero or more")
    if not (isfinite(block_lr) and block_lr > 0):
        raise InputError(f"block_lr={block_lr} must be a positive number: a learning rate relative to the others'")
    order = [(weight_decay, 1, 1.0, False), (weight_decay, 3, 1.0, False), (0.0, 1, 1.0, False)]
    members: dict[tuple[float, int, float, bool], list[Tensor]] = {key: [] for key in order}
    matrices = _muon_matrices(model) if use_muon else set()
    exempt = {"bias", *no_decay, *(also for name in no_decay for also in _ALSO_CALLED.get(name, ()))}
    for name, param in model.named_parameters():
        if param.requires_grad:
            decays = param.ndim > 1 and name.rpartition(".")[2] not in exempt
            scale = block_lr if _BLOCK.search(name) else 1.0
            split = _num_matrices(name, param) if split_qkv else 1
            key = (weight_decay / scale if decays else 0.0, split, scale, name in matrices)
            members.setdefault(key, []).append(param)
    if block_lr != 1 and not any(scale == block_lr for _, _, scale, _ in members):
        raise InputError(
            f"block_lr={block_lr}: {type(model).__name__} has no transformer block, `blocks.0` or the like"
        )
    groups = [
        {
            **{"params": params, "weight_decay": decay, "split": split, **_scales(scale)},
            **({"use_muon": by_muon} if use_muon else {}),
        }
        for (decay, split, scale, by_muon), params in members.items()
        if params
    ]
    check_complete(model, groups)
    return groups


def _scales(block_lr: float) -> dict[str, float]:
    """What a group of blocks says of itself, for schedules of learning rate and decay."""
    return {} if block_lr == 1 else {"lr_scale": block_lr, "wd_scale": 1 / block_lr}


def _muon_matrices(model: nn.Module) -> set[str]:
    """Names of the trainable weight matrices in a model's blocks; tables, such as relative positions', are no weights.

    Raises:
        InputError: if there is none.
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag)}
    found = {
        name
        for name, param in model.named_parameters()
        if param.requires_grad and param.ndim == 2 and min(param.shape) > 1
        if _BLOCK.search(name) and name.endswith("weight") and id(param) not in tables
    }
    if not found:
        raise InputError(
            f"muon: {type(model).__name__} has no trainable weight matrix in a transformer block, `blocks.0` or the "
            "like: take adamw or soap"
        )
    return found


def check_complete(model: nn.Module, groups: Sequence[Mapping[str, Any]]) -> None:
    """Raise `InputError` unless the groups hold every trainable parameter of the model exactly once, and no other."""
    counts = Counter(id(param) for group in groups for param in group["params"])
    names = {id(param): name for name, param in model.named_parameters()}
    trainable = {id(param) for param in model.parameters() if param.requires_grad}
    if not trainable:
        raise InputError(f"{type(model).__name__} has no trainable parameter: set requires_grad on some")
    faults = {
        "in no group": trainable - counts.keys(),
        "more than once": {key for key, times in counts.items() if times > 1},
        "frozen or of another model": counts.keys() - trainable,
    }
    for fault, keys in faults.items():
        if keys:
            listed = ", ".join(sorted(names.get(key, "a parameter of another model") for key in keys))
            raise InputError(f"parameter groups of {type(model).__name__}: {fault}: {listed}")


def _num_matrices(name: str, param: Tensor) -> int:
    """How many stacked matrices a weight holds: three if it is a fused qkv weight."""
    if not name.endswith(_FUSED_QKV):
        return 1
    if param.ndim != 2 or param.shape[0] % 3:
        raise InputError(
            f"{name} of shape {tuple(param.shape)} does not fall into queries, keys and values: pass split_qkv=False"
        )
    return 3
