"""What autograd keeps between forward and backward, in bytes, counted tensor by tensor from the blocks.

The rules are torch's: a linear map keeps its input, a norm its input and two statistics, an activation its input, fused
attention queries, keys, values, its output and one float32 a row. Autocast keeps the copies in half precision that it
makes, and gives norms float32 on a GPU. A skip connection keeps nothing: its sum is the next norm's input, which
is kept either way.
"""

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from skipless.choices import Precision
from skipless.models import BlockView, block_views
from skipless.planning.flops import token_count

SINGLE = 4


@dataclass(frozen=True)
class Keeping:
    """How a forward pass is run, as far as it decides what is kept.

    Attributes:
        precision: fp32, or autocast.
        fused: attention by one fused kernel; else its n x n matrices are kept.
        checkpointing: keep the inputs of blocks only, and compute a block again when its turn comes.
        device: autocast computes norms in float32 on `cuda`, in the input's own precision on `cpu`.
    """

    precision: Precision = "bf16"
    fused: bool = True
    checkpointing: bool = False
    device: Literal["cuda", "cpu"] = "cuda"

    @property
    def width(self) -> int:
        """Bytes of a number that a linear map keeps."""
        return SINGLE if self.precision == "fp32" else 2

    def stream(self, *, skip: bool) -> int:
        """Bytes of a number of the tokens between sub-blocks: with a skip they are a sum that starts in float32."""
        return SINGLE if skip else self.width

    def norm(self, *, skip: bool) -> int:
        """Bytes of a number that a norm keeps of its input."""
        return SINGLE if self.device == "cuda" else self.stream(skip=skip)


def block_bytes(view: BlockView, tokens: int, keeping: Keeping, *, first: bool = False) -> int:
    """Bytes that one block keeps of one image.

    Args:
        view: the block.
        tokens: n.
        keeping: how it is run.
        first: the first of its model, whose input is float32 whatever comes after.
    """
    width, inner = keeping.width, view.heads * view.head_dim
    inputs = {"attn": keeping.norm(skip=first or "mlp" in view.skips), "mlp": keeping.norm(skip="attn" in view.skips)}
    norms = sum(tokens * (view.dim * inputs[sub_block] + 2 * SINGLE) for sub_block in ("attn", "mlp"))
    maps = tokens * width * (2 * view.dim + 4 * inner)  # into qkv, into the MLP; queries, keys, values, their mixture
    hidden = sum(m.w.shape[1] for m in view.mlp_in)
    mlp = 2 * tokens * width * hidden  # plain: activation's input and output; gated: twice as many, and so is `hidden`
    scales = sum(not isinstance(scale, nn.Identity) for scale in (view.attn_scale, view.mlp_scale))
    return norms + maps + mlp + _attention_bytes(view, tokens, keeping) + scales * tokens * view.dim * width


def _attention_bytes(view: BlockView, tokens: int, keeping: Keeping) -> int:
    """Bytes kept of the attention matrices, or of their rows' log-sum-exp where they are never made."""
    if keeping.fused:
        return SINGLE * view.heads * tokens
    copy = keeping.width if keeping.width < SINGLE and keeping.device == "cuda" else 0  # softmax in float32, and cast
    return (copy + (SINGLE if copy else keeping.width)) * view.heads * tokens**2


def backbone_bytes(model: nn.Module, image_size: int, keeping: Keeping) -> int:
    """Bytes that a backbone keeps of one image, its classifier's input among them.

    With checkpointing this is the largest sum there is during the backward pass: all inputs and one block's own.

    Example:
        >>> from skipless.models import create_model
        >>> vit = create_model("vit_small_patch16_224")
        >>> round(backbone_bytes(vit, 224, Keeping("bf16")) / 2**20, 1)
        31.8
    """
    tokens, views = token_count(model, image_size), block_views(model)
    blocks = [block_bytes(view, tokens, keeping, first=index == 0) for index, view in enumerate(views)]
    kept = sum(blocks)
    if keeping.checkpointing:
        between = [keeping.stream(skip=index == 0 or bool(view.skips)) for index, view in enumerate(views)]
        kept = tokens * views[0].dim * sum(between) + max(blocks)
    return kept + _embedding_and_head_bytes(model, image_size, tokens, views[-1], keeping)


def _embedding_and_head_bytes(model: nn.Module, image_size: int, tokens: int, last: BlockView, keeping: Keeping) -> int:
    """Bytes kept before the first block and after the last."""
    vit: Any = model
    image = vit.patch_embed.proj.in_channels * image_size**2 * keeping.width
    norm = tokens * (last.dim * keeping.norm(skip="mlp" in last.skips) + 2 * SINGLE)
    if not isinstance(getattr(vit, "head", None), nn.Linear):
        return image + norm
    # Without a cast the classifier's input is a view, and keeps the normed tokens alive, all of them.
    cast = keeping.width < keeping.norm(skip="mlp" in last.skips)
    pooled = last.dim * keeping.width * (1 if cast else tokens)
    return image + norm + pooled


def cast_bytes(module: nn.Module, keeping: Keeping) -> int:
    """Bytes of the copies in half precision that autocast makes of trained weights, once a step."""
    if keeping.precision == "fp32":
        return 0
    maps = (m for m in module.modules() if isinstance(m, nn.Linear | nn.Conv2d))
    return keeping.width * sum(p.numel() for m in maps for p in m.parameters(recurse=False) if p.requires_grad)
