"""A linear map in integers: what an int8 kernel computes, in floats that hold every sum of products exactly.

y = s_x s_w (q_x q_w^T) + b, where q are integers of at most eight bits and the sum is one of integers. A float holds
integers exactly up to 2^24 (float32) or 2^53 (float64). Longer sums are cut into pieces and added in int32.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from skipless.evaluators.quantisation.rounding.grid import Grid
from skipless.evaluators.quantisation.rounding.protocol import Rule, straight_through


def quantised_linear(
    x: Float[Tensor, "*b i"], weight: Float[Tensor, "o i"], bias: Tensor | None, rule: Rule, *, inner: bool = False
) -> Float[Tensor, "*b o"]:
    """x W^T + b with rounded weights, rounded activations or both.

    It is computed in float32, or in float64 where x or W is, and given in the dtype that the unquantised map has, under
    autocast, too. Gradients pass the rounding as if it were not there (straight-through).

    Args:
        x: activations.
        weight: rows are output channels.
        bias: is added as it is.
        rule: bits, scales, ranges.
        inner: whether x is what the rule has a second range for.
    """
    if rule.watch is not None:
        rule.watch(x.detach(), inner)
        return functional.linear(x, weight, bias)
    exact = torch.promote_types(torch.promote_types(x.dtype, weight.dtype), torch.float32)
    device = x.device.type
    given = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    with torch.autocast(device, enabled=False):
        x, weight = x.to(exact), weight.to(exact)
        if rule.how.activations is None or rule.how.weights is None:
            y = _half_rounded(x, weight, rule, inner)
        else:
            y = _integer_product(x, weight, rule.input_grid(x.detach(), inner=inner), rule.weight_grid(weight.detach()))
        return (y if bias is None else y + bias.to(exact)).to(given)


def rounded_weight(rows: Tensor, rule: Rule) -> Tensor:
    """A weight on its grid."""
    if rule.how.weights is None or rule.watch is not None:
        return rows
    return straight_through(rows, rule.weight_grid(rows.detach()).rounded(rows))


def _half_rounded(x: Tensor, weight: Tensor, rule: Rule, inner: bool) -> Tensor:
    if rule.how.activations is not None:
        x = straight_through(x, rule.input_grid(x.detach(), inner=inner).rounded(x))
    return functional.linear(x, rounded_weight(weight, rule))


def _integer_product(x: Tensor, weight: Tensor, of_x: Grid, of_w: Grid) -> Tensor:
    q = straight_through(x / of_x.scale, of_x.integers(x))
    w = straight_through(weight / of_w.scale, of_w.integers(weight))
    return exact_product(q, w) * of_x.scale * of_w.scale.reshape(-1)


def exact_product(q: Float[Tensor, "*b i"], w: Float[Tensor, "o i"]) -> Float[Tensor, "*b o"]:
    """q w^T for integers of at most eight bits kept in floats; every sum is exact, as in int32."""
    most = (2**24 if q.dtype == torch.float32 else 2**53) // (255 * 255)
    if q.shape[-1] <= most:
        return functional.linear(q, w)
    pieces = [functional.linear(*pair) for pair in zip(q.split(most, -1), w.split(most, -1), strict=True)]
    total = torch.stack([piece.detach().to(torch.int32) for piece in pieces]).sum(0, dtype=torch.int32).to(q.dtype)
    return straight_through(torch.stack(pieces).sum(0), total)
