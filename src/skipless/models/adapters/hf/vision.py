"""Blocks of ViT, DeiT, DINOv2 (with registers) and DINOv3: pre-norm, queries, keys and values in maps of their own."""

from typing import Any

from torch import Tensor, nn

from skipless.models.adapters.hf.classes import Path, class_by_name, expect, known_class, linear_maps, norms_of
from skipless.models.adapters.hf.prenorm import UNPACKED, check_drop_path, check_dropout, gains, leave_out_, skips
from skipless.models.adapters.parts import joined
from skipless.models.adapters.protocol import LayerScaleChoice
from skipless.models.blocks import BlockView, LinearMap, SubBlock


class PlainForward:
    """The forward of a ViT block, in which `attn_skip` and `mlp_skip` switch the two `x +` on or off."""

    attn_skip: float
    mlp_skip: float

    def forward(self: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Tokens to tokens."""
        y, _ = self.attention(self.layernorm_before(hidden_states), *args, **kwargs)
        y = self.dropout(y)
        x = joined(hidden_states, y, self.attn_skip)
        y = self.dropout(self.mlp(self.layernorm_after(x)))
        return joined(x, y, self.mlp_skip)


class ScaledForward:
    """The forward of a DINO block, with LayerScale and drop path; `attn_skip` and `mlp_skip` switch the two `x +`."""

    attn_skip: float
    mlp_skip: float

    def forward(self: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Tokens to tokens."""
        y, _ = self.attention(self.norm1(hidden_states), *args, **kwargs)
        y = self.layer_scale1(y)
        x = joined(hidden_states, self.drop_path(y), self.attn_skip) if self.attn_skip else y
        y = self.layer_scale2(self.mlp(self.norm2(x)))
        return joined(x, self.drop_path(y), self.mlp_skip) if self.mlp_skip else y


KNOWN = {
    "ViTLayer": ("vit.modeling_vit", PlainForward),
    "DeiTLayer": ("deit.modeling_deit", PlainForward),
    "Dinov2Layer": ("dinov2.modeling_dinov2", ScaledForward),
    "Dinov2WithRegistersLayer": ("dinov2_with_registers.modeling_dinov2_with_registers", ScaledForward),
    "DINOv3ViTLayer": ("dinov3_vit.modeling_dinov3_vit", ScaledForward),
}
_SCALES = (("attn", "layer_scale1"), ("mlp", "layer_scale2"))


def __getattr__(name: str) -> Any:
    return class_by_name(name, KNOWN)


def view(name: str, block: Any) -> BlockView:
    """Describe a block in the paper's terms.

    Raises:
        InputError: for an attention or an MLP of another class, and for linear maps that are not plain.
    """
    home = known_class(block)
    assert home is not None
    attn, mlp = block.attention, block.mlp
    expect(name, "attention", attn, home, f"{home.name.removesuffix('Layer')}Attention")
    maps = [linear_maps(name, getattr(attn, f"{part}_proj"))[0] for part in ("q", "k", "v", "o")]
    mlp_in, mlp_out, activation = _mlp(name, mlp, home)
    plain = KNOWN[home.name][1] is PlainForward
    norms = (block.layernorm_before, block.layernorm_after) if plain else (block.norm1, block.norm2)
    scales = {} if plain else {part: getattr(block, module) for part, module in _SCALES}
    return BlockView(
        name=name,
        block=block,
        dim=attn.q_proj.in_features,
        heads=attn.q_proj.out_features // attn.head_dim,
        key_heads=attn.q_proj.out_features // attn.head_dim,
        head_dim=attn.head_dim,
        logit_scale=attn.scaling,
        attn=attn,
        mlp=mlp,
        attn_norm=norms[0],
        mlp_norm=norms[1],
        attn_scale=scales.get("attn", nn.Identity()),
        mlp_scale=scales.get("mlp", nn.Identity()),
        query=maps[0],
        key=maps[1],
        value=maps[2],
        output=maps[3],
        query_norm=nn.Identity(),
        key_norm=nn.Identity(),
        mlp_in=mlp_in,
        mlp_out=mlp_out,
        activation=activation,
        gate=None if len(mlp_in) == 1 else 0,
        norms=norms_of(*norms),
        layer_scales=() if plain else tuple(f"{module}.lambda1" for module in _present(block)),
        skips=skips(block),
        skip_gains=gains(block),
        context=UNPACKED,
    )


def _present(block: nn.Module) -> list[str]:
    """Names of the LayerScale modules that have not been removed."""
    return [module for _, module in _SCALES if not isinstance(getattr(block, module), nn.Identity)]


def _mlp(name: str, mlp: Any, home: Path) -> tuple[tuple[LinearMap, ...], LinearMap, nn.Module]:
    """The maps from d to hidden, the map back, and the activation."""
    family = home.name.removesuffix("Layer")
    plain, gated = f"{family}MLP", {"DINOv3ViT": f"{family}GatedMLP"}.get(family, f"{family}SwiGLUFFN")
    found = expect(name, "MLP", mlp, home, plain, *(() if family in ("ViT", "DeiT") else (gated,)))
    if found == gated:
        gates, up = linear_maps(name, mlp.gate_proj), linear_maps(name, mlp.up_proj)
        return (*gates, *up), linear_maps(name, mlp.down_proj)[0], mlp.act_fn
    if family == "DINOv3ViT":
        return linear_maps(name, mlp.up_proj), linear_maps(name, mlp.down_proj)[0], mlp.act_fn
    return linear_maps(name, mlp.fc1), linear_maps(name, mlp.fc2)[0], mlp.activation_fn


def check_removable(name: str, block: Any, sub_blocks: tuple[SubBlock, ...]) -> None:
    """Refuse dropout and drop path, which both sub-blocks share.

    Raises:
        InputError: for either.
    """
    if hasattr(block, "drop_path"):
        check_drop_path(name, block.drop_path)
    else:
        check_dropout(name, block.dropout, "hidden_dropout_prob=0")


def remove_skips_(block: Any, sub_blocks: tuple[SubBlock, ...], layer_scale: LayerScaleChoice) -> nn.Module:
    """Remove the skips of the named sub-blocks; call `check_removable` first."""
    home = known_class(block)
    assert home is not None
    forward = KNOWN[home.name][1]
    leave_out_(block, sub_blocks, forward)
    if layer_scale == "remove" and forward is ScaledForward:
        for sub_block, module in _SCALES:
            if sub_block in sub_blocks:
                setattr(block, module, nn.Identity())
    return block
