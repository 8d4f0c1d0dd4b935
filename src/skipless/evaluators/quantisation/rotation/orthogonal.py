"""Orthogonal matrices that spread each channel over all others: Haar-distributed ones, and Hadamard's with signs."""

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float64
from torch import Generator, Tensor

from skipless.errors import InputError

Rotation = Literal["hadamard", "haar"]


def rotation_matrix(
    dim: int, kind: Rotation = "hadamard", *, generator: Generator | None = None
) -> Float64[Tensor, "d d"]:
    """A random rotation of tokens.

    Args:
        dim: token width d.
        kind: `"hadamard"`, whose entries are all +-d^-0.5: a Hadamard matrix with the signs of its rows drawn, as in
            QuaRot (2404.00456). `"haar"`, uniform among all orthogonal matrices.
        generator: source of randomness.

    Raises:
        InputError: if no Hadamard matrix of this width is built here, or the kind is unknown.

    Example:
        >>> q = rotation_matrix(12, generator=torch.Generator().manual_seed(0))
        >>> bool(torch.allclose(q @ q.mT, torch.eye(12).double())), round(float(q.abs().max() * 12**0.5), 9)
        (True, 1.0)
    """
    if kind not in get_args(Rotation):
        raise InputError(f"kind={kind!r}: give {' or '.join(get_args(Rotation))}")
    if kind == "haar":
        q, r = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64, generator=generator))
        return q * r.diagonal().sign()
    signs = torch.randint(0, 2, (dim, 1), generator=generator).double() * 2 - 1
    return signs * _hadamard(dim) / math.sqrt(dim)


def _hadamard(dim: int) -> Float64[Tensor, "d d"]:
    """Sylvester's doublings of 1 or of one of Paley's matrices."""
    base = dim
    while base > 0 and not _is_base(base):
        if base % 2:
            raise InputError(f"no Hadamard matrix of width {dim} is built here: give kind='haar'")
        base //= 2
    found = torch.ones(1, 1, dtype=torch.float64) if base == 1 else _paley(base - 1)
    double = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    while len(found) < dim:
        found = torch.kron(double, found)
    return found


def _is_base(order: int) -> bool:
    q = order - 1
    return order == 1 or (q % 4 == 3 and all(q % i for i in range(2, math.isqrt(q) + 1)))


def _paley(q: int) -> Float64[Tensor, "d d"]:
    """Paley's first matrix, of order q + 1, for a prime q = 3 mod 4: quadratic residues."""
    residues = {i * i % q for i in range(1, q)}
    chi = torch.tensor([0.0, *(1.0 if i in residues else -1.0 for i in range(1, q))], dtype=torch.float64)
    places = torch.arange(q)
    found = torch.ones(q + 1, q + 1, dtype=torch.float64)
    found[1:, 1:] = chi[(places[:, None] - places[None]) % q] + torch.eye(q, dtype=torch.float64)
    found[1:, 0] = -1
    return found
