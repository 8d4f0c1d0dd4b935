"""Twins of the quantisation evaluator, number by number in Python's integers and float64."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor


def integers(x: Tensor, bits: int, *, symmetric: bool, rows: bool) -> tuple[Tensor, Tensor]:
    """int32 counted from what stands for 0, and the float32 scale of each row or of all."""
    flat = x.detach().reshape(-1, x.shape[-1])
    groups: Any = list(flat) if rows else [flat]
    found, scales = [], []
    scale: Any
    for group in groups:
        low, high = group.min(), group.max()
        if symmetric:
            most = 2 ** (bits - 1) - 1
            scale = torch.maximum(-low, high) / most
            bounds = (-most, most)
        else:
            low, high = min(low, torch.zeros_like(low)), max(high, torch.zeros_like(high))
            scale = (high - low) / (2**bits - 1)
            zero = 0 if scale == 0 else int((-low / scale).round())
            bounds = (-zero, 2**bits - 1 - zero)
        scale = torch.ones(()) if scale == 0 else scale
        found.append((group / scale).round().to(torch.int32).clamp(*bounds))
        scales.append(scale)
    stacked = torch.stack(found).reshape(x.shape)
    shape = (*x.shape[:-1], 1) if rows else (1,)
    return stacked, torch.stack(scales).reshape(shape)


def rounded(x: Tensor, bits: int, *, rows: bool, symmetric: bool = True) -> Tensor:
    """Numbers on their grid."""
    q, scale = integers(x, bits, symmetric=symmetric, rows=rows)
    return q.to(x.dtype) * scale


def integer_linear(
    x: Tensor, weight: Tensor, bias: Tensor, bits_w: int, bits_a: int, *, symmetric: bool, by_row: bool, by_token: bool
) -> Tensor:
    """A linear layer as a kernel of int8 computes it: a product of integers in int32, then the scales."""
    q, of_x = integers(x, bits_a, symmetric=symmetric, rows=by_token)
    w, of_w = integers(weight, bits_w, symmetric=symmetric, rows=by_row)
    product = np.einsum("...i,oi->...o", q.numpy().astype(np.int32), w.numpy().astype(np.int32), dtype=np.int32)
    return torch.from_numpy(product).float() * of_x * of_w.reshape(-1) + bias.detach()


def kurtosis(x: Tensor, definition: str) -> float:
    """Excess kurtosis by loops over float64 numbers."""
    a = x.double().numpy()
    a = a[None] if a.ndim == 2 else a
    if definition == "pooled":
        return _standard(a.ravel())
    if definition == "sequence":
        return sum(_softened(one.ravel()) for one in a) / len(a)
    if definition == "token":
        tokens = [row for one in a for row in one]
        return sum(max(float(np.mean(row**4)) / float(np.var(row, ddof=1)) ** 2 - 3, 0.0) for row in tokens) / len(
            tokens
        )
    squares = np.array([np.mean(a[..., i] ** 2) for i in range(a.shape[-1])])
    return float(np.mean((squares / squares.mean()) ** 2) - 1)


def _standard(values: np.ndarray) -> float:
    apart = values - values.mean()
    return float(np.mean(apart**4) / np.mean(apart**2) ** 2 - 3)


def _softened(values: np.ndarray) -> float:
    apart = values - values.mean()
    return float(np.mean(apart**4) / (np.var(values, ddof=1) ** 2 + 1e-6) - 3)


def noise_ratio(x: Tensor, bits: int, per: str) -> float:
    """SQNR in dB, group by group in float64."""
    flat = x.double().reshape(-1, x.shape[-1]).numpy()
    groups = {"tensor": [flat], "channel": list(flat.T), "token": list(flat)}[per]
    noise = 0.0
    for group in groups:
        scale = np.abs(group).max() / (2 ** (bits - 1) - 1)
        noise += float(np.sum((group - np.rint(group / scale) * scale) ** 2))
    return 10 * math.log10(float(np.sum(flat**2)) / noise)
