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

from skipless.optim.soap.matmul import matmul

_STACKED_MATRICES = 3  # dimensions

# A product of fewer rows than this is not worth cutting (measured on one CPU core).
_BLOCK = 128

# What a power iteration adds to a factor, relative to its largest eigenvalue. In fp32 a direction is thus known to at
# least half of the digits; in float64 it is less, so that traces of the reference are met to 1e-8.
_SHIFT = {torch.float32: 3e-4, torch.float64: 4e-11}


def unfold(x: Float[Tensor, "b ..."], side: int) -> Float[Tensor, "b s r"]:
    """Unfold every tensor of a stack along one side: that side in rows, all others in columns."""
    if x.ndim == _STACKED_MATRICES:
        return x.mT if side else x
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
    for matrix, rows in zip(factor, x.contiguous(), strict=True):
        for start in range(0, side, _BLOCK):
            stop = min(start + _BLOCK, side)
            matrix[start:stop, :stop].lerp_(matmul(rows[None, start:stop], rows[None, :stop].mT)[0], 1 - beta)
    return factor


def symmetric_(factor: Float[Tensor, "b s s"]) -> Float[Tensor, "b s s"]:
    """Fill the upper triangles from the lower ones, where `accumulate_` has left them out."""
    side = factor.shape[-1]
    if side <= _BLOCK or factor.device.type != "cpu":
        return factor
    for start in range(0, side, _BLOCK):
        stop = min(start + _BLOCK, side)
        factor[:, :start, start:stop] = factor[:, start:stop, :start].mT
        corner = factor[:, start:stop, start:stop]
        corner.copy_(corner.tril() + corner.tril(-1).mT)
    return factor


def first_basis(x: Float[Tensor, "b s r"]) -> tuple[Float[Tensor, "b s s"], list[int]]:
    """Diagonalise a stack of first factors, `x @ x.T`; also which of them could not be: these get the identity.

    The eigenvectors are the left singular vectors of `x` itself, in float64: the product would square the condition
    number, and the gradient of a network that has hardly begun to learn has a steep spectrum. Rounding of the gradient
    would then turn the weak directions into anything.

    The first factor of a matrix taller than wide is singular, and `eigh` fills its null space with rounding noise. Here
    the null space gets the Householder completion of the other eigenvectors: made of the coordinate axes and a
    continuous function of those. So two runs whose gradients agree to rounding also agree in their updates.
    """
    if (whole := _diagonalised(x)) is not None:
        return whole, []
    single = [_diagonalised(matrix[None]) for matrix in x]
    identity = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)[None]
    bases = torch.cat([identity if basis is None else basis for basis in single])
    return bases, [index for index, basis in enumerate(single) if basis is None]


def _diagonalised(x: Float[Tensor, "b s r"]) -> Float[Tensor, "b s s"] | None:
    """`first_basis` of a whole stack; `None` if the decomposition fails."""
    side = x.shape[1]
    core = x.double()
    if x.shape[2] > side:
        core = torch.linalg.qr(core.mT, mode="r").R.mT  # the same left singular vectors, of a smaller matrix
    try:
        vectors, values, _ = torch.linalg.svd(core, full_matrices=False)
    except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
        return None
    energy = values.square()
    known = energy > energy[:, :1] * _noise(x.dtype, side)
    # Householder QR leaves the axis of a zero column where the reflections before it have put it.
    columns = torch.nn.functional.pad(torch.where(known[:, None], vectors, 0.0), (0, side - vectors.shape[2]))
    return _orthonormal(columns.mT).to(x.dtype).contiguous()


def refresh_(basis: Float[Tensor, "b s s"], factor: Float[Tensor, "b s s"]) -> Float[Tensor, "b s s"]:
    """Turn a stack of bases towards the factors' eigenvectors: one power iteration, then QR in order of energy.

    Every new row takes the place of the old row that it grew from, so that what is kept per row stays with it. (The
    reference sorts the rows and the second moment alike: the same up to a permutation that nobody sees.)

    The iteration is with `factor + shift * I`: the same eigenvectors, but a direction turns only as far as its energy
    stands out against the shift, and a direction that the factor does not determine stays where it was. Without it,
    rounding fills the directions whose energy is small: in the first epoch of a ViT that is most of them. Where an
    energy is not finite, the whole basis stays.

    Args:
        basis: the old bases, overwritten.
        factor: the factors; their upper triangles are filled.
    """
    image = matmul(basis, symmetric_(factor))
    energy = torch.linalg.vecdot(basis, image)
    most = energy.amax(-1, keepdim=True)
    # Below rounding there is nothing to turn to, not even slowly; a factor of zeros has no direction at all.
    known = energy > most * _noise(energy.dtype, energy.shape[-1])
    image.addcmul_(basis, (_SHIFT[basis.dtype] * most)[..., None])
    if known.device.type != "cpu" or not known.all():  # elsewhere, looking would wait for the device
        image = torch.where(known[..., None], image, basis)
    order = energy.argsort(dim=-1, descending=True)
    return basis.copy_(_taken(_orthonormal(_taken(image, order)), order.argsort(dim=-1)))


def project(x: Float[Tensor, "b ..."], bases: Sequence[Tensor | None], *, back: bool = False) -> Float[Tensor, "b ..."]:
    """Rotate a stack of tensors into its bases, side by side, or back out of them.

    Where there are more than two, each turn takes the first side off, rotates it and appends it as the last one; after
    all turns the order is the old one again.
    """
    if all(basis is None for basis in bases):
        return x
    if x.ndim == _STACKED_MATRICES:
        rows, columns = bases
        x = x if rows is None else matmul(rows.mT if back else rows, x)
        return x if columns is None else matmul(x, columns if back else columns.mT)
    for basis in bases:
        first = x.shape[1]
        rest = x.shape[2:]
        turned = x.reshape(len(x), first, prod(rest)).mT
        if basis is not None:
            turned = matmul(turned, basis if back else basis.mT)
        x = turned.reshape(len(x), *rest, first)
    return x


def _orthonormal(rows: Float[Tensor, "b s s"]) -> Float[Tensor, "b s s"]:
    """Orthonormalise rows in their order, by Householder QR."""
    side = rows.shape[-1]
    # Rows of n x 512 bytes share few cache sets: LAPACK takes a sixth longer. Zeros at their ends change nothing.
    rows = torch.nn.functional.pad(rows, (0, 8)) if side >= _BLOCK and side % _BLOCK == 0 else rows
    return torch.linalg.householder_product(*torch.geqrf(rows.mT)).mT[..., :side]


def _taken(rows: Float[Tensor, "b s n"], order: Int[Tensor, "b s"]) -> Float[Tensor, "b s n"]:
    """Take the rows of every matrix of a stack in the matrix's own order."""
    first = torch.arange(0, order.numel(), order.shape[1], device=order.device)[:, None]
    return rows.reshape(-1, rows.shape[2]).index_select(0, (order + first).flatten()).view_as(rows)


def _noise(dtype: torch.dtype, side: int) -> float:
    """The energy, relative to the largest, up to which a direction of a factor cannot be told from rounding.

    Null spaces of random factors show a third to a seventh of it.
    """
    return torch.finfo(dtype).eps * sqrt(side)
