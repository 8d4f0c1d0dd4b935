"""Gaussian, uniform and Haar-distributed matrices, drawn in float64.

Numbers are drawn on the generator's device (the CPU without a generator). The same seed thus gives the same weights,
whatever device or dtype the model has. The dtype is float64 because singular vectors are computed from these matrices:
the gap between the top d_h of d directions and the rest is too small for float32.

Drawing takes little of the time and has an order, that of the generator. Factorising takes the rest and has none. So
functions named `draw_...` draw at once and return the factorisation as a function without arguments, for whichever
thread and device is free.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float64
from torch import Generator, Tensor

LARGE = 256  # width from which matrix products, not calls, take the time
_HALF = 8  # torch makes normal numbers by sixteen


def normal(*shape: int, std: float = 1.0, generator: Generator | None = None) -> Float64[Tensor, "..."]:
    """A matrix of independent N(0, std^2) entries, those of `torch.randn` (large ones up to rounding)."""
    device = generator.device if generator is not None else torch.device("cpu")
    size = math.prod(shape)
    if device.type == "cpu" and size >= LARGE**2 and size % (2 * _HALF) == 0:
        return _box_muller(size, generator).view(shape).mul_(std)
    return torch.randn(*shape, generator=generator, dtype=torch.float64, device=device) * std


def _box_muller(size: int, generator: Generator | None) -> Float64[Tensor, " n"]:
    """What `torch.randn` gives on the CPU, at half its time: it takes logarithm, sine and cosine one by one.

    It makes 16 normal numbers of 16 uniform ones: the first eight give the radii, the others the angles.
    """
    radius, angle = (
        torch.rand(size, generator=generator, dtype=torch.float64, device="cpu").view(-1, 2, _HALF).unbind(1)
    )
    radius = (1 - radius).log_().mul_(-2).sqrt_()
    angle = angle * (2 * math.pi)
    return torch.stack((angle.cos().mul_(radius), angle.sin_().mul_(radius)), dim=1).view(-1)


def uniform(*shape: int, std: float = 1.0, generator: Generator | None = None) -> Float64[Tensor, "..."]:
    """A matrix of independent entries, uniform on +-std sqrt(3): mean 0 and the same variance as `normal`."""
    device = generator.device if generator is not None else torch.device("cpu")
    unit = torch.rand(*shape, generator=generator, dtype=torch.float64, device=device)
    return (2 * unit - 1) * (std * math.sqrt(3))


def haar(rows: int, columns: int, *, generator: Generator | None = None) -> Float64[Tensor, "rows columns"]:
    """A Haar-distributed matrix whose shorter side is orthonormal."""
    return draw_haar(rows, columns, generator=generator)()


def draw_haar(
    rows: int, columns: int, *, generator: Generator | None = None, device: torch.device | None = None
) -> Callable[[], Float64[Tensor, "rows columns"]]:
    """Draw a Haar-distributed matrix now, to be orthonormalised later, on a device if one is given.

    It is the Q of a Gaussian matrix with the signs of R's diagonal moved into Q. Without this step Q is orthogonal but
    not uniformly distributed (Mezzadri, "How to generate random matrices from the classical compact groups", 2007).
    """
    tall = normal(max(rows, columns), min(rows, columns), generator=generator)

    def orthonormalise() -> Float64[Tensor, "rows columns"]:
        q = _orthonormal_columns(tall.to(device))
        return q if rows >= columns else q.mT

    return orthonormalise


def _orthonormal_columns(tall: Float64[Tensor, "n k"]) -> Float64[Tensor, "n k"]:
    """The Q of a Gaussian matrix for which R's diagonal is positive.

    A large matrix that is at least twice as tall as wide has a condition number of about 6 or less. Then Cholesky's
    factor of its Gram matrix is that R to float64's precision, in half the time of Householder's method.
    """
    rows, columns = tall.shape
    if columns >= LARGE and rows >= 2 * columns:
        r = torch.linalg.cholesky(tall.mT @ tall, upper=True)
        return torch.linalg.solve_triangular(r, tall, upper=True, left=False)
    q, r = torch.linalg.qr(tall)
    return q * r.diagonal().sign()
