"""Features of any block: tokens, queries, keys and values in one forward pass, at any image size.

Probes, object discovery, k-NN and pictures all take their features from here.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from skipless.choices import Kind, Norm, Precision
from skipless.data.folder import to_mode
from skipless.display import Record
from skipless.display.values import counted
from skipless.errors import InputError
from skipless.models.blocks import BlockView, LinearMap
from skipless.models.eval_mode import evaluating
from skipless.models.vit_view import ViTView, enter, find_vit, project, projection_module

Key = tuple[int, Kind]

MAX_TOKENS = 2**15
"""Limit for one image. The graphs of object discovery grow with its square, to 4 GiB at this size."""

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True)
class FeatureConfig:
    """Which features to compute.

    Attributes:
        blocks: positions of blocks from 0; negative ones count from the last. None means every block.
        kinds: `tokens` is a block's output. `q`, `k` and `v` are the outputs of its W_Q, W_K and W_V with bias, all
            heads concatenated, before a qk-norm.
        norm: `"final"` applies the model's last norm to the output of every block, as DINO's evaluations do, although
            it was trained for the last block only; `"none"` applies no norm. Without effect on q, k and v.
        precision: `"fp32"` computes at the parameters' precision; `"bf16"` and `"fp16"` compute under autocast.
    """

    blocks: tuple[int, ...] | None = None
    kinds: tuple[Kind, ...] = ("tokens",)
    norm: Norm = "final"
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        for name, values, known in (
            ("kinds", self.kinds, get_args(Kind)),
            ("norm", (self.norm,), get_args(Norm)),
            ("precision", (self.precision,), get_args(Precision)),
        ):
            if isinstance(values, str) or not values or not set(values) <= set(known):
                raise InputError(f"{name}={getattr(self, name)!r}: choose from {', '.join(known)}")
        if self.blocks is not None and not self.blocks:
            raise InputError("blocks=() names no block; None stands for all of them")

    def keys(self, depth: int) -> tuple[Key, ...]:
        """Every (block, kind) pair, with blocks counted from 0.

        Raises:
            InputError: if a block is out of range or named twice.

        Example:
            >>> FeatureConfig(blocks=(0, -1), kinds=("k",)).keys(depth=12)
            ((0, 'k'), (11, 'k'))
        """
        blocks = tuple(range(depth)) if self.blocks is None else self.blocks
        counted = tuple(block + depth if block < 0 else block for block in blocks)
        if not all(0 <= block < depth for block in counted) or len(set(counted)) < len(counted):
            raise InputError(f"blocks={blocks!r}: name each of 0 to {depth - 1} (or -1 to -{depth}) at most once")
        return tuple((block, kind) for block in counted for kind in self.kinds)


@dataclass(frozen=True, eq=False, repr=False)
class Features(Record):
    """Features of a batch of images of one size, from one block.

    Attributes:
        block: position of the block, from 0.
        kind: tokens, q, k or v.
        patches: features of the patches, in row-major order.
        prefix: features of class token and registers in the model's order; the class token, if any, comes first.
        grid: rows and columns of patches.
    """

    block: int
    kind: Kind
    patches: Float[Tensor, "b n d"]
    prefix: Float[Tensor, "b p d"]
    grid: tuple[int, int]

    def _summary(self) -> str:
        images, _, dim = self.patches.shape
        places = f"{self.grid[0]} x {self.grid[1]} patches and {self.prefix.shape[1]} more"
        return f"block {self.block} {self.kind} of {counted(images, 'image')}, {places}, {dim} wide"


def features(
    model: nn.Module, images: Float[Tensor, "b c h w"], config: FeatureConfig | None = None, *, batch_size: int = 32
) -> dict[Key, Features]:
    """Compute features of a batch of images, with one forward pass for each chunk.

    Args:
        model: a vision transformer that an adapter knows, with skips or without; its training mode is restored.
        images: normalised as the model expects them. Height and width are multiples of the patch size, or the size that
            the model was built for. The features are on the images' device, which may differ from the model's.
        config: which features; by default the output of every block, with the final norm applied.
        batch_size: number of images in a chunk.

    Raises:
        InputError: if no adapter knows the model, a block is out of range, or the images do not fit.

    Example:
        >>> import timm
        >>> vit = timm.create_model("vit_tiny_patch16_224", depth=2)
        >>> found = features(vit, torch.rand(1, 3, 32, 48), FeatureConfig(blocks=(-1,), kinds=("tokens", "k")))
        >>> [(key, tuple(f.patches.shape), tuple(f.prefix.shape), f.grid) for key, f in found.items()]
        [((1, 'tokens'), (1, 6, 192), (1, 1, 192), (2, 3)), ((1, 'k'), (1, 6, 192), (1, 1, 192), (2, 3))]
    """
    config = FeatureConfig() if config is None else config
    tokens = find_vit(model)
    if not len(images) or batch_size < 1:
        raise InputError(f"{len(images)} images in batches of {batch_size}: there is nothing to compute")
    out: dict[Key, Tensor] = {}
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        for key, value in forward_features(tokens, part, config).items():
            if key not in out:  # allocated outside inference mode, so that the caller may train on them
                out[key] = value.new_empty((len(images), *value.shape[1:]), device=images.device)
            out[key][start : start + len(part)] = value
    grid = tokens.grid(images.shape[-2], images.shape[-1])
    return {
        (block, kind): Features(block, kind, value[:, tokens.prefix :], value[:, : tokens.prefix], grid)
        for (block, kind), value in out.items()
    }


def forward_features(
    model: ViTView, images: Float[Tensor, "b c h w"], config: FeatureConfig, keys: Sequence[Key] | None = None
) -> dict[Key, Float[Tensor, "b t d"]]:
    """Features from one forward pass, which ends at the last block needed; prefix tokens come first.

    Args:
        model: returned by `find_vit`.
        images: a batch small enough for one forward pass.
        config: norm and precision, and, without `keys`, blocks and kinds.
        keys: the (block, kind) pairs, if not all of the config's.
    """
    keys = config.keys(len(model.views)) if keys is None else keys
    parameter = next(model.transformer.parameters())
    captured: dict[Key, Tensor] = {}
    dtype = _AUTOCAST.get(config.precision)
    with (
        torch.inference_mode(),
        evaluating(model.transformer),
        torch.autocast(parameter.device.type, dtype=dtype, enabled=dtype is not None),
        ExitStack() as hooks,
    ):
        for block, kind in keys:
            if kind != "tokens":
                hooks.enter_context(_capture_projection(model, block, kind, captured))
        x, views = enter(model, images.to(parameter))
        for index, view in enumerate(views[: 1 + max(block for block, _ in keys)]):
            entering, x = x, view.run(x)
            if (index, "tokens") in keys:
                captured[index, "tokens"] = model.final_norm(x) if config.norm == "final" else x
            for key in [key for key in keys if key[0] == index and key not in captured]:
                captured[key] = project(view.attn_norm(entering), _projection(view, key[1]))
    output_dtype = torch.float64 if parameter.dtype == torch.float64 else torch.float32
    return {key: captured[key].to(output_dtype) for key in keys}


@contextmanager
def _capture_projection(model: ViTView, block: int, kind: Kind, captured: dict[Key, Tensor]) -> Iterator[None]:
    """Capture the output of one projection while the model runs; timm's fused qkv has it among its outputs.

    Where the attention does not apply it as a module, nothing is captured, and it is computed afterwards.
    """
    view = model.views[block]
    linear = _projection(view, kind)
    module = projection_module(view, linear)
    if module is None:
        yield
        return

    def capture(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        captured[block, kind] = output[..., linear.rows]

    handle = module.register_forward_hook(capture)
    try:
        yield
    finally:
        handle.remove()


def _projection(view: BlockView, kind: Kind) -> LinearMap:
    return {"q": view.query, "k": view.key, "v": view.value}[kind]


def pad_to_patch(images: Float[Tensor, "*b h w"], patch: int | tuple[int, int]) -> Float[Tensor, "*b height width"]:
    """Zero-pad normalised images at the right and bottom to whole patches, as TokenCut and LOST do.

    Example:
        >>> pad_to_patch(torch.rand(3, 30, 32), 16).shape
        torch.Size([3, 32, 32])
    """
    high, width = (patch, patch) if isinstance(patch, int) else patch
    return nn.functional.pad(images, (0, -images.shape[-1] % width, 0, -images.shape[-2] % high))


@dataclass(frozen=True)
class ImageTransform:
    """The transform from a picture to a model's input.

    Attributes:
        mean, std: statistics of each channel, for values in 0 to 1. With one channel, pictures are converted to grey.
        patch: height and width of a patch; the size becomes a multiple of it.
        size: height and width that pictures are resized to, ignoring their aspect ratio. None keeps each picture's size
            and zero-pads it at the right and bottom, after normalisation.
        interpolation: interpolation of the resizing.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    patch: tuple[int, int]
    size: tuple[int, int] | None = None
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    def __post_init__(self) -> None:
        if self.size is not None and (
            min(self.size) < 1 or self.size[0] % self.patch[0] or self.size[1] % self.patch[1]
        ):
            raise InputError(f"size {self.size} is not a multiple of the patch {self.patch}")
        if self.size is not None:
            self._check_token_count(*self.size)
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3) or min(self.std) <= 0:
            raise InputError(f"mean {self.mean} and std {self.std}: give one or three numbers each, std above 0")

    @classmethod
    def of(cls, model: nn.Module, size: int | tuple[int, int] | None = None, **fields: Any) -> "ImageTransform":
        """The transform of a model's configuration, with `size` rounded to whole patches.

        Args:
            model: a plain ViT; it provides `mean`, `std` and `patch` unless they are given in `fields`.
            size: size in pixels; None keeps each picture's size.
            **fields: any other field.
        """
        tokens = find_vit(model)
        if size is not None:
            sides = (size, size) if isinstance(size, int) else size
            high, width = (max(1, round(s / p)) * p for s, p in zip(sides, tokens.patch, strict=True))
            size = (high, width)
        return cls(**{"mean": tokens.mean, "std": tokens.std, "patch": tokens.patch, "size": size} | fields)

    def __call__(self, image: Image.Image) -> Float[Tensor, "c h w"]:
        """Transform one picture.

        Raises:
            UnreadableImage: if the scale of its pixel values is unknown (see `to_mode`).
            InputError: if it is not resized, and is smaller than a patch or gives more than `MAX_TOKENS` tokens.
        """
        name = getattr(image, "filename", "") or "picture"  # set by Pillow for opened files
        image = to_mode(image, "RGB" if len(self.mean) == 3 else "L", name)
        if self.size is not None:
            image = image.resize((self.size[1], self.size[0]), _RESAMPLING[self.interpolation])
        elif image.height < self.patch[0] or image.width < self.patch[1]:
            raise InputError(f"image of {image.height} x {image.width} pixels is smaller than a patch {self.patch}")
        else:
            self._check_token_count(image.height, image.width)
        pixels = torch.from_numpy(np.array(image, dtype=np.float32) / 255).reshape(image.height, image.width, -1)
        normalised = (pixels - torch.tensor(self.mean)) / torch.tensor(self.std)
        return pad_to_patch(normalised.permute(2, 0, 1).contiguous(), self.patch)

    def _check_token_count(self, height: int, width: int) -> None:
        rows, columns = math.ceil(height / self.patch[0]), math.ceil(width / self.patch[1])
        if rows * columns > MAX_TOKENS:
            raise InputError(
                f"image of {height} x {width} pixels: {rows} x {columns} patches of {self.patch[0]} x {self.patch[1]} "
                f"are more than {MAX_TOKENS} tokens; resize images (--size), the model was built for smaller ones"
            )
