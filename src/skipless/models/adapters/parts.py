"""What several adapters share: finding blocks, the skips that one still has, refusals, LayerScale as a parameter."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from skipless.errors import InputError
from skipless.models.blocks import SubBlock


class Scaled(nn.Module):
    """LayerScale that a block keeps as a parameter of its own, as a module."""

    def __init__(self, gamma: nn.Parameter) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Tokens, each entry times its factor."""
        return self.gamma * x


def scale_of(gamma: nn.Parameter | None) -> nn.Module:
    """The module that a block's LayerScale parameter stands for."""
    return nn.Identity() if gamma is None else Scaled(gamma)


def library_class(attention: nn.Module) -> type:
    """The library's class of an attention, whichever core it has (`replace_attention_`), parametrized or not."""
    own = type(attention).__mro__[1] if is_parametrized(attention) else type(attention)
    return getattr(own, "softmax", own)


def kept_skips(block: nn.Module) -> tuple[SubBlock, ...]:
    """The sub-blocks that still have their skip connection: all of the library's own block."""
    kept: dict[SubBlock, Any] = {"attn": getattr(block, "attn_skip", True), "mlp": getattr(block, "mlp_skip", True)}
    return tuple(name for name, is_kept in kept.items() if is_kept)


def skip_gains(block: nn.Module) -> tuple[float, float]:
    """What the skips of attention and MLP multiply their tokens by: 1 in the library's own block, 0 without a skip."""
    kept: list[Any] = [getattr(block, name, True) for name in ("attn_skip", "mlp_skip")]
    return float(kept[0]), float(kept[1])


def joined(x: Tensor, y: Tensor, skip: float) -> Tensor:
    """What leaves a sub-block that gives y for tokens x: x + y, y where there is no skip, or a x + y of a decayed one.

    Batches may be nested tensors.

    Example:
        >>> import torch
        >>> x, y = torch.ones(1), torch.ones(1)
        >>> [joined(x, y, skip).item() for skip in (True, False, 0.5)]
        [2.0, 1.0, 1.5]
    """
    if skip == 1:
        return x + y
    return skip * x + y if skip else y


def become_(block: nn.Module, skipless: type[nn.Module], sub_blocks: tuple[SubBlock, ...]) -> nn.Module:
    """Give a block the class whose forward asks `attn_skip` and `mlp_skip`, and note the skips that are left."""
    block_: Any = block
    attn, mlp = getattr(block, "attn_skip", True), getattr(block, "mlp_skip", True)
    block_.__class__ = skipless
    block_.attn_skip = attn if "attn" not in sub_blocks else False
    block_.mlp_skip = mlp if "mlp" not in sub_blocks else False
    return block


def put_gains_(block: Any, gains: tuple[float, float]) -> None:
    """Write what the skips multiply their tokens by into a block whose class asks `attn_skip` and `mlp_skip`."""
    attn, mlp = gains
    block.attn_skip = attn if block.attn_skip else False
    block.mlp_skip = mlp if block.mlp_skip else False


def norm_modules(*norms: nn.Module | None) -> tuple[nn.Module, ...]:
    """Those of some modules that are norms: there may be none, or the identity, in a norm's place."""
    return tuple(norm for norm in norms if norm is not None and not isinstance(norm, nn.Identity))


def stacked_blocks(
    model: nn.Module,
    transformer: type[nn.Module],
    stack: str,
    known: tuple[type[nn.Module], ...],
    supported: str,
    reasons: Mapping[str, str] | None = None,
) -> list[tuple[str, nn.Module]]:
    """Every block in the stacks of one library's transformers, with its path, first to last.

    Args:
        model: may wrap a transformer (`features_only`, `DistributedDataParallel`, `torch.compile`), or be one block or
            a sequence of blocks.
        transformer: class of the library's transformers.
        stack: path of the sequence of blocks in such a one.
        known: classes of blocks, exactly: a subclass may have a forward of its own.
        supported: what the adapter knows, for the error.
        reasons: by the name of a block's class, why its skip cannot be left out.

    Raises:
        InputError: if a block is of another class. A model is converted whole or not at all.
    """
    if type(model) in known:
        return [("", model)]
    stacks = [
        (f"{name}.{stack}.", m.get_submodule(stack)) for name, m in model.named_modules() if isinstance(m, transformer)
    ]
    bare = isinstance(model, nn.Sequential | nn.ModuleList)
    if not stacks and bare and any(type(child) in known for child in model.children()):
        stacks = [("", model)]
    found = [(f"{path}{name}".lstrip("."), block) for path, of in stacks for name, block in of.named_children()]
    for name, block in found:
        if type(block) not in known:
            kind = type(block).__name__
            why = f": {reasons[kind]}" if reasons and kind in reasons else ""
            raise InputError(f"no adapter for the block `{kind}` at {name}{why}; supported: {supported}")
    return found


def check_dropout(name: str, dropouts: Mapping[SubBlock, nn.Module], sub_blocks: tuple[SubBlock, ...]) -> None:
    """Refuse dropout behind sub-blocks whose skip is to be removed.

    Raises:
        InputError: if a named sub-block has it.
    """
    for sub_block in sub_blocks:
        rate = getattr(dropouts[sub_block], "p", 0.0)
        if rate:
            what = {"attn": "attention", "mlp": "MLP"}[sub_block]
            raise InputError(
                f"{name} has dropout {rate:.3g} behind its {what}: beside a skip it thins out a branch, and without "
                "that skip it would strike the whole stream in every block; build the model with dropout=0"
            )
