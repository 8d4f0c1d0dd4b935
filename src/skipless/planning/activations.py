"""Activation memory: bytes that autograd saves for the backward pass, counted tensor by tensor from the blocks.

torch saves the input of a linear map, the input and two statistics of a norm, the input of an activation, and of fused
attention the queries, keys, values, output and one float32 per row. Autocast saves the copies in half precision that it
makes, and computes norms in float32 on a GPU. A skip connection saves nothing of its own: its sum is the next norm's
input, which is saved in any case.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from skipless.choices import Precision
from skipless.errors import InputError
from skipless.models import BlockView, block_views
from skipless.models.vit_view import find_vit
from skipless.planning.flops import heads, token_count

SINGLE = 4


@dataclass(frozen=True)
class Keeping:
    """The options of a forward pass that decide which activations autograd saves.

    Attributes:
        precision: fp32, or autocast to bf16 or fp16.
        fused: attention is a fused kernel; otherwise its n x n matrices are saved.
        checkpointing: gradient checkpointing: save only the inputs of blocks, and recompute each block in the backward
            pass.
        device: autocast computes norms in float32 on `cuda`, and in the precision of the input on `cpu`.
    """

    precision: Precision = "bf16"
    fused: bool = True
    checkpointing: bool = False
    device: Literal["cuda", "cpu"] = "cuda"

    @property
    def width(self) -> int:
        """Bytes of a number in the saved input of a linear map."""
        return SINGLE if self.precision == "fp32" else 2

    def stream(self, *, skip: bool) -> int:
        """Return the bytes of a number of the tokens between sub-blocks; with a skip they are a float32 sum."""
        return SINGLE if skip else self.width

    def norm(self, *, skip: bool) -> int:
        """Return the bytes of a number in the saved input of a norm."""
        return SINGLE if self.device == "cuda" else self.stream(skip=skip)


def block_bytes(view: BlockView, tokens: int, keeping: Keeping, *, first: bool = False) -> int:
    """Return the bytes that one block saves for one image.

    Args:
        view: the block.
        tokens: number n of tokens.
        keeping: options of the forward pass.
        first: whether it is the model's first block, whose input is always float32.

    Raises:
        InputError: for attention that is not softmax: what its core saves is not counted.
    """
    if view.core is not None:
        raise InputError(
            f"{view.name} has {type(view.core).__name__} for the softmax, and what it saves for the backward pass is "
            "not counted: plan the model with softmax attention (restore_attention_), or watch a run by `skipless "
            "doctor`"
        )
    width, inner = keeping.width, view.heads * view.head_dim
    skips = {"attn": first or "mlp" in view.skips, "mlp": "attn" in view.skips}
    inputs = {sub_block: keeping.norm(skip=skip) for sub_block, skip in skips.items()}
    norms = sum(
        norm_bytes(norm, tokens, view.dim, keeping, skip=skip)
        for norm, skip in zip((view.attn_norm, view.mlp_norm), skips.values(), strict=True)
    )
    maps = tokens * width * (view.dim * _copies(view, inputs, keeping) + 4 * inner)  # 4: queries, keys, values, output
    hidden = sum(m.w.shape[1] for m in view.mlp_in)
    mlp = 2 * tokens * width * hidden  # input and output of the activation; for a gated MLP, `hidden` is twice as large
    scales = sum(not isinstance(scale, nn.Identity) for scale in (view.attn_scale, view.mlp_scale))
    return norms + maps + mlp + _attention_bytes(view, tokens, keeping) + scales * tokens * view.dim * width


def norm_bytes(norm: nn.Module, tokens: int, dim: int, keeping: Keeping, *, skip: bool) -> int:
    """Return the bytes that a norm saves: its input and two statistics a token.

    Hugging Face's RMSNorm is written out: it saves its input in float32, one statistic, and its output before the gain.
    """
    if is_written_out(norm):
        return tokens * (dim * (SINGLE + keeping.stream(skip=skip)) + SINGLE)
    return tokens * (dim * keeping.norm(skip=skip) + 2 * SINGLE)


def is_written_out(norm: nn.Module) -> bool:
    """Whether a norm is computed operation by operation, in float32, as Hugging Face's RMSNorm is."""
    return "RMSNorm" in type(norm).__name__ and type(norm).__module__.startswith("transformers.")


def _copies(view: BlockView, inputs: Mapping[str, int], keeping: Keeping) -> int:
    """How many copies of its input a block's linear maps save: one for each norm, or for each map that casts its own.

    Autocast casts the output of a norm that is in float32 once for every linear map that reads it.
    """
    found = 0
    for sub_block, norm, maps in (
        ("attn", view.attn_norm, (view.query, view.key, view.value)),
        ("mlp", view.mlp_norm, view.mlp_in),
    ):
        cast = keeping.width < SINGLE and (inputs[sub_block] == SINGLE or is_written_out(norm))
        found += len({id(one.weight) for one in maps}) if cast else 1
    return found


def _attention_bytes(view: BlockView, tokens: int, keeping: Keeping) -> int:
    """Return the bytes of the saved attention matrices, or of their rows' log-sum-exp if attention is fused."""
    if keeping.fused:
        return SINGLE * view.heads * tokens
    copy = keeping.width if keeping.width < SINGLE and keeping.device == "cuda" else 0  # fp32 softmax, then its cast
    return (copy + (SINGLE if copy else keeping.width)) * view.heads * tokens**2


def backbone_bytes(model: nn.Module, image_size: int, keeping: Keeping) -> int:
    """Return the bytes that a backbone saves for one image, including its classifier's input.

    With checkpointing this is the peak of the backward pass: the inputs of all blocks, and one block's activations.

    Example:
        >>> from skipless.models import create_model
        >>> vit = create_model("vit_small_patch16_224")
        >>> round(backbone_bytes(vit, 224, Keeping("bf16")) / 2**20, 1)
        31.8
    """
    tokens, views = token_count(model, image_size), block_views(model)
    return blocks_bytes(views, tokens, keeping) + _embedding_and_head_bytes(
        model, image_size, tokens, views[-1], keeping
    )


def blocks_bytes(views: Sequence[BlockView], tokens: int, keeping: Keeping) -> int:
    """Return the bytes that all blocks save; with checkpointing their inputs, and one block's activations."""
    blocks = [block_bytes(view, tokens, keeping, first=index == 0) for index, view in enumerate(views)]
    if not keeping.checkpointing:
        return sum(blocks)
    between = [keeping.stream(skip=index == 0 or bool(view.skips)) for index, view in enumerate(views)]
    return tokens * views[0].dim * sum(between) + max(blocks)


def _embedding_and_head_bytes(model: nn.Module, image_size: int, tokens: int, last: BlockView, keeping: Keeping) -> int:
    """Return the bytes saved before the first block and after the last."""
    image = find_vit(model).channels * image_size**2 * keeping.width
    norm = tokens * (last.dim * keeping.norm(skip="mlp" in last.skips) + 2 * SINGLE)
    if not any(isinstance(module, nn.Linear) for head in heads(model) for module in head.modules()):
        return image + norm
    # Without a cast, the classifier's input is a view that keeps all normed tokens alive.
    cast = keeping.width < keeping.norm(skip="mlp" in last.skips)
    pooled = last.dim * keeping.width * (1 if cast else tokens)
    return image + norm + pooled


def cast_bytes(module: nn.Module, keeping: Keeping) -> int:
    """Return the bytes of the trained weights' copies in half precision, which autocast makes once a step."""
    if keeping.precision == "fp32":
        return 0
    maps = (m for m in module.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.MultiheadAttention))
    return keeping.width * sum(p.numel() for m in maps for p in m.parameters(recurse=False) if p.requires_grad)
