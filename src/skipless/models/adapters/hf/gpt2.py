"""Blocks of GPT-2, whose linear maps are `Conv1D`: weights (in, out), queries, keys and values in column blocks."""

from inspect import signature
from typing import Any

from torch import Tensor, nn

from skipless.errors import InputError
from skipless.models.adapters.hf.classes import Path, class_by_name, expect, known_class, linear_maps, norms_of
from skipless.models.adapters.hf.prenorm import UNPACKED, check_dropout, gains, leave_out_, skips
from skipless.models.adapters.parts import joined
from skipless.models.adapters.protocol import LayerScaleChoice
from skipless.models.blocks import BlockView, SubBlock


class Forward:
    """The forward of a GPT-2 block, in which `attn_skip` and `mlp_skip` switch the two `x +` on or off."""

    attn_skip: float
    mlp_skip: float
    residual: type

    def forward(self: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Tokens to tokens."""
        if args:
            kwargs |= zip(_names(self.residual), args, strict=False)
        if kwargs.pop("encoder_hidden_states", None) is not None:
            raise InputError("a skipless GPT-2 block has no cross-attention, yet is given encoder_hidden_states")
        kwargs.pop("encoder_attention_mask", None)
        y, _ = self.attn(self.ln_1(hidden_states), **kwargs)
        x = joined(hidden_states, y, self.attn_skip)
        y = self.mlp(self.ln_2(x))
        return joined(x, y, self.mlp_skip)


def _names(residual: Any) -> tuple[str, ...]:
    """What the block's positional arguments after the tokens are called."""
    return tuple(signature(residual.forward).parameters)[2:]


KNOWN = {"GPT2Block": ("gpt2.modeling_gpt2", Forward)}


def __getattr__(name: str) -> Any:
    return class_by_name(name, KNOWN)


def view(name: str, block: Any) -> BlockView:
    """Describe a block in the paper's terms.

    Raises:
        InputError: for an attention or an MLP of another class, and for linear maps that are not plain.
    """
    home = known_class(block)
    assert isinstance(home, Path)
    attn, mlp = block.attn, block.mlp
    expect(name, "attention", attn, home, "GPT2Attention")
    expect(name, "MLP", mlp, home, "GPT2MLP")
    query, key, value = linear_maps(name, attn.c_attn, 3)
    return BlockView(
        name=name,
        block=block,
        dim=attn.embed_dim,
        heads=attn.num_heads,
        key_heads=attn.num_heads,
        head_dim=attn.head_dim,
        logit_scale=attn.scaling,
        attn=attn,
        mlp=mlp,
        attn_norm=block.ln_1,
        mlp_norm=block.ln_2,
        attn_scale=nn.Identity(),
        mlp_scale=nn.Identity(),
        query=query,
        key=key,
        value=value,
        output=linear_maps(name, attn.c_proj)[0],
        query_norm=nn.Identity(),
        key_norm=nn.Identity(),
        mlp_in=linear_maps(name, mlp.c_fc),
        mlp_out=linear_maps(name, mlp.c_proj)[0],
        activation=mlp.act,
        gate=None,
        norms=norms_of(block.ln_1, block.ln_2),
        layer_scales=(),
        skips=skips(block),
        skip_gains=gains(block),
        context=UNPACKED,
    )


def check_removable(name: str, block: Any, sub_blocks: tuple[SubBlock, ...]) -> None:
    """Refuse cross-attention, and dropout on sub-blocks whose skip is to be removed.

    Raises:
        InputError: for either.
    """
    if hasattr(block, "crossattention"):
        raise InputError(f"{name} has cross-attention, a third skip that the paper does not have; build it without")
    for sub_block, dropout in (("attn", block.attn.resid_dropout), ("mlp", block.mlp.dropout)):
        if sub_block in sub_blocks:
            check_dropout(name, dropout, "resid_pdrop=0")


def remove_skips_(block: Any, sub_blocks: tuple[SubBlock, ...], layer_scale: LayerScaleChoice) -> nn.Module:
    """Remove the skips of the named sub-blocks; call `check_removable` first."""
    return leave_out_(block, sub_blocks, Forward)
