"""How Hugging Face's vision transformers turn images into tokens."""

import math
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from skipless.models.adapters.hf.classes import own_class, path_of
from skipless.models.adapters.hf.vision import view
from skipless.models.blocks import BlockView
from skipless.models.calls import BlockContext
from skipless.models.vit_view import Entering, Positions, ViTView, per_channel

# Statistics of pixels: ViT's image processor has those of [-1, 1], the others have ImageNet's.
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# The classes that embed images and call the blocks, and where their blocks and their last norm are.
_PLACES = {
    "ViTModel": ("layers", "layernorm"),
    "DeiTModel": ("layers", "layernorm"),
    "Dinov2Model": ("encoder.layer", "layernorm"),
    "Dinov2Backbone": ("encoder.layer", "layernorm"),
    "Dinov2WithRegistersModel": ("encoder.layer", "layernorm"),
    "Dinov2WithRegistersBackbone": ("encoder.layer", "layernorm"),
    "DINOv3ViTModel": ("model.layer", "norm"),
    "DINOv3ViTBackbone": ("model.layer", "norm"),
}


def vits(model: nn.Module) -> list[ViTView]:
    """How every vision transformer of Hugging Face's in the model turns images into tokens."""
    found = [(module, path_of(own_class(module))) for module in model.modules()]
    return [_vit(module, path.name) for module, path in found if path is not None and path.name in _PLACES]


def _vit(vit: Any, name: str) -> ViTView:
    blocks, norm = _PLACES[name]
    config, embeddings = vit.config, vit.embeddings
    patch, size = _pair(config.patch_size), _pair(config.image_size)
    rotary = name.startswith("DINOv3")
    tokens = [getattr(embeddings, token, None) for token in ("cls_token", "distillation_token", "register_tokens")]
    prefix = tuple(token for token in tokens if token is not None)
    views = tuple(view(f"{blocks}.{index}", block) for index, block in enumerate(vit.get_submodule(blocks)))
    grid = (size[0] // patch[0], size[1] // patch[1])
    embedding = getattr(embeddings, "position_embeddings", None)
    mean, std = _HALF if name.startswith("ViT") else _IMAGENET
    return ViTView(
        transformer=vit,
        views=views,
        patch=patch,
        prefix=sum(token.shape[1] for token in prefix),
        class_token=True,
        channels=config.num_channels,
        dim=config.hidden_size,
        image_size=size,
        any_size=rotary or (isinstance(config.patch_size, int) and grid[0] == grid[1]),
        mean=per_channel(mean, config.num_channels),
        std=per_channel(std, config.num_channels),
        final_norm=getattr(vit, norm),
        enter=partial(_enter, vit, views, name),
        feat_size=lambda height, width: (height // patch[0], width // patch[1]),
        trims=True,
        positions=_positions(embeddings, prefix, embedding, grid),
        contextual=rotary,
        entrance=embeddings,
    )


def _positions(embeddings: Any, prefix: tuple[Any, ...], embedding: Any, grid: tuple[int, int]) -> Positions:
    patches = embeddings.patch_embeddings
    projection = getattr(patches, "projection", patches)  # DINOv3's is the convolution itself
    return Positions(
        patch_embedding=lambda images: _rows(patches(images)),
        weights=tuple(projection.parameters()),
        normed=False,
        embedding=embedding,
        has_prefix=embedding is not None,
        prefix=prefix,
        grid=grid,
        covered=None if embedding is None else embedding.shape[1] - math.prod(grid),
    )


def _rows(patches: Tensor) -> Float[Tensor, "b n d"]:
    return patches if patches.ndim == 3 else patches.flatten(2).transpose(1, 2)


def _enter(vit: Any, views: tuple[BlockView, ...], name: str, images: Float[Tensor, "b c h w"]) -> Entering:
    """Position embeddings are interpolated as the library does it."""
    if name in ("ViTModel", "DeiTModel"):
        own = tuple(images.shape[-2:]) == _pair(vit.config.image_size)
        return Entering(vit.embeddings(images, interpolate_pos_encoding=not own))
    tokens = vit.embeddings(images)
    if not name.startswith("DINOv3"):
        return Entering(tokens)
    cos, sin = vit.rope_embeddings(images)
    context = BlockContext(
        block={"position_embeddings": (cos, sin)},
        attn={"position_embeddings": (cos, sin)},
        rotate=partial(_rotate_patches, cos, sin),
    )
    return Entering(tokens, (context,) * len(views))


def _rotate_patches(cos: Tensor, sin: Tensor, x: Float[Tensor, "b h n k"]) -> Float[Tensor, "b h n k"]:
    """Turn the queries or keys of patches; those of the tokens before them stay."""
    first = x.shape[-2] - cos.shape[-2]
    return torch.cat((x[..., :first, :], rotate_half(x[..., first:, :], cos, sin)), dim=-2)


def rotate_half(x: Float[Tensor, "*b n k"], cos: Tensor, sin: Tensor) -> Float[Tensor, "*b n k"]:
    """Rotary positions that pair the entry i with i + d_h / 2."""
    low, high = x.chunk(2, dim=-1)
    return x * cos.to(x) + torch.cat((-high, low), dim=-1) * sin.to(x)


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
