"""Blocks of the Llama family: RMSNorm, rotary positions, grouped keys and values, a gated MLP."""

from inspect import signature
from typing import Any

from torch import Tensor, nn

from skipless.models.adapters.hf.classes import class_by_name, expect, known_class, linear_maps, norms_of
from skipless.models.adapters.hf.prenorm import UNPACKED, gains, leave_out_, skips
from skipless.models.adapters.parts import joined
from skipless.models.adapters.protocol import LayerScaleChoice
from skipless.models.blocks import BlockView, SubBlock

_HOMES = {
    "LlamaDecoderLayer": "llama.modeling_llama",
    "MistralDecoderLayer": "mistral.modeling_mistral",
    "Qwen2DecoderLayer": "qwen2.modeling_qwen2",
    "Qwen3DecoderLayer": "qwen3.modeling_qwen3",
}


class Forward:
    """The forward of a Llama block, in which `attn_skip` and `mlp_skip` switch the two `x +` on or off.

    Whatever else the model gives its blocks goes on to the attention, by whichever name: masks, rotary positions, the
    cache, whose name changes from version to version.
    """

    attn_skip: float
    mlp_skip: float
    residual: type

    def forward(self: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Tokens to tokens."""
        if args:
            kwargs |= zip(_names(self.residual), args, strict=False)
        kwargs.setdefault("attention_mask", None)
        y, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)
        x = joined(hidden_states, y, self.attn_skip)
        y = self.mlp(self.post_attention_layernorm(x))
        return joined(x, y, self.mlp_skip)


def _names(residual: Any) -> tuple[str, ...]:
    """What the block's positional arguments after the tokens are called."""
    return tuple(signature(residual.forward).parameters)[2:]


KNOWN = {name: (home, Forward) for name, home in _HOMES.items()}


def __getattr__(name: str) -> Any:
    return class_by_name(name, KNOWN)


def view(name: str, block: Any) -> BlockView:
    """Describe a block in the paper's terms.

    Raises:
        InputError: for an attention or an MLP of another class, and for linear maps that are not plain.
    """
    home = known_class(block)
    assert home is not None
    family = home.name.removesuffix("DecoderLayer")
    attn, mlp = block.self_attn, block.mlp
    expect(name, "attention", attn, home, f"{family}Attention")
    expect(name, "MLP", mlp, home, f"{family}MLP")
    query, key, value, output = (linear_maps(name, getattr(attn, f"{part}_proj"))[0] for part in ("q", "k", "v", "o"))
    query_norm, key_norm = (getattr(attn, part, nn.Identity()) for part in ("q_norm", "k_norm"))
    return BlockView(
        name=name,
        block=block,
        dim=attn.q_proj.in_features,
        heads=attn.q_proj.out_features // attn.head_dim,
        key_heads=attn.k_proj.out_features // attn.head_dim,
        head_dim=attn.head_dim,
        logit_scale=attn.scaling,
        attn=attn,
        mlp=mlp,
        attn_norm=block.input_layernorm,
        mlp_norm=block.post_attention_layernorm,
        attn_scale=nn.Identity(),
        mlp_scale=nn.Identity(),
        query=query,
        key=key,
        value=value,
        output=output,
        query_norm=query_norm,
        key_norm=key_norm,
        mlp_in=(*linear_maps(name, mlp.gate_proj), *linear_maps(name, mlp.up_proj)),
        mlp_out=linear_maps(name, mlp.down_proj)[0],
        activation=mlp.act_fn,
        gate=0,
        norms=norms_of(block.input_layernorm, block.post_attention_layernorm, query_norm, key_norm),
        layer_scales=(),
        skips=skips(block),
        skip_gains=gains(block),
        context=UNPACKED,
    )


def check_removable(name: str, block: Any, sub_blocks: tuple[SubBlock, ...]) -> None:
    """Nothing: these blocks have neither dropout on their branches nor a third skip."""


def remove_skips_(block: Any, sub_blocks: tuple[SubBlock, ...], layer_scale: LayerScaleChoice) -> nn.Module:
    """Remove the skips of the named sub-blocks."""
    return leave_out_(block, sub_blocks, Forward)
