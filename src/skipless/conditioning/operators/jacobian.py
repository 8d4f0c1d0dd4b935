"""The Jacobians of section 4 as linear operators: K_l, K^_l by the tokens, and J_l, J^_l, J by the parameters."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from skipless.conditioning.operators.attention import AttentionPrimal, closed_form
from skipless.conditioning.operators.autodiff import LinearMap, frozen_copy, linearize, token_operator
from skipless.conditioning.operators.block_stack import BlockStack, select_parameters, trace_block_stack
from skipless.conditioning.operators.given import check_given
from skipless.conditioning.operators.linear_operator import LinearOperator
from skipless.conditioning.operators.validate import as_view, check_input, check_same_dtype_and_device, check_weights
from skipless.errors import InputError
from skipless.models import block_views
from skipless.models.blocks import BlockView, SubBlock
from skipless.models.starting.first_tokens import Given
from skipless.precision import full_precision

__all__ = ["JacobianMethod", "attention_primal", "attn_jacobian", "mlp_jacobian", "param_jacobian"]

JacobianMethod = Literal["auto", "closed", "autograd"]


@torch.inference_mode(False)
@full_precision()
def attn_jacobian(
    block: nn.Module | BlockView,
    x: Float[Tensor, "*b n d"],
    skip: bool = False,
    *,
    norm: bool = False,
    method: JacobianMethod = "auto",
) -> LinearOperator:
    """K_l of Eqs. 7 and 10: the derivative of the attention's output by its input, at tokens `x`.

    The operator is that of the attention alone, with its LayerScale, without the block's skips and norms. Weights are
    copied, so that further training does not change the operator. If the module computes Eq. 4, which is checked, the
    products are those of Eq. 10, head by head. Otherwise they are torch.func's.

    Args:
        block: one block of a model, or its `BlockView`.
        x: the attention's input, `(n, d)`; for several token sets, `(b, n, d)`, the operator is block diagonal.
        skip: add the identity: K_l + I of Eq. 8; times its gain, if the block's skip is a decayed one.
        norm: include the norm before the attention, so that `x` is the norm's input. With LayerNorm K is singular,
            because the norm removes the tokens' mean and scale.
        method: `"closed"` uses Eq. 10 or raises an error; `"autograd"` uses torch.func; `"auto"` uses Eq. 10 if it can.

    Returns:
        An operator of size n d (b n d), in the tokens' dtype and on their device.

    Raises:
        InputError: if no adapter knows the block, tokens and weights do not go together or are not finite, in half
            precision or on the meta device, or `method="closed"` does not describe the attention.

    Example:
        >>> from skipless.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=1, embed_dim=24, num_heads=2, seed=0)
        >>> k = attn_jacobian(model.blocks[0], torch.randn(5, 24))
        >>> k.shape, k.matvec(torch.ones(120)).shape
        ((120, 120), torch.Size([120]))
    """
    if method not in get_args(JacobianMethod):
        raise InputError(f"method={method!r} is not one of {', '.join(map(repr, get_args(JacobianMethod)))}")
    view = as_view(block)
    tokens = _checked_tokens(view, x, "attn", norm)
    primal = closed_form(view, tokens) if method != "autograd" and not norm else None
    if primal is None and method == "closed":
        raise InputError(_no_closed_form(view) if not norm else "norm=True is outside Eq. 10; use method='autograd'")
    name = f"K of {_sub_block_name(view, 'attn', norm)}"
    if primal is None:
        jvp, vjp = linearize(frozen_copy(*_sub_block_modules(view, "attn", norm)), tokens)
        operator = token_operator(jvp, vjp, tokens, name)
    else:
        operator = token_operator(primal.jvp, primal.vjp, tokens, name)
        operator = replace(operator, dense=lambda: torch.block_diag(*primal.dense()))
    return operator.plus_identity(view.gain("attn") or 1.0) if skip else operator


@torch.inference_mode(False)
@full_precision()
def attention_primal(
    block: nn.Module | BlockView, x: Float[Tensor, "*b n d"]
) -> tuple[AttentionPrimal, Float[Tensor, "b n d"], str]:
    """The values that Eq. 10 needs at tokens `x` (A, Q, K, V of every head), the tokens as a batch, and a name.

    Raises:
        InputError: as `attn_jacobian`, and where Eq. 10 does not describe the attention.

    Example:
        >>> from skipless.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=1, embed_dim=24, num_heads=2, seed=0)
        >>> primal, _, name = attention_primal(model.blocks[0], torch.randn(5, 24))
        >>> primal.a.shape, name
        (torch.Size([2, 5, 5]), 'attn')
    """
    view = as_view(block)
    tokens = _checked_tokens(view, x, "attn", False)
    primal = closed_form(view, tokens)
    if primal is None:
        raise InputError(_no_closed_form(view))
    return primal, tokens, _sub_block_name(view, "attn", False)


@torch.inference_mode(False)
@full_precision()
def mlp_jacobian(
    block: nn.Module | BlockView, x: Float[Tensor, "*b n d"], skip: bool = False, *, norm: bool = False
) -> LinearOperator:
    """K^_l of Eq. 7: the derivative of the MLP's output by its input, at tokens `x`; arguments as in `attn_jacobian`.

    An MLP processes each token by itself, so the matrix is block diagonal with one d x d block for each token.
    `operator.blocks()` computes all of them with d products; their singular values together are those of the matrix. If
    the module mixes tokens, which is checked, `operator.blocks` is None.

    Raises:
        InputError: as `attn_jacobian`.

    Example:
        >>> from skipless.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=1, embed_dim=24, num_heads=2, seed=0)
        >>> k = mlp_jacobian(model.blocks[0], torch.randn(5, 24), skip=True)
        >>> k.shape, k.blocks().shape
        ((120, 120), torch.Size([5, 24, 24]))
    """
    view = as_view(block)
    tokens = _checked_tokens(view, x, "mlp", norm)
    jvp, vjp = linearize(frozen_copy(*_sub_block_modules(view, "mlp", norm)), tokens)
    operator = token_operator(jvp, vjp, tokens, f"K^ of {_sub_block_name(view, 'mlp', norm)}")
    if _is_tokenwise(vjp, tokens):
        operator = replace(operator, blocks=lambda: _diagonal_blocks(vjp, tokens))
    return operator.plus_identity(view.gain("mlp") or 1.0) if skip else operator


@torch.inference_mode(False)
@full_precision()
def param_jacobian(
    model: nn.Module,
    images: Given,
    params: str | Sequence[str] = "all",
    *,
    tokens: Sequence[int] | None = None,
    outputs: Sequence[int] | None = None,
    norms: bool = True,
    final_norm: bool = False,
) -> LinearOperator:
    """J, J_l or J^_l of section 4.2: the derivative of the blocks' output by parameters, at images or token ids.

    f maps the tokens that enter the first block to those that leave the last, without embedding and head (section 4.1).
    F stacks f over the images (Eq. 5). Rows are ordered by image, then token, then feature; columns are the parameters
    in the order of `named_parameters`. At full size J is m n d x p: 75,648 x 21 million for one image of ViT-Small. So
    Table 5 must have used fewer rows, and the paper does not say which. Here, `tokens` and `outputs` select them.

    Args:
        model: a model with blocks that an adapter knows; it runs in eval mode and is left unchanged.
        images: the m examples, normalised as the model expects them; of a language model, token ids `(b, n)`.
        params: `"all"`, J; `"blocks.3.attn"`, J_l; `"blocks.3.mlp"`, J^_l; `"blocks.3"`, both; or several of them.
        tokens: positions of the tokens whose output is kept (0 is the class token); all by default.
        outputs: positions of the features that are kept; all by default.
        norms: count the parameters of the norm before a sub-block as the sub-block's. All sub-blocks together then have
            all parameters of the blocks, as in section 4.2, where p is the sum of all p_l. LayerScale always belongs to
            the sub-block.
        final_norm: let f end with the norm after the last block. The paper's f does not: with LayerNorm J loses rank.

    Returns:
        An operator with m * tokens * outputs rows and one column for each parameter.

    Raises:
        InputError: if no adapter knows the model, a name is unknown, a position is out of range or named twice, there
            are no images, or images or weights are not finite, in half precision or on the meta device, or token ids
            are not the model's.

    Example:
        >>> from skipless.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=2, img_size=32, embed_dim=24, num_heads=2, seed=0)
        >>> param_jacobian(model, torch.randn(2, 3, 32, 32), "blocks.0.attn", tokens=[0]).shape
        (48, 2448)
    """
    views = block_views(model)
    check_weights(model, "")
    check_given(model, images)
    first, names = select_parameters(views, params, norms)
    x, calls, norm = trace_block_stack(model, images, views[first:], final_norm)
    stack = frozen_copy(BlockStack(views[first:], norm))[0]
    kept_tokens = _index_tensor(tokens, x.shape[1], "tokens", x)
    kept_outputs = _index_tensor(outputs, x.shape[2], "outputs", x)
    found = dict(stack.named_parameters(remove_duplicate=False))
    weights = {id(found[name]): (name, found[name]) for name in names}  # a shared parameter counts once
    sizes = [weight.numel() for _, weight in weights.values()]

    def f(flat: Tensor) -> Tensor:
        parts = zip(weights.values(), flat.split(sizes), strict=True)
        values = {name: part.view_as(weight) for (name, weight), part in parts}
        y = torch.func.functional_call(stack, values, (x, calls))
        return y[:, kept_tokens][..., kept_outputs].flatten()

    jvp, vjp = linearize(f, torch.cat([weight.flatten() for _, weight in weights.values()]))
    shape = (len(x) * len(kept_tokens) * len(kept_outputs), sum(sizes))
    chosen = params if isinstance(params, str) else ", ".join(params)
    return LinearOperator(shape, jvp, vjp, x.dtype, x.device, f"J by {chosen}")


def _checked_tokens(view: BlockView, x: Tensor, which: SubBlock, norm: bool) -> Float[Tensor, "b n d"]:
    """The tokens as a batch, copied, after checks of tokens and weights."""
    check_input(x, "x, the tokens,")
    if x.ndim not in (2, 3) or x.shape[-1] != view.dim:
        raise InputError(f"tokens x are {tuple(x.shape)}: give (n, {view.dim}) or (b, n, {view.dim}) to this block")
    for module in _sub_block_modules(view, which, norm):
        check_weights(module, _sub_block_name(view, which, False))
        check_same_dtype_and_device(x, module, "x", _sub_block_name(view, which, False))
    return x.detach().clone().reshape(-1, *x.shape[-2:])


def _sub_block_modules(view: BlockView, which: SubBlock, norm: bool) -> tuple[nn.Module, ...]:
    if which == "attn":
        return (*((view.attn_norm,) if norm else ()), view.bound_attn, view.attn_scale)
    return (*((view.mlp_norm,) if norm else ()), view.mlp, view.mlp_scale)


def _sub_block_name(view: BlockView, which: SubBlock, norm: bool) -> str:
    return f"{view.name}.{which}".lstrip(".") + (" with its norm" if norm else "")


def _no_closed_form(view: BlockView) -> str:
    return (
        f"Eq. 10 does not describe {_sub_block_name(view, 'attn', False)}: {type(view.attn).__name__} computes "
        "something else than Eq. 4 (a norm, gate or mask); attn_jacobian(..., method='autograd') has its Jacobian"
    )


def _is_tokenwise(vjp: LinearMap, x: Float[Tensor, "b n d"]) -> bool:
    """Whether no token's output depends on another token: K^T maps every second token exactly to itself."""
    u = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
    u[:, 1::2] = 0
    return not vjp(u)[:, 1::2].any()


def _diagonal_blocks(vjp: LinearMap, x: Float[Tensor, "b n d"]) -> Float[Tensor, "t d d"]:
    """The d x d Jacobian of every token; each product gives one row of all of them."""
    d = x.shape[-1]
    rows = x.new_empty(x.shape[:-1].numel(), d, d)
    unit = torch.zeros_like(x)
    for feature in range(d):
        unit[..., feature] = 1
        rows[:, feature] = vjp(unit).flatten(0, 1)
        unit[..., feature] = 0
    return rows


def _index_tensor(wanted: Sequence[int] | None, size: int, what: str, like: Tensor) -> Tensor:
    """The positions as an index tensor; each must exist and occur once."""
    positions = list(range(size) if wanted is None else wanted)
    if (
        not positions
        or len({p % size for p in positions}) < len(positions)
        or not all(-size <= p < size for p in positions)
    ):
        raise InputError(f"{what}={wanted}: give positions from 0 to {size - 1}, at least one, none twice")
    return torch.tensor(positions, device=like.device)
