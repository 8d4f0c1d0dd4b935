"""Conditioned embedded tokens (arXiv 2505.12789): the tokens that enter a model, plus their polar factor."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from skipless.errors import InputError

# Odd polynomial p(x) = 1.5 x - 0.5 x^3 (Newton-Schulz): p^k(x) -> 1 for 0 < x < sqrt 3. The first steps double small x
# by up to 1.5 only, so a quintic with a larger slope comes before it.
_LIFT = (3.4445, -4.775, 2.0315)


class ConditionedTokens(nn.Module):
    """X + C with C = ratio s_1 U V^T of X = U S V^T, s_1 the largest singular value: kappa(X + C) <= 1 + 1 / ratio.

    U V^T, the polar factor of X, is found by Newton-Schulz steps: products of matrices, without an SVD. Singular values
    that the steps do not reach, below about 1e-4 of the largest, are lifted in part. There are no parameters.

    U V^T mixes rows: every token changes with every other. So it is for bidirectional models alone.

    Args:
        ratio: 1 is the paper's C, kappa <= 2; 0.5 gives kappa <= 3, and tokens change less.
        detach: treat C as a constant on the way back. The paper does not say; by default C is differentiated.
        steps: of Newton-Schulz.
        skip: tokens at the front that stay as they are, and have no part in C: 1 leaves a class token alone.

    Raises:
        InputError: for a ratio that is not above 0, or steps below 1.

    Example:
        >>> x = torch.diag(torch.tensor([4.0, 1.0, 0.25]))[None]
        >>> [round(s, 3) for s in torch.linalg.svdvals(ConditionedTokens()(x))[0].tolist()]
        [8.0, 5.0, 4.25]
    """

    def __init__(self, ratio: float = 1.0, *, detach: bool = False, steps: int = 20, skip: int = 0) -> None:
        super().__init__()
        if not (math.isfinite(ratio) and ratio > 0):
            raise InputError(f"ratio={ratio}: give a number above 0 (1 is the paper's, kappa <= 2)")
        if steps < 1 or skip < 0:
            raise InputError(f"steps={steps}, skip={skip}: give steps >= 1 and skip >= 0")
        self.ratio, self.detach, self.steps, self.skip = ratio, detach, steps, skip

    def forward(self, x: Float[Tensor, "b n d"], padding: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, "b n d"]:
        """Map tokens to conditioned tokens, in their own dtype.

        Args:
            x: the tokens.
            padding: True at padding, which stays as it is and has no part in C.
        """
        with torch.autocast(x.device.type, enabled=False):
            wide = x if x.dtype == torch.float64 else x.float()
            used = torch.zeros_like(wide[..., :1])
            used[:, self.skip :] = 1
            if padding is not None:
                used = used * ~padding[..., None]
            part = wide * used
            c = self.ratio * _top(part) * polar_factor(part, self.steps) * used
            return (wide + (c.detach() if self.detach else c)).to(x.dtype)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"ratio={self.ratio}, detach={self.detach}, steps={self.steps}, skip={self.skip}"


def polar_factor(x: Float[Tensor, "b n d"], steps: int = 20) -> Float[Tensor, "b n d"]:
    """U V^T of X = U S V^T, by Newton-Schulz; 0 of 0.

    Example:
        >>> polar_factor(torch.diag(torch.tensor([-2.0, 0.5]))[None])[0].round(decimals=5).tolist()
        [[-1.0, 0.0], [0.0, 1.0]]
    """
    wide = x.shape[-2] <= x.shape[-1]
    y = x if wide else x.mT
    size = torch.linalg.matrix_norm(y, keepdim=True)
    y = y / torch.where(size > 0, size, 1.0)
    lifts = max(0, steps - 8)
    for step in range(steps):
        gram = y @ y.mT
        if step < lifts:
            a, b, c = _LIFT
            y = a * y + (b * gram + c * gram @ gram) @ y
        else:
            y = 1.5 * y - 0.5 * gram @ y
    return y if wide else y.mT


def _top(x: Float[Tensor, "b n d"], steps: int = 60) -> Float[Tensor, "b 1 1"]:
    """The largest singular value: x^T x to a power by repeated products of one vector, differentiable at the end."""
    with torch.no_grad():
        v = (
            x.new_ones(*x.shape[:-2], x.shape[-1], 1)
            + torch.linspace(0, 1, x.shape[-1], device=x.device).to(x)[:, None]
        )
        for _ in range(steps):
            v = x.mT @ (x @ v)
            size = v.norm(dim=-2, keepdim=True)
            v = v / torch.where(size > 0, size, 1.0)
        u = x @ v
        size = u.norm(dim=-2, keepdim=True)
        u = u / torch.where(size > 0, size, 1.0)
    return u.mT @ x @ v
