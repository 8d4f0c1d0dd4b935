"""Eigenbases of Shampoo's factors: stacks of symmetric matrices and of orthonormal bases.

A *factor* is the running mean of `x @ x.T` over the unfoldings of a gradient along one side. A *basis* holds the
factor's eigenvectors **as rows**, largest eigenvalue first; a side that is left alone has `None` for both. Everything
carries a leading stack axis `b`, and only the lower triangle of a factor is meant.

Source: Vyas et al. 2024 (SOAP), Algorithm 3 and 4.
"""

from collections.abc import Sequence
from math import prod, sqrt

import torch
from jaxtyping import Float, Int
from torch import Tensor

# A product of fewer rows than this is not worth cutting (measured on one CPU core).
_BLOCK = 128


def unfold(x: Float[Tensor, "b ..."], side: int) -> Float[Tensor, "b s r"]:
    """Unfold every tensor of a stack along one side: that side in rows, all others in columns."""
    x = x.movedim(side + 1, 1)
    return x.reshape(*x.shape[:2], -1)


def accumulate_(factor: Float[Tensor, "b s s"], x: Float[Tensor, "b s r"], beta: float) -> Float[Tensor, "b s s"]:
    """Move a stack of factors towards `x @ x.T`: `factor <- beta * factor + (1 - beta) * x @ x.T`.

    On a CPU large factors get their lower triangle only, by products of block rows, which nearly halves the work; what
    lies above is stale afterwards. BLAS's own routine for that, through SciPy, is a quarter faster alone, but brings
    threads that torch's settings do not bound: side by side runs took five times as long. On an accelerator one launch
    beats a dozen.
    """
    side = factor.shape[-1]
    if side <= _BLOCK or factor.device.type != "cpu":
        return factor.baddbmm_(x, x.mT, beta=beta, alpha=1 - beta)
    for matrix, rows in zip(factor, x, strict=True):
        for start in range(0, side, _BLOCK):
            stop = min(start + _BLOCK, side)
            matrix[start:stop, :stop].addmm_(rows[start:stop], rows[:stop].mT, beta=beta, alpha=1 - beta)
    return factor


def symmetric_(factor: Float[Tensor, "b s s"]) -> Float[Tensor, "b s s"]:
    """Fill the upper triangles from the lower ones."""
    side = factor.shape[-1]
    for start in range(0, side, _BLOCK):
        stop = min(start + _BLOCK, side)
        factor[:, :start, start:stop] = factor[:, start:stop, :start].mT
        corner = factor[:, start:stop, start:stop]
        corner.copy_(corner.tril() + corner.tril(-1).mT)
    return factor


def first_basis(factor: Float[Tensor, "b s s"]) -> tuple[Float[Tensor, "b s s"], list[int]]:
    """Diagonalise a stack of factors; also which of them could not be: these get the identity.

    The first factor of a matrix taller than wide is singular, and `eigh` fills its null space with rounding noise. Here
    the null space gets the Householder completion of the other eigenvectors: made of the coordinate axes and a
    continuous function of those, so that two runs whose gradients agree to rounding also agree in their updates.
    """
    if (whole := _diagonalised(factor)) is not None:
        return whole, []
    single = [_diagonalised(matrix[None]) for matrix in factor]
    identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)[None]
    bases = torch.cat([identity if basis is None else basis for basis in single])
    return bases, [index for index, basis in enumerate(single) if basis is None]


def _diagonalised(factor: Float[Tensor, "b s s"]) -> Float[Tensor, "b s s"] | None:
    """`first_basis` of a whole stack, in float64 at the second try; `None` if `eigh` fails there too."""
    try:
        values, vectors = torch.linalg.eigh(factor)
    except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
        if factor.dtype == torch.float64:
            return None
        basis = _diagonalised(factor.double())
        return None if basis is None else basis.to(factor.dtype)
    values, vectors = values.flip(-1), vectors.flip(-1)
    # Householder QR leaves the axis of a zero column where the reflections before it have put it.
    return _orthonormal((vectors * (values > _noise(values))[:, None]).mT).contiguous()


def refresh_(
    basis: Float[Tensor, "b s s"], factor: Float[Tensor, "b s s"], *, singular: bool = False
) -> Float[Tensor, "b s s"]:
    """Turn a stack of bases towards the factors' eigenvectors: one power iteration, then QR in order of energy.

    Every new row takes the place of the old row that it grew from, so that what is kept per row stays with it. (The
    reference sorts the rows and the second moment alike: the same up to a permutation that nobody sees.)

    A direction whose energy is below rounding stays where it was instead of becoming noise; so does a whole basis
    where an energy is not finite.

    Args:
        basis: the old bases, overwritten.
        factor: the factors; their upper triangles are filled.
        singular: the factors cannot have full rank yet: directions that they do not determine are completed as in
            `first_basis`, which takes a second QR.
    """
    image = basis @ symmetric_(factor)
    energy = torch.linalg.vecdot(basis, image)
    image = torch.where((energy > _noise(energy))[..., None], image, basis)
    order = _by_row(energy.argsort(dim=-1, descending=True))
    basis[order] = _completed(image[order]) if singular else _orthonormal(image[order])
    return basis


def project(x: Float[Tensor, "b ..."], bases: Sequence[Tensor | None], *, back: bool = False) -> Float[Tensor, "b ..."]:
    """Rotate a stack of tensors into its bases, side by side, or back out of them.

    Each turn takes the first side off, rotates it and appends it as the last one; after all turns the order is
    the old one again, and for matrices no turn copies.
    """
    for basis in bases:
        first = x.shape[1]
        rest = x.shape[2:]
        turned = x.reshape(len(x), first, prod(rest)).mT
        if basis is not None:
            turned = turned @ (basis if back else basis.mT)
        x = turned.reshape(len(x), *rest, first)
    return x


def _orthonormal(rows: Float[Tensor, "b s s"]) -> Float[Tensor, "b s s"]:
    """Orthonormalise rows in their order, by Householder QR."""
    side = rows.shape[-1]
    # Rows of n x 512 bytes share few cache sets: LAPACK takes a sixth longer. Zeros at their ends change nothing.
    rows = torch.nn.functional.pad(rows, (0, 8)) if side >= _BLOCK and side % _BLOCK == 0 else rows
    return torch.linalg.qr(rows.mT).Q.mT[..., :side]


def _completed(rows: Float[Tensor, "b s s"]) -> Float[Tensor, "b s s"]:
    """`_orthonormal`, but rows that depend on the rows before them make room for what completes all others."""
    left = torch.linalg.qr(rows.mT, mode="r").R.diagonal(dim1=-2, dim2=-1).abs()
    # Far from any doubt where gradients are random: 3e-15 below the gap, 6e-2 above it (float64, s = 128).
    scale = torch.linalg.vector_norm(rows, dim=-1).amax(-1, keepdim=True)
    dependent = left <= scale * torch.finfo(rows.dtype).eps * rows.shape[-1]
    order = _by_row(dependent.int().argsort(dim=-1, stable=True))
    completed = torch.empty_like(rows)
    completed[order] = _orthonormal(torch.where(dependent[..., None], 0.0, rows)[order])
    return completed


def _by_row(order: Int[Tensor, "b s"]) -> tuple[Int[Tensor, "b 1"], Int[Tensor, "b s"]]:
    """Index the rows of every matrix of a stack in the matrix's own order."""
    return torch.arange(len(order), device=order.device)[:, None], order


def _noise(energy: Float[Tensor, "b s"]) -> Float[Tensor, "b 1"]:
    """The energy up to which a direction of a factor cannot be told from rounding.

    Null spaces of random factors show a third to a seventh of it.
    """
    return energy.amax(-1, keepdim=True) * torch.finfo(energy.dtype).eps * sqrt(energy.shape[-1])
