"""Blocks of BERT, which norm after the addition (post-norm).

Both additions lie in modules of their own, `BertSelfOutput` and `BertOutput`: these get another class, and the block
keeps its own. Without skips a block is LN(MLP(LN(attention(x)))): the skipless pre-norm block shifted by one norm. The
norm of the embeddings is the first block's, and the last block's second norm is the final one.
"""

from typing import Any

from torch import Tensor, nn

from skipless.errors import InputError
from skipless.models.adapters.hf.classes import (
    class_by_name,
    expect,
    known_class,
    linear_maps,
    own_class,
    path_of,
    residual_class,
    skipless_class,
)
from skipless.models.adapters.hf.prenorm import check_dropout
from skipless.models.adapters.parts import joined
from skipless.models.adapters.protocol import LayerScaleChoice
from skipless.models.blocks import BlockView, SubBlock
from skipless.models.calls import first_tensor

_HOME = "bert.modeling_bert"


class Forward:
    """The forward of `BertSelfOutput` and of `BertOutput` without the addition, or with one of decayed tokens."""

    skip: float = 0.0

    def forward(self: Any, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
        """Tokens to tokens; those that would be added are left out, or times a gain."""
        return self.LayerNorm(joined(input_tensor, self.dropout(self.dense(hidden_states)), self.skip))


class Attention(nn.Module):
    """BERT's attention up to the addition: softmax and W_O, without the norm. It shares the block's modules."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.attention, self.output = attention.self, attention.output.dense

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        """Tokens to tokens."""
        return self.output(first_tensor(self.attention(hidden_states, **kwargs)))


KNOWN = {"BertLayer": (_HOME, Forward)}
_PARTS = {"BertSelfOutput": (_HOME, Forward), "BertOutput": (_HOME, Forward)}


def __getattr__(name: str) -> Any:
    return class_by_name(name, _PARTS)


def _additions(block: Any) -> dict[SubBlock, Any]:
    """The modules that have the additions."""
    return {"attn": block.attention.output, "mlp": block.output}


def view(name: str, block: Any) -> BlockView:
    """Describe a block in the paper's terms.

    Raises:
        InputError: for parts of another class, and for linear maps that are not plain.
    """
    home = known_class(block)
    assert home is not None
    attention, output = block.attention, block.output
    expect(name, "attention", attention, home, "BertAttention")
    expect(name, "attention", attention.self, home, "BertSelfAttention")
    expect(name, "MLP", block.intermediate, home, "BertIntermediate")
    for part, known in ((attention.output, "BertSelfOutput"), (output, "BertOutput")):
        expect(name, "output", part, home, known)
    own = attention.self
    query, key, value = (linear_maps(name, getattr(own, part))[0] for part in ("query", "key", "value"))
    mlp_norm = attention.output.LayerNorm
    return BlockView(
        name=name,
        block=block,
        dim=own.query.in_features,
        heads=own.num_attention_heads,
        key_heads=own.num_attention_heads,
        head_dim=own.attention_head_size,
        logit_scale=own.scaling,
        attn=Attention(attention),
        mlp=nn.Sequential(block.intermediate, output.dense),
        attn_norm=nn.Identity(),
        mlp_norm=mlp_norm,
        attn_scale=nn.Identity(),
        mlp_scale=nn.Identity(),
        query=query,
        key=key,
        value=value,
        output=linear_maps(name, attention.output.dense)[0],
        query_norm=nn.Identity(),
        key_norm=nn.Identity(),
        mlp_in=linear_maps(name, block.intermediate.dense),
        mlp_out=linear_maps(name, output.dense)[0],
        activation=block.intermediate.intermediate_act_fn,
        gate=None,
        norms=(mlp_norm, output.LayerNorm),
        layer_scales=(),
        skips=tuple(part for part, module in _additions(block).items() if _gain(module)),
        skip_gains=(_gain(attention.output), _gain(output)),
        post_norm=True,
    )


def _gain(output: Any) -> float:
    """What an addition multiplies its tokens by: 1 in the library's own class."""
    return 1.0 if path_of(own_class(output)) is not None else float(output.skip)


def set_skip_gains_(block: Any, gains: tuple[float, float]) -> None:
    """Have the additions of attention and MLP take their tokens times a gain, where there are additions."""
    for output, gain in zip(_additions(block).values(), gains, strict=True):
        if _gain(output):
            output.__class__ = skipless_class(Forward, residual_class(own_class(output)))
            output.skip = gain


def check_removable(name: str, block: Any, sub_blocks: tuple[SubBlock, ...]) -> None:
    """Refuse cross-attention, and dropout on sub-blocks whose skip is to be removed.

    Raises:
        InputError: for either.
    """
    if hasattr(block, "crossattention"):
        raise InputError(f"{name} has cross-attention, a third skip that the paper does not have; build it without")
    for sub_block, output in _additions(block).items():
        if sub_block in sub_blocks:
            check_dropout(name, output.dropout, "hidden_dropout_prob=0")


def remove_skips_(block: Any, sub_blocks: tuple[SubBlock, ...], layer_scale: LayerScaleChoice) -> nn.Module:
    """Remove the skips of the named sub-blocks; call `check_removable` first."""
    for sub_block, output in _additions(block).items():
        if sub_block in sub_blocks:
            output.__class__ = skipless_class(Forward, residual_class(own_class(output)))
            output.skip = 0.0
    return block
