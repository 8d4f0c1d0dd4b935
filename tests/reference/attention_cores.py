"""Naive float64 twins of the cores of attention: whole matrices, loops, written from the formulas alone."""

import math

import torch
from torch import Tensor


def dense_mask(mask: Tensor | None, causal: bool, b: int, h: int, n: int, m: int) -> tuple[Tensor, Tensor]:
    """Which keys are seen, and what is added to logits, both (b, h, n, m)."""
    seen, bias = torch.ones(b, h, n, m, dtype=torch.bool), torch.zeros(b, h, n, m, dtype=torch.double)
    if mask is not None and mask.dtype == torch.bool:
        seen = seen & mask
    elif mask is not None:
        full = mask.double().expand(b, h, n, m)
        seen, bias = full > -1e30, torch.where(full > -1e30, full, 0.0)
    if causal:
        seen = seen & (torch.arange(m)[None] <= torch.arange(n)[:, None] + m - n)
    return seen, bias


def logits(q: Tensor, k: Tensor) -> Tensor:
    return q.double() @ k.double().mT / math.sqrt(q.shape[-1])


def softmax(x: Tensor, seen: Tensor) -> Tensor:
    weights = torch.where(
        seen, (x - torch.where(seen, x, -torch.inf).amax(-1, keepdim=True).clamp_min(-1e300)).exp(), 0
    )
    return weights / weights.sum(-1, keepdim=True).clamp_min(1e-300)


def polynomial(x: Tensor, seen: Tensor, power: int, scale: float | None) -> Tensor:
    rows = []
    for i in range(x.shape[-2]):
        visible = seen[..., i, :].sum(-1, keepdim=True).double()
        s = scale if scale is not None else 1 / visible.clamp_min(1).sqrt()
        rows.append(torch.where(seen[..., i, :], s * x[..., i, :] ** power, 0))
    return torch.stack(rows, -2)


def shaped(x: Tensor, bias: Tensor, seen: Tensor, alpha: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
    a, b, c = (one.double()[:, None, None] for one in (alpha, beta, gamma))
    eye = torch.eye(x.shape[-1], dtype=torch.double)
    return a * eye + b * softmax(x + bias, seen) - c * softmax(bias, seen)


def orthogonal(q: Tensor, k: Tensor, seen: Tensor, alpha: float) -> Tensor:
    here = seen[..., :1, :].mT
    q, k = q.double() * here, k.double() * here
    return torch.linalg.matrix_exp(alpha / math.sqrt(q.shape[-1]) * (q @ k.mT - k @ q.mT))


def exponential_kernel(n: int, step: int, depth: int, gamma: float) -> Tensor:
    if step == 0:
        return torch.eye(n, dtype=torch.double)
    alpha = math.sqrt(1 - math.exp(-2 * gamma))
    g = -0.5 * math.log(1 - alpha ** (2 * step / depth))
    return torch.tensor([[math.exp(-g * abs(i - j)) for j in range(n)] for i in range(n)], dtype=torch.double)


def uniform_kernel(n: int, rho: float) -> Tensor:
    return (1 - rho) * torch.eye(n, dtype=torch.double) + rho * torch.ones(n, n, dtype=torch.double)


def signal_preserving(x: Tensor, bias: Tensor, seen: Tensor, before: Tensor, now: Tensor, causal: bool) -> Tensor:
    if causal:
        a = torch.linalg.cholesky(now) @ torch.linalg.inv(torch.linalg.cholesky(before))
        a = a.clamp_min(1e-30).tril()
    else:

        def root(s: Tensor) -> Tensor:
            u, d, vh = torch.linalg.svd(s)
            return u @ torch.diag(d.sqrt()) @ vh

        a = (root(now) @ torch.linalg.inv(root(before))).clamp_min(1e-30)
    d = a.sum(-1, keepdim=True)
    return d * softmax(x + bias + (a / d).clamp_min(1e-300).log(), seen & (a > 0))


def conditioned(x: Tensor, ratio: float) -> Tensor:
    u, s, vh = torch.linalg.svd(x.double(), full_matrices=False)
    return x.double() + ratio * s[..., :1, None] * (u @ vh)
