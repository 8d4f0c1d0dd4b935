"""Gaussian, uniform and Haar-distributed matrices, drawn in float64.

Numbers are drawn on the generator's device (the CPU without a generator). The same seed thus gives the same weights,
whatever device or dtype the model has. The dtype is float64 because singular vectors are computed from these matrices:
the gap between the top d_h of d directions and the rest is too small for float32.
"""

import math

import torch
from jaxtyping import Float64
from torch import Generator, Tensor


def normal(*shape: int, std: float = 1.0, generator: Generator | None = None) -> Float64[Tensor, "..."]:
    """A matrix of independent N(0, std^2) entries."""
    device = generator.device if generator is not None else torch.device("cpu")
    return torch.randn(*shape, generator=generator, dtype=torch.float64, device=device) * std


def uniform(*shape: int, std: float = 1.0, generator: Generator | None = None) -> Float64[Tensor, "..."]:
    """A matrix of independent entries, uniform on +-std sqrt(3): mean 0 and the same variance as `normal`."""
    device = generator.device if generator is not None else torch.device("cpu")
    unit = torch.rand(*shape, generator=generator, dtype=torch.float64, device=device)
    return (2 * unit - 1) * (std * math.sqrt(3))


def haar(rows: int, columns: int, *, generator: Generator | None = None) -> Float64[Tensor, "rows columns"]:
    """A Haar-distributed matrix whose shorter side is orthonormal.

    The signs of R's diagonal are moved into Q. Without this step the Q of a Gaussian matrix is orthogonal but not
    uniformly distributed (Mezzadri, "How to generate random matrices from the classical compact groups", 2007).
    """
    tall = normal(max(rows, columns), min(rows, columns), generator=generator)
    q, r = torch.linalg.qr(tall)
    q = q * r.diagonal().sign()
    return q if rows >= columns else q.mT
