"""Position embeddings and prefix tokens of a given size, as orthogonal to each other as fits."""

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from skipless.errors import InputError
from skipless.init.random_matrices import draw_haar

_FEW = 3  # places or cosines, with half of which some places would be alike


def orthogonal_positions(
    tokens: int,
    dim: int,
    rms: float = 1.0,
    *,
    generator: Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "n d"]:
    """Rows of one root mean square, orthogonal if there are at most d of them.

    A library's position embeddings are small beside what the patches bring, 0.02 in timm. Smooth patches are then
    nearly one token many times over, and no attention can tell them apart. Without skips it stays so: what a block does
    not carry on is lost.

    With more than d rows, the columns are orthogonal instead, and rows are then scaled to one length: their
    cosines scatter by about sqrt((n - d) / (n d)), less than those of independent rows.

    Args:
        tokens: number of rows n.
        dim: d.
        rms: root mean square of each row.
        generator: source of randomness.
        dtype: dtype of the result; drawn in float64.

    Raises:
        InputError: for sizes that are not positive, or a size that is not finite and positive.

    Example:
        >>> rows = orthogonal_positions(3, 4, rms=2.0, dtype=torch.float64)
        >>> torch.allclose(rows @ rows.T, 16 * torch.eye(3, dtype=torch.float64))
        True
    """
    if tokens < 1 or dim < 1 or not (math.isfinite(rms) and rms > 0):
        raise InputError(f"positions need sizes >= 1 and a positive rms, got tokens={tokens}, dim={dim}, rms={rms}")
    rows = draw_haar(tokens, dim, generator=generator)()
    return (rows * (rms * math.sqrt(dim) / rows.norm(dim=1, keepdim=True))).to(dtype)


def smooth_positions(
    rows: int,
    columns: int,
    dim: int,
    rms: float = 1.0,
    *,
    generator: Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "n d"]:
    """Rows for a grid of patches that change slowly along it, for models whose images come in several sizes.

    They are made of the lower half of the cosines along each axis (type-II DCT, without the constant), or of all where
    there are few, turned by a random matrix. Neighbours are alike, and patches that lie four or more apart nearly
    orthogonal. Orthogonal rows are mixed between the places that they were drawn for: resized to a grid twice as fine
    they lose a third of their mean square, smooth ones a twentieth.

    Args:
        rows, columns: of the grid; n = rows x columns.
        dim, rms, generator, dtype: as for `orthogonal_positions`.

    Raises:
        InputError: for sizes that are not positive, or a size that is not finite and positive.

    Example:
        >>> smooth_positions(4, 4, 8).shape
        torch.Size([16, 8])
    """
    if rows < 1 or columns < 1 or dim < 1 or not (math.isfinite(rms) and rms > 0):
        raise InputError(f"positions need sizes >= 1 and a positive rms, got {rows} x {columns}, dim={dim}, rms={rms}")
    if rows * columns <= 2:
        return orthogonal_positions(rows * columns, dim, rms, generator=generator, dtype=dtype)
    counts = [size if size <= _FEW else (size + 1) // 2 for size in (rows, columns)]
    counts = [rows, columns] if math.prod(counts) <= _FEW else counts
    along, across = map(_cosines, (rows, columns), counts)
    waves = torch.einsum("ik,jl->ijkl", along, across).flatten(2).flatten(0, 1)[:, 1:]
    turn = draw_haar(waves.shape[1], dim, generator=generator)()
    turned = waves.to(turn) @ turn
    return (turned * (rms * math.sqrt(dim) / turned.norm(dim=1, keepdim=True))).to(dtype)


def _cosines(size: int, count: int) -> Float[Tensor, "s k"]:
    """The first columns of the orthonormal type-II DCT."""
    steps = torch.arange(max(size, count), dtype=torch.float64, device="cpu")  # whatever `torch.device` is in force
    waves = torch.cos((steps[:size, None] + 0.5) * (math.pi / size) * steps[:count])
    return waves / waves.norm(dim=0)
