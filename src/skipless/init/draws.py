"""The random matrices that the scheme is made of, drawn and factored in float64.

Draws happen on the generator's device (the CPU without one), so the same seed gives the same weights whatever device
or dtype the model has; singular vectors are taken in float64 because the top d_h of d directions are separated by gaps
that float32 does not resolve.
"""

import math

import torch
from jaxtyping import Float64
from torch import Generator, Tensor


def normal(*shape: int, std: float = 1.0, generator: Generator | None = None) -> Float64[Tensor, "..."]:
    """Independent N(0, std^2) entries."""
    device = generator.device if generator is not None else torch.device("cpu")
    return torch.randn(*shape, generator=generator, dtype=torch.float64, device=device) * std


def uniform(*shape: int, std: float = 1.0, generator: Generator | None = None) -> Float64[Tensor, "..."]:
    """Independent entries, uniform on +-std sqrt(3): mean 0 and the same variance as `normal`."""
    device = generator.device if generator is not None else torch.device("cpu")
    unit = torch.rand(*shape, generator=generator, dtype=torch.float64, device=device)
    return (2 * unit - 1) * (std * math.sqrt(3))


def haar(rows: int, columns: int, *, generator: Generator | None = None) -> Float64[Tensor, "rows columns"]:
    """A Haar-distributed matrix whose shorter side is orthonormal.

    The signs of R's diagonal are moved into Q: without that, the QR of a Gaussian is orthogonal but not uniform
    (Mezzadri, "How to generate random matrices from the classical compact groups", 2007).
    """
    tall = normal(max(rows, columns), min(rows, columns), generator=generator)
    q, r = torch.linalg.qr(tall)
    q = q * r.diagonal().sign()
    return q if rows >= columns else q.mT
