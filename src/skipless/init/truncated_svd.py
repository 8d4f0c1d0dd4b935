"""The largest singular values of a matrix and their right singular vectors: all that a head of size d_h can hold.

This is one eigendecomposition in float64. From a width of `_CORRECTED` on, the eigendecomposition is made in float32,
which takes half the time, and its leading part is corrected in float64. float32 alone would not do: where the cut
between the directions that a head keeps and the rest falls on two close singular values, it mixes the two.
"""

import torch
from jaxtyping import Float64
from torch import Tensor

from skipless.init.random_matrices import LARGE

_CORRECTED = 512  # width from which an eigendecomposition in float32 and its correction take less time than in float64
_GUARD = 32  # directions beyond the cut that are corrected with those that are kept; at d = 768, 4 % of the spectrum
_RESIDUAL = 1e-9  # of the spread of the eigenvalues; float64's own decomposition leaves about 1e-14


def top_right_singular(
    matrices: Float64[Tensor, "r d d"], rank: int
) -> tuple[Float64[Tensor, " k"], Float64[Tensor, "d k"]]:
    """The squares of the top singular values of r matrices stacked, descending, and their right singular vectors.

    Args:
        matrices: matrices of one width, read as one of shape (r x d, d).
        rank: k, how many; at most d.

    Returns:
        `(s_squared, v)`. From `LARGE` on, each vector's entry of largest size is positive, so that other processors
        and devices give the same vectors.

    Example:
        >>> s_squared, v = top_right_singular(torch.diag(torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64))[None], 2)
        >>> s_squared.tolist(), v.abs().argmax(0).tolist()
        ([9.0, 4.0], [1, 2])
    """
    dim = matrices.shape[-1]
    found = _corrected(matrices, rank) if dim >= _CORRECTED and 3 * rank <= dim else None
    s_squared, v = _decomposed(matrices, rank) if found is None else found
    return s_squared, (v * signs(v) if dim >= LARGE else v)


def signs(v: Float64[Tensor, "d k"]) -> Float64[Tensor, " k"]:
    """The sign of each column's entry of largest size."""
    return v.gather(0, v.abs().argmax(0, keepdim=True))[0].sign()


def _decomposed(matrices: Float64[Tensor, "r d d"], rank: int) -> tuple[Float64[Tensor, " k"], Float64[Tensor, "d k"]]:
    """The same by one eigendecomposition in float64."""
    stack = matrices.flatten(0, 1)
    s_squared, v = torch.linalg.eigh(stack.mT @ stack)
    return s_squared.flip(-1)[:rank], v.flip(-1)[:, :rank]


def _corrected(
    matrices: Float64[Tensor, "r d d"], rank: int
) -> tuple[Float64[Tensor, " k"], Float64[Tensor, "d k"]] | None:
    """The same by an eigendecomposition in float32, corrected in float64; None if that is not accurate enough.

    The kept directions and the guard are corrected to first order against the rest, from which the guard separates
    them. A Rayleigh-Ritz step in float64 then makes the cut between the kept ones and the guard, however close.
    """
    stack = matrices.flatten(0, 1)
    shift = matrices.diagonal(dim1=1, dim2=2).mean()
    w, rest, values, values_rest = _single_precision_eigenvectors(matrices, shift, rank + _GUARD)
    values, values_rest = (side.double() + len(matrices) * shift**2 for side in (values, values_rest))
    residual = stack.mT @ (stack @ w) - w * values
    w = w + rest @ ((rest.mT @ residual) / (values - values_rest[:, None]))
    w = torch.linalg.qr(w)[0]
    image = stack @ w
    s_squared, rotation = torch.linalg.eigh(image.mT @ image)
    s_squared, rotation = s_squared.flip(-1)[:rank], rotation.flip(-1)[:, :rank]
    v = w @ rotation
    residual = stack.mT @ (image @ rotation) - v * s_squared
    accurate = residual.norm(dim=0).max() <= _RESIDUAL * (s_squared[0] - values_rest[-1])  # NaN is not
    return (s_squared, v) if accurate else None


def _single_precision_eigenvectors(
    matrices: Float64[Tensor, "r d d"], shift: Float64[Tensor, ""], leading: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Eigenvectors of sum A^T A - r shift^2 I in float32: the leading ones, the rest, and the values of both.

    With A = B + shift I that is sum shift (B + B^T) + B^T B. So the identity in alpha Z + beta I, which has no
    directions of its own, does not cost float32 the digits of Z.
    """
    centred = matrices.clone()
    centred.diagonal(dim1=1, dim2=2).sub_(shift)
    b = centred.flatten(0, 1).float()
    linear = shift.float() * centred.sum(0).float()
    values, v = torch.linalg.eigh(b.mT @ b + linear + linear.mT)
    values, v = values.flip(-1), v.flip(-1).double()
    return v[:, :leading], v[:, leading:], values[:leading], values[leading:]
