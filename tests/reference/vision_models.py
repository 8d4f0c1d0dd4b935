"""Tiny vision transformers of every family that an adapter knows, and encoders of PyTorch's, with random parameters."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
from torch import nn
from torchvision.models import VisionTransformer

DIM, HEADS, CLASSES, SIDE = 24, 3, 5, 16
TINY = {"img_size": SIDE, "patch_size": 4, "embed_dim": DIM, "depth": 2, "num_heads": HEADS, "num_classes": CLASSES}


def of_timm(name: str, **kwargs: Any) -> nn.Module:
    return timm.create_model(name, **{**TINY, **kwargs})


def of_torchvision(**kwargs: Any) -> nn.Module:
    return VisionTransformer(SIDE, 4, 2, HEADS, DIM, 48, num_classes=CLASSES, **kwargs)


EVA: dict[str, Callable[..., nn.Module]] = {
    "eva02, fused": partial(of_timm, "eva02_tiny_patch14_224"),
    "eva02, split": partial(of_timm, "eva02_base_patch14_224"),
    "eva02, bias beside": partial(of_timm, "eva02_tiny_patch14_224", scale_attn_inner=True, init_values=1e-5),
    "eva, no rope": partial(of_timm, "eva_giant_patch14_224", qk_norm=True),
    "dinov3": partial(of_timm, "vit_small_patch16_dinov3"),
    "dinov3, swiglu": partial(of_timm, "vit_small_plus_patch16_dinov3_qkvb"),
    "rope, mixed": partial(of_timm, "vit_small_patch16_rope_mixed_224"),
    "perception encoder": partial(of_timm, "vit_pe_core_tiny_patch16_384", attn_pool_num_heads=HEADS),
}
BEIT: dict[str, Callable[..., nn.Module]] = {
    "beit": partial(of_timm, "beit_base_patch16_224"),
    "beit, shared": partial(
        of_timm, "beit_base_patch16_224", use_rel_pos_bias=False, use_shared_rel_pos_bias=True, init_values=None
    ),
    "beit, both": partial(of_timm, "beitv2_base_patch16_224", use_shared_rel_pos_bias=True, swiglu_mlp=True),
}
OTHERS: dict[str, Callable[..., nn.Module]] = {
    "deit": partial(of_timm, "deit_tiny_distilled_patch16_224"),
    "torchvision": of_torchvision,
}
VITS = EVA | BEIT | OTHERS


def encoder(
    *, norm_first: bool, batch_first: bool, layers: int = 2, nhead: int = HEADS, **kwargs: Any
) -> nn.TransformerEncoder:
    given = {"dropout": 0.0, "activation": "gelu", **kwargs}
    layer = nn.TransformerEncoderLayer(DIM, nhead, 48, norm_first=norm_first, batch_first=batch_first, **given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of nested tensors that it will not use
        return nn.TransformerEncoder(layer, layers)


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in float64 and evaluation mode, with every parameter of its blocks drawn: no bias, no scale is idle."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.double().named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            ones = parameter.ndim == 1 and ("norm" in name or "gamma" in name or ".ln" in name) and "bias" not in name
            parameter.copy_(1 + 0.2 * drawn if ones else 0.3 * drawn)
    return model.eval()


def images(count: int = 2, side: int = SIDE) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
