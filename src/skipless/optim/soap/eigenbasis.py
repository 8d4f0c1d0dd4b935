"""Eigenbases of Shampoo's factors: stacks of symmetric matrices and of orthonormal bases.

A *factor* is the running mean of `x @ x.T` over the unfoldings of a gradient along one dimension. A *basis* holds the
factor's eigenvectors **as rows**, largest eigenvalue first. Both are `None` for a dimension that is not preconditioned.
All tensors carry a leading stack axis `b`. Only the lower triangle of a factor has to be valid.

Source: Vyas et al. 2024 (SOAP), Algorithm 3 and 4.
"""

from collections.abc import Sequence
from math import prod, sqrt

import torch
from jaxtyping import Float, Int
from torch import Tensor

from skipless.optim.soap.matmul import matmul

_MATRIX_STACK_NDIM = 3

# A product of fewer rows than this is not worth cutting into blocks (measured on one CPU core).
_BLOCK = 128

# Orthogonal iteration shifts a factor by this multiple of its largest eigenvalue. In fp32 at least half of a
# direction's digits are then determined. In float64 it is smaller, so that traces of the reference are met to 1e-8.
_SHIFT = {torch.float32: 3e-4, torch.float64: 4e-11}


def unfold(x: Float[Tensor, "b ..."], dim: int) -> Float[Tensor, "b s r"]:
    """Unfold every tensor of a stack along one dimension: it becomes the rows, all others become the columns."""
    if x.ndim == _MATRIX_STACK_NDIM:
        return x.mT if dim else x
    x = x.movedim(dim + 1, 1)
    return x.reshape(*x.shape[:2], -1)


def accumulate_(factor: Float[Tensor, "b s s"], x: Float[Tensor, "b s r"], beta: float) -> Float[Tensor, "b s s"]:
    """Move a stack of factors towards `x @ x.T`: `factor <- beta * factor + (1 - beta) * x @ x.T`.

    On a CPU large factors get their lower triangle only, by products of block rows, which nearly halves the work. Their
    upper triangle is out of date afterwards. BLAS's own routine for this (`syrk`, through SciPy) is a quarter faster
    alone, but it starts threads that torch's settings do not bound: runs side by side took five times as long. On an
    accelerator one kernel launch is faster than a dozen.
    """
    size = factor.shape[-1]
    if size <= _BLOCK or factor.device.type != "cpu":
        return factor.baddbmm_(x, x.mT, beta=beta, alpha=1 - beta)
    for matrix, rows in zip(factor, x.contiguous(), strict=True):
        for start in range(0, size, _BLOCK):
            stop = min(start + _BLOCK, size)
            matrix[start:stop, :stop].lerp_(matmul(rows[None, start:stop], rows[None, :stop].mT)[0], 1 - beta)
    return factor


def symmetrize_(factor: Float[Tensor, "b s s"]) -> Float[Tensor, "b s s"]:
    """Fill the upper triangles from the lower ones, where `accumulate_` has left them out."""
    size = factor.shape[-1]
    if size <= _BLOCK or factor.device.type != "cpu":
        return factor
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        factor[:, :start, start:stop] = factor[:, start:stop, :start].mT
        corner = factor[:, start:stop, start:stop]
        corner.copy_(corner.tril() + corner.tril(-1).mT)
    return factor


def initial_basis(x: Float[Tensor, "b s r"]) -> tuple[Float[Tensor, "b s s"], list[int]]:
    """Compute the eigenvectors of a stack of first factors, `x @ x.T`.

    The eigenvectors are the left singular vectors of `x` itself, in float64. Forming the product would square the
    condition number, and the gradient of a network that has hardly begun to learn has a steep spectrum: rounding of the
    gradient would then decide the weak directions.

    The first factor of a matrix taller than wide is singular, and `eigh` fills its null space with rounding noise. Here
    the null space gets the Householder completion of the other eigenvectors. It is made of the coordinate axes and is a
    continuous function of those eigenvectors, so that two runs whose gradients agree to rounding also agree in their
    updates.

    Returns:
        The bases, and the indices of the matrices whose decomposition failed. These get the identity.
    """
    if (whole := _left_singular_basis(x)) is not None:
        return whole, []
    single = [_left_singular_basis(matrix[None]) for matrix in x]
    identity = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)[None]
    bases = torch.cat([identity if basis is None else basis for basis in single])
    return bases, [index for index, basis in enumerate(single) if basis is None]


def _left_singular_basis(x: Float[Tensor, "b s r"]) -> Float[Tensor, "b s s"] | None:
    """`initial_basis` of a whole stack; `None` if the decomposition fails."""
    size = x.shape[1]
    core = x.double()
    if x.shape[2] > size:
        core = torch.linalg.qr(core.mT, mode="r").R.mT  # the same left singular vectors, of a smaller matrix
    try:
        vectors, values, _ = torch.linalg.svd(core, full_matrices=False)
    except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
        return None
    eigenvalues = values.square()
    determined = eigenvalues > eigenvalues[:, :1] * _relative_rounding(x.dtype, size)
    # Householder QR leaves the axis of a zero column where the reflections before it have put it.
    columns = torch.nn.functional.pad(torch.where(determined[:, None], vectors, 0.0), (0, size - vectors.shape[2]))
    return _orthonormalize_rows(columns.mT).to(x.dtype).contiguous()


def orthogonal_iteration_(basis: Float[Tensor, "b s s"], factor: Float[Tensor, "b s s"]) -> Float[Tensor, "b s s"]:
    """Turn a stack of bases towards the factors' eigenvectors: one power iteration, then QR of the sorted rows.

    The rows enter the QR by their Rayleigh quotient, the largest first. Every new row takes the place of the old row
    that it grew from, so that what is kept per row stays with it. (The reference sorts the rows and the second moment
    alike. The two results are the same up to a permutation, which changes no update.)

    The iteration multiplies by `factor + shift * I`, which has the same eigenvectors. A direction then turns only as
    far as its eigenvalue stands out against the shift, and a direction that the factor does not determine stays where
    it was. Without the shift, rounding decides the directions of small eigenvalues: in the first epoch of a ViT, most
    of them. Where a Rayleigh quotient is not finite, the whole basis stays.

    Args:
        basis: the old bases, overwritten.
        factor: the factors; their upper triangles are filled.
    """
    image = matmul(basis, symmetrize_(factor))
    rayleigh = torch.linalg.vecdot(basis, image)
    largest = rayleigh.amax(-1, keepdim=True)
    # Below rounding no direction is determined, not even slowly; a factor of zeros has no direction at all.
    determined = rayleigh > largest * _relative_rounding(rayleigh.dtype, rayleigh.shape[-1])
    image.addcmul_(basis, (_SHIFT[basis.dtype] * largest)[..., None])
    if determined.device.type != "cpu" or not determined.all():  # on an accelerator, reading the mask would wait for it
        image = torch.where(determined[..., None], image, basis)
    order = rayleigh.argsort(dim=-1, descending=True)
    return basis.copy_(_take_rows(_orthonormalize_rows(_take_rows(image, order)), order.argsort(dim=-1)))


def project(x: Float[Tensor, "b ..."], bases: Sequence[Tensor | None], *, back: bool = False) -> Float[Tensor, "b ..."]:
    """Rotate a stack of tensors into its bases, one dimension after the other, or back out of them.

    With more than two dimensions, each turn takes the first dimension off, rotates it and appends it as the last one.
    After all turns the order is the old one again.
    """
    if all(basis is None for basis in bases):
        return x
    if x.ndim == _MATRIX_STACK_NDIM:
        rows, columns = bases
        x = x if rows is None else matmul(rows.mT if back else rows, x)
        return x if columns is None else matmul(x, columns if back else columns.mT)
    for basis in bases:
        first = x.shape[1]
        rest = x.shape[2:]
        rotated = x.reshape(len(x), first, prod(rest)).mT
        if basis is not None:
            rotated = matmul(rotated, basis if back else basis.mT)
        x = rotated.reshape(len(x), *rest, first)
    return x


def _orthonormalize_rows(rows: Float[Tensor, "b s s"]) -> Float[Tensor, "b s s"]:
    """Orthonormalise rows in their order, by Householder QR."""
    size = rows.shape[-1]
    # Rows of n x 512 bytes share few cache sets: LAPACK takes a sixth longer. Zeros at their ends change nothing.
    rows = torch.nn.functional.pad(rows, (0, 8)) if size >= _BLOCK and size % _BLOCK == 0 else rows
    return torch.linalg.householder_product(*torch.geqrf(rows.mT)).mT[..., :size]


def _take_rows(rows: Float[Tensor, "b s n"], order: Int[Tensor, "b s"]) -> Float[Tensor, "b s n"]:
    """Take the rows of every matrix of a stack in the matrix's own order."""
    first = torch.arange(0, order.numel(), order.shape[1], device=order.device)[:, None]
    return rows.reshape(-1, rows.shape[2]).index_select(0, (order + first).flatten()).view_as(rows)


def _relative_rounding(dtype: torch.dtype, size: int) -> float:
    """The eigenvalue, relative to the largest, up to which a direction of a factor cannot be told from rounding.

    Null spaces of random factors show a third to a seventh of it.
    """
    return torch.finfo(dtype).eps * sqrt(size)
