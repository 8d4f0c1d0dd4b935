"""Which skips a block has, and their removal by another class."""

from typing import Any

from torch import nn

from skipless.errors import InputError
from skipless.models.adapters.hf.classes import is_sharded, own_class, residual_class, skipless_class
from skipless.models.blocks import SubBlock
from skipless.models.calls import BlockContext

UNPACKED = BlockContext()
"""Of attention that is called with tokens alone, and returns them in a tuple with its weights: it is to be unpacked."""

DROPOUT = (
    "without that skip it would fall on the whole signal, twice a block, and not on a branch beside it; build the "
    "model with {remedy}"
)


def skips(block: nn.Module) -> tuple[SubBlock, ...]:
    """The sub-blocks that still have their skip connection."""
    if residual_class(own_class(block)) is own_class(block):
        return ("attn", "mlp")
    kept: dict[SubBlock, Any] = {"attn": block.attn_skip, "mlp": block.mlp_skip}
    return tuple(name for name, is_kept in kept.items() if is_kept)


def gains(block: Any) -> tuple[float, float]:
    """What the skips of attention and MLP multiply their tokens by; 0 without the skip."""
    if residual_class(own_class(block)) is own_class(block):
        return 1.0, 1.0
    return float(block.attn_skip), float(block.mlp_skip)


def leave_out_(block: nn.Module, sub_blocks: tuple[SubBlock, ...], forward: type) -> nn.Module:
    """Give a block the class whose forward leaves the skips of the named sub-blocks out."""
    block_: Any = block
    attn, mlp = gains(block)
    block_.__class__ = skipless_class(forward, residual_class(own_class(block)))
    block_.attn_skip = attn if "attn" not in sub_blocks else False
    block_.mlp_skip = mlp if "mlp" not in sub_blocks else False
    return block


def check_unsharded(name: str, block: nn.Module) -> None:
    """Refuse a block that FSDP2 has sharded: with another class it would be sharded no more.

    Raises:
        InputError: if it has.
    """
    if is_sharded(block):
        raise InputError(f"{name} is sharded by fully_shard: remove skips before that")


def check_dropout(name: str, dropout: Any, remedy: str) -> None:
    """Refuse dropout on the output of a sub-block whose skip is to be removed.

    Raises:
        InputError: if it drops anything.
    """
    if dropout.p:
        raise InputError(f"{name} has dropout {dropout.p:.3g}: {DROPOUT.format(remedy=remedy)}")


def check_drop_path(name: str, drop_path: nn.Module) -> None:
    """Refuse drop path in a block one of whose skips is to be removed.

    Raises:
        InputError: if it drops anything.
    """
    rate = getattr(drop_path, "drop_prob", 0.0)
    if rate:
        raise InputError(
            f"{name} has drop path {rate:.3g}: it drops a whole branch and lets the skip carry the tokens, so without "
            "that skip it would erase them; build the model with drop_path_rate=0"
        )
