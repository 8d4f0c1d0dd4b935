"""Attention matrices of a block on given tokens, and the scale of its logits that gives them a mean diagonal."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.models.blocks import BlockView

_WIDEST = math.log(1e4)  # logits are scaled by at most this factor, up or down
_GRID, _HALVINGS = 31, 14
_MEASURED = 2**24  # entries of attention matrices at a time, 64 MB in float32
_SATURATED = 0.95  # of the largest diagonal that any scale gives; to come closer, logits would grow without bound
_SOLVED = 2**20  # entries on which a scale is solved: some 60 softmaxes of them
_ROWS = 64  # of an image that are measured at the least, of many images
_ALIKE = 0.01  # a diagonal that no scale lifts further above that of equal tokens: what is there is rounding


def head_logits(
    view: BlockView, x: Float[Tensor, "b n d"], queries: Int[Tensor, " r"] | None = None
) -> Float[Tensor, "b h r n"]:
    """The logits of every head for tokens that have been through the block's norm, with biases and qk-norm.

    Args:
        view: of the block.
        x: the tokens.
        queries: places of the tokens whose rows are wanted; all by default.

    Returns:
        What the softmax is taken of, without the block's bias (`attention_bias`), which no scale of weights changes.
    """
    q, k = queries_keys(view, x, queries)
    return (q * view.logit_scale) @ grouped(view, k).mT


def queries_keys(
    view: BlockView, x: Float[Tensor, "b n d"], queries: Int[Tensor, " r"] | None = None
) -> tuple[Float[Tensor, "b h r c"], Float[Tensor, "b k n c"]]:
    """Queries and keys of every head, as they meet: normed and rotated where the block does so.

    Args:
        view: of the block.
        x: tokens that have been through the block's norm.
        queries: places of the tokens whose queries are wanted; all by default.
    """
    rotate = view.context.rotate
    asking = x if queries is None or rotate is not None else x[:, queries]
    q = _heads(asking @ view.w_q, view.query.b, view.heads, view.query_norm)
    k = _heads(x @ view.w_k, view.key.b, view.key_heads, view.key_norm)
    if rotate is not None:
        q, k = rotate(q), rotate(k)
        q = q if queries is None else q[:, :, queries]
    return q, k


def grouped(view: BlockView, x: Float[Tensor, "b k n c"]) -> Float[Tensor, "b h n c"]:
    """Keys or values for every query head: those of a group repeated."""
    return x.repeat_interleave(view.heads // view.key_heads, dim=1)


def attention(view: BlockView, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b h n n"]:
    """Attention matrices of every head for tokens that have been through the block's norm, in float64."""
    if view.core is not None:
        q, k = queries_keys(view, x)
        k = grouped(view, k)
        bias = None if view.context.bias is None else attention_bias(view, x).double()
        return view.core.matrix(q.double(), k.double(), mask=bias, scale=view.logit_scale)
    return (head_logits(view, x) + attention_bias(view, x)).double().softmax(-1)


def attention_bias(view: BlockView, x: Tensor, queries: Int[Tensor, " r"] | None = None) -> Float[Tensor, "*hrn"]:
    """What a block adds to its logits: relative positions, and -inf where a token is not seen; 0 if nothing."""
    bias = view.context.bias
    if bias is None:
        return x.new_zeros(())
    return (bias if queries is None else bias[..., queries, :]).to(x)


def attention_matrices(view: BlockView, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b h n n"]:
    """Attention matrices of every head for tokens that have been through the block's norm, in the tokens' dtype."""
    if view.core is not None:
        return attention(view, x).to(x.dtype)
    return (head_logits(view, x) + attention_bias(view, x)).softmax(-1)


@torch.no_grad()
def mean_diagonals(view: BlockView, x: Float[Tensor, "b n d"]) -> Float[Tensor, " h"]:
    """Mean A_ii of every head for tokens that have been through the block's norm."""
    parts = x.split(max(1, _MEASURED // (view.heads * x.shape[1] ** 2)))
    found = [attention_matrices(view, part).diagonal(dim1=2, dim2=3).mean(2) for part in parts]
    return torch.cat(found).double().mean(0).cpu()


@torch.no_grad()
def centre_queries_(view: BlockView, x: Float[Tensor, "b n d"]) -> None:
    """Measure queries from the mean token: set their bias to -mean(x) W_Q. A map without biases stays as it is.

    What all tokens share, m, gives every query the same part, and with it a preference for the same keys, whichever
    token asks: (m + e_i) M (m + e_j) = ... + m M e_j. That is the larger part of the logits' noise where tokens have
    grown alike, and no scale lifts the diagonal above it. Without m in the queries it is gone; what m adds to the keys
    is the same for all keys of a row, and softmax does not see it.

    Args:
        view: of the block.
        x: tokens that have been through the block's norm.
    """
    bias = view.query.b
    if bias is not None:
        mean = x.double().mean((0, 1))
        bias.copy_(-(mean @ view.w_q.double()))


@torch.no_grad()
def scale_logits_(view: BlockView, x: Float[Tensor, "b n d"], target: float | Sequence[float]) -> Float[Tensor, " h"]:
    """Scale W_Q and W_K of every head so that the mean diagonal of its attention is the target, as far as it can be.

    The scale of logits is what beta is when alpha / beta is fixed. Heads that share a key are scaled by W_Q alone. With
    qk-norm one factor serves all heads, in the norm of the queries. Where no scale reaches the target, one that nearly
    gives the most is taken, and none where tokens are exactly alike and no scale changes anything. Of many images some
    are measured, and of many tokens some rows, evenly spaced.

    Args:
        view: of the block.
        x: tokens that have been through the block's norm.
        target: mean diagonal, between 0 and 1; one, or one a head. With qk-norm the mean of these is aimed at.

    Returns:
        The mean diagonals that were reached.

    Raises:
        InputError: for qk-norm whose norm has no weight to scale, and for maps that are computed.
    """
    check_scalable(view)
    count = x.shape[1]
    x = x[: max(1, _SOLVED // (view.heads * count * min(count, _ROWS)))]
    rows = max(1, min(count, _SOLVED // (view.heads * count * len(x))))
    queries = (torch.arange(rows, device=x.device) * count + count // 2) // rows
    logits = head_logits(view, x, queries).float()
    bias = attention_bias(view, logits, queries)
    together = not isinstance(view.query_norm, nn.Identity)

    def reached(log_scale: Float64[Tensor, " h"]) -> Float64[Tensor, " h"]:
        scaled = logits * log_scale.exp().to(logits)[None, :, None, None] + bias
        own = (scaled.take_along_dim(queries[None, None, :, None], 3)[..., 0] - scaled.logsumexp(-1)).exp()
        found = own.double().mean((0, 2)).cpu()
        return found.mean().expand_as(found) if together else found

    targets = torch.tensor(target, dtype=torch.float64, device="cpu").expand(view.heads)
    log_scale = _solve(
        reached, targets.mean().expand_as(targets) if together else targets, _uniform(bias, queries, count)
    )
    if together:
        _scale_norm_(view, log_scale[0].exp().item())
    else:
        _scale_heads_(view, log_scale.exp())
    return reached(log_scale)


def _uniform(bias: Float[Tensor, "*hrn"], queries: Int[Tensor, " r"], count: int) -> float:
    """The mean diagonal of attention that looks at all tokens alike: where some are masked, more than 1 / n."""
    if bias.ndim == 0:
        return 1 / count
    own = bias.double().softmax(-1).take_along_dim(queries[None, :, None], 2)
    return own.mean().item()


def _solve(
    reached: Callable[[Float64[Tensor, " h"]], Float64[Tensor, " h"]], targets: Float64[Tensor, " h"], uniform: float
) -> Float64[Tensor, " h"]:
    """Logarithms of the least scale that reaches the target; where none does, of one that nearly reaches the most."""
    grid = torch.linspace(-_WIDEST, _WIDEST, _GRID, dtype=torch.float64, device="cpu")
    values = torch.stack([reached(point.expand_as(targets)) for point in grid])
    most = values.amax(0)
    goal = (uniform + _SATURATED * (most - uniform)).minimum(targets)
    place = (values >= goal).int().argmax(0)
    high, low = grid[place], grid[(place - 1).clamp_min(0)]
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        above = reached(middle) >= goal
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return torch.where(most > uniform + _ALIKE, high, 0.0)


def _scale_heads_(view: BlockView, scale: Float[Tensor, " h"]) -> None:
    shared = view.heads != view.key_heads
    for linear, power in ((view.query, 1.0 if shared else 0.5), (view.key, 0.0 if shared else 0.5)):
        factor = scale.pow(power)[: view.key_heads if linear is view.key else view.heads]
        factor = factor.repeat_interleave(view.head_dim).to(linear.weight)
        linear.w.mul_(factor)
        if linear.b is not None:
            linear.b.mul_(factor)


def _scale_norm_(view: BlockView, scale: float) -> None:
    for parameter in view.query_norm.parameters():
        parameter.mul_(scale)


def check_scalable(view: BlockView) -> None:
    """Refuse qk-norm whose norm has no weight to scale, and maps that are computed by a parametrization.

    Raises:
        InputError: if that is so.
    """
    view.query.check_stored()
    view.key.check_stored()
    if not isinstance(view.query_norm, nn.Identity) and next(view.query_norm.parameters(), None) is None:
        raise InputError(
            f"{view.name} has qk-norm without a weight: its logits cannot be scaled; use attention_diagonal=None"
        )


def _heads(x: Tensor, bias: Tensor | None, heads: int, norm: nn.Module) -> Float[Tensor, "b h n k"]:
    x = x if bias is None else x + bias
    return norm(x.unflatten(-1, (heads, -1)).transpose(1, 2))
