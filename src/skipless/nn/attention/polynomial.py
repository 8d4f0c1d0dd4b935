"""Polynomial attention (arXiv 2410.18613): a power of the logits in place of their softmax."""

import math
from collections.abc import Callable
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from skipless.choices import PolynomialScale
from skipless.errors import InputError
from skipless.nn.attention.core import AttentionCore, Call, per_head, visible
from skipless.nn.attention.powers import ROWS, power_product

_MANY_KEYS = 1024  # from so many on, no n x n matrix is made, and what a step back needs is computed again


class PolynomialAttention(AttentionCore):
    """A = s x^p, element by element, of the scaled logits x = q k^T / sqrt(c) (arXiv 2410.18613).

    No row is normalised, and weights may be negative. The weight of a key that is not seen is exactly 0. With more than
    1,024 keys the matrix is never whole: it is made tile by tile, on the way back once more. `power=1` is linear in n
    wherever all queries see the same keys or the order is causal.

    Without skips, `power=1` cannot do: its matrix has rank c at most. With the paper's initialisation x^3 / sqrt(n) has
    a diagonal in the hundreds, so the scale is then solved from the logits (`solve_attention_`).

    Args:
        power: p, 1 to 3. Powers above 3 vanish, in the paper.
        scale: s. A number is fixed, as the paper's 1/14 for 196 tokens. `"visible"` (default) is 1 / sqrt(N) with N the
            number of keys that the row's query sees, so that padding and causal order do not change it. `"learned"` is
            that times a trainable gain of each head. `"solved"` is that times a gain of each head by which the mean
            A_ii is 1; `solve_attention_` finds it on a batch, and it stays.
        heads, index, depth: see `AttentionCore`.

    Raises:
        InputError: for another power or scale.

    Example:
        >>> q = torch.ones(1, 1, 4, 4)
        >>> PolynomialAttention(2).matrix(q, q, causal=True)[0, 0, 3].tolist()  # x = 2, four keys
        [2.0, 2.0, 2.0, 2.0]
    """

    gain: Tensor | None

    def __init__(self, power: int = 3, scale: PolynomialScale | float = "visible", **place: int) -> None:
        super().__init__(**place)
        if power not in (1, 2, 3):
            raise InputError(f"power={power}: give 1, 2 or 3")
        number = math.isfinite(scale) and scale > 0 if isinstance(scale, int | float) else False
        if not number and scale not in get_args(PolynomialScale):
            raise InputError(f"scale={scale!r}: give a number above 0, or one of 'visible', 'learned', 'solved'")
        self.power, self.scale = power, scale
        self.solving = self.known = False  # known: the gains have been looked at, which waits for a device
        if scale == "learned":
            self.gain = nn.Parameter(torch.ones(self.heads))
        elif scale == "solved":
            self.register_buffer("gain", torch.full((self.heads,), torch.nan))
        else:
            self.gain = None

    def options(self) -> dict[str, Any]:
        """Power and scale."""
        return {"power": self.power, "scale": self.scale}

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """A learned gain is 1; one that is solved has to be solved again."""
        self.known = False
        if self.gain is not None:
            self.gain.fill_(1.0 if self.scale == "learned" else torch.nan)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """What is loaded may be unsolved."""
        self.known = False
        super()._load_from_state_dict(*args, **kwargs)

    def _check_solved(self) -> None:
        assert self.gain is not None
        if self.gain.is_meta:
            return
        if self.gain.isnan().any():
            raise InputError("the scale is not solved yet: call solve_attention_(model, images) on a batch first")
        self.known = True

    def attend(self, q: Tensor, k: Tensor, v: Tensor, how: Call) -> Tensor:
        """Rows in turn where there are many keys."""
        if self.solving:
            self._solve_(q, k, how)
        elif self.scale == "solved" and not self.known and not torch.compiler.is_compiling():
            self._check_solved()
        mask = how.mask
        by_key = mask is None or mask.dim() < 2 or mask.shape[-2] == 1
        plain = not how.dropout and (mask is None or mask.dtype == torch.bool)
        linear = self.power == 1 and by_key and not how.causal
        if plain and (linear or k.shape[-2] > _MANY_KEYS):
            return self._powers(q, k, v, how, by_key)
        if k.shape[-2] <= _MANY_KEYS:
            return self._rows(q, k, v, how, 0)
        return self._in_turn(q, k, v, how, by_key)

    def _powers(self, q: Tensor, k: Tensor, v: Tensor, how: Call, by_key: bool) -> Tensor:
        """Where no weight is needed by itself: s goes into the queries, keys that nobody sees are 0."""
        mask, seen = how.mask, k.shape[-2]
        if mask is not None:
            seen = mask.sum(-1, keepdim=True)
        elif how.causal:
            seen = torch.arange(1, q.shape[-2] + 1, device=q.device)[:, None]
        s = self._factor(seen, q) ** (1 / self.power) * how.scale
        q = q * (s.to(q.dtype) if isinstance(s, Tensor) else s)
        if mask is not None and by_key:
            k = k.where(mask.reshape(*mask.shape[:-2], mask.shape[-1], 1), 0.0)
            mask = None
        out = power_product(q, k, v, self.power, causal=how.causal, mask=mask)
        return out if self.gain is None else out * per_head(self.gain, out)

    def _in_turn(self, q: Tensor, k: Tensor, v: Tensor, how: Call, by_key: bool) -> Tensor:
        """Dropout and biases on the logits need the weights: a block of rows at a time, made again on the way back."""
        mask = how.mask
        again = torch.is_grad_enabled() and any(part.requires_grad for part in (q, k, v))
        call: Callable[..., Tensor] = _again if again else _once
        parts = []
        for start in range(0, q.shape[-2], ROWS):
            end = min(start + ROWS, q.shape[-2])
            seen = end if how.causal else k.shape[-2]
            part = mask if mask is None or by_key else mask[..., start:end, :]
            keys, values = k[..., :seen, :], v[..., :seen, :]
            parts.append(call(self._rows, q[..., start:end, :], keys, values, how._replace(mask=part), start))
        return torch.cat(parts, -2)

    def _rows(self, q: Tensor, k: Tensor, v: Tensor, how: Call, start: int) -> Tensor:
        """What queries from place `start` on give."""
        mask = how.mask
        if how.causal:
            mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril(start)
        x = (q * how.scale) @ k.mT
        if mask is not None and mask.dtype != torch.bool:
            x = x + mask.masked_fill(mask == -torch.inf, 0.0)
        x = x if self.power == 1 else x * x if self.power == 2 else x * x * x
        a = self._scaled(x, mask)
        if mask is not None:
            a = a.masked_fill(~visible(mask), 0.0)
        return functional.dropout(a, how.dropout) @ v

    def _scaled(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Rows times s and the gains."""
        s = self._factor(x.shape[-1] if mask is None else visible(mask).sum(-1, keepdim=True), x)
        x = x * (s.to(x.dtype) if isinstance(s, Tensor) else s)
        return x if self.gain is None else x * per_head(self.gain, x)

    def _factor(self, seen: Tensor | int, like: Tensor) -> Tensor | float:
        """s without a gain, of rows that see so many keys."""
        if isinstance(self.scale, int | float):
            return float(self.scale)
        if isinstance(seen, int):
            return seen**-0.5
        return seen.clamp_min(1).to(torch.promote_types(like.dtype, torch.float32)).rsqrt()

    @torch.no_grad()
    def _solve_(self, q: Tensor, k: Tensor, how: Call) -> None:
        """Set the gain of each head so that the mean A_ii is 1."""
        assert self.gain is not None
        n, m, mask = q.shape[-2], k.shape[-2], how.mask
        if n != m:
            raise InputError("a scale is solved on whole sequences: give a batch without a cache")
        diagonal = (q.double() * k.double()).sum(-1) * how.scale
        if mask is not None and mask.dtype != torch.bool:
            diagonal = diagonal + mask.masked_fill(mask == -torch.inf, 0.0).expand(*q.shape[:-1], m).diagonal(
                dim1=-2, dim2=-1
            )
        if how.causal:
            seen = torch.arange(1, n + 1, device=q.device).double()
        else:
            seen = diagonal.new_full((), m) if mask is None else visible(mask).sum(-1).clamp_min(1).double()
        weights = diagonal**self.power * seen.rsqrt()
        there = torch.ones_like(weights, dtype=torch.bool)
        if mask is not None:
            there = visible(mask).expand(*q.shape[:-1], m).diagonal(dim1=-2, dim2=-1)
        heads = weights.dim() - 2
        axes = [axis for axis in range(weights.dim()) if axis != heads or self.heads == 1]
        mean = (weights * there).sum(axes) / there.sum(axes)
        if not (mean > 0).all():
            raise InputError(
                f"the mean of x_ii^{self.power} is {mean.min().item():.3g} in block {self.index}: no scale makes the "
                "mean diagonal 1; start queries and keys by initialize_, or use an even power"
            )
        self.gain.copy_(mean.reciprocal().reshape(-1))


def _once(function: Callable[..., Tensor], *given: Any) -> Tensor:
    return function(*given)


def _again(function: Callable[..., Tensor], *given: Any) -> Tensor:
    return checkpoint(function, *given, use_reentrant=False)
