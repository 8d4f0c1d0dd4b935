"""(Q K^T)^p V, element by element, without an n x n matrix: a tile at a time, computed again on the way back."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

ROWS = 256
"""Queries of a tile; on other devices than a CPU at least as many."""
_KEYS = 256  # of a tile on a CPU: with two heads a thread it fits a core's cache
_NUMBERS = 2**24  # of a tile elsewhere


def power_product(
    q: Float[Tensor, "*b n c"],
    k: Float[Tensor, "*b m c"],
    v: Float[Tensor, "*b m e"],
    power: int,
    *,
    causal: bool = False,
    mask: Bool[Tensor, "..."] | None = None,
) -> Float[Tensor, "*b n e"]:
    """The p-th power of each logit, times the values; the weight of a key that is not seen is 0.

    p = 1 is linear in n. Other powers keep queries, keys and values for the way back, and no tile.

    Args:
        q: queries, scaled.
        k: keys.
        v: values.
        power: p, 1 to 3.
        causal: query i sees no key after i; then n = m, and there is no mask.
        mask: True where a query sees a key, of two dimensions or more.
    """
    if power == 1 and mask is None:
        return _causal_product(q, k, v) if causal else q @ (k.mT @ v)
    device = q.device.type
    if torch.is_autocast_enabled(device):
        q, k, v = (part.to(torch.get_autocast_dtype(device)) for part in (q, k, v))
    if mask is not None or device != "cpu" or torch.compiler.is_compiling():
        return _PowerProduct.apply(q, k, v, mask, power, causal)
    flat = [part.reshape(-1, *part.shape[-2:]).split(2 * torch.get_num_threads()) for part in (q, k, v)]
    heads = [_PowerProduct.apply(*group, None, power, causal) for group in zip(*flat, strict=True)]
    return torch.cat(heads).reshape(*q.shape[:-1], v.shape[-1])


def _causal_product(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """tril(Q K^T) V: what earlier queries see is a sum of k v^T."""
    before, parts = q.new_zeros(*k.shape[:-2], k.shape[-1], v.shape[-1]), []
    for rows in _slices(q.shape[-2], ROWS):
        queries, keys, values = q[..., rows, :], k[..., rows, :], v[..., rows, :]
        parts.append(queries @ before + (queries @ keys.mT).tril() @ values)
        before = before + keys.mT @ values
    return torch.cat(parts, -2)


def _slices(n: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def _tiles(q: Tensor, k: Tensor, causal: bool) -> Iterator[tuple[int, slice, int, slice]]:
    """Queries and keys of each tile, with the numbers of their blocks, so that both appear in order."""
    rows, keys = ROWS, _KEYS
    if q.device.type != "cpu":
        keys = k.shape[-2]
        rows = max(ROWS, _NUMBERS // (keys * q.shape[:-2].numel()))
    for j, column in enumerate(_slices(k.shape[-2], keys)):
        for i, row in enumerate(_slices(q.shape[-2], rows)):
            if not causal or column.start < row.stop:
                yield i, row, j, column


class _PowerProduct(torch.autograd.Function):
    """Both ways by ordinary operations, so that `torch.func` and second derivatives know it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, power: int, causal: bool) -> Tensor:
        out: dict[int, Tensor] = {}
        with torch.autocast(q.device.type, enabled=False):
            for i, rows, _, keys in _tiles(q, k, causal):
                x = _hide(q[..., rows, :] @ k[..., keys, :].mT, rows, keys, mask, causal)
                _add(out, i, x.pow_(power) @ v[..., keys, :])
        return torch.cat([*out.values()], -2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *saved, ctx.power, ctx.causal = inputs
        ctx.save_for_backward(*saved)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (q, k, v, mask), p, g = ctx.saved_tensors, ctx.power, grads[0].contiguous()
        multiply = torch.mul if torch.is_grad_enabled() else Tensor.mul_  # a second derivative needs what was there
        of_q, of_k, of_v = {}, {}, {}
        for i, rows, j, keys in _tiles(q, k, ctx.causal):
            queries, grad = q[..., rows, :], g[..., rows, :]
            x = _hide(queries @ k[..., keys, :].mT, rows, keys, mask, ctx.causal)
            slope = grad @ v[..., keys, :].mT  # by the weights
            if p == 1:
                slope, weights = _hide(slope, rows, keys, mask, ctx.causal), x
            elif p == 2:
                slope, weights = multiply(slope, x), multiply(x, x)
            else:
                square = x * x
                slope, weights = multiply(slope, square), multiply(square, x)
            _add(of_q, i, slope @ k[..., keys, :])
            _add(of_k, j, slope.mT @ queries)
            _add(of_v, j, weights.mT @ grad)
        dq, dk, dv = (torch.cat([*parts.values()], -2) for parts in (of_q, of_k, of_v))
        return dq * p, dk * p, dv, None, None, None


def _add(sums: dict[int, Tensor], place: int, part: Tensor) -> None:
    sums[place] = sums[place].add_(part) if place in sums else part


def _hide(x: Tensor, rows: slice, keys: slice, mask: Tensor | None, causal: bool) -> Tensor:
    """Logits, or slopes, of a tile, 0 where a key is not seen."""
    if causal:
        return x.tril(rows.start - keys.start) if keys.stop > rows.start + 1 else x
    if mask is None:
        return x
    return x.masked_fill(~(mask if mask.shape[-2] == 1 else mask[..., rows, :])[..., keys], 0.0)
