"""LinearOperator: a matrix given by its products with vectors."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from skipless.display import Record
from skipless.errors import InputError
from skipless.precision import full_precision

MAX_DENSE_BYTES = 2 * 2**30  # larger dense forms are refused


@dataclass(frozen=True, eq=False, repr=False)
class LinearOperator(Record):
    """A real matrix given by its products with vectors.

    Tokens are flattened as torch does it, `x.flatten()` of an `(n, d)` tensor: tokens outside, features inside. The
    paper's vec stacks columns, so its Kronecker products appear here with their factors swapped; singular values are
    the same.

    Attributes:
        shape: numbers of rows and columns.
        matvec: product with the matrix, `(columns,)` to `(rows,)`.
        rmatvec: product with the transpose, `(rows,)` to `(columns,)`.
        dtype: dtype of the vectors, float32 or float64.
        device: device of the vectors.
        name: name of the matrix in messages and records.
        dense: returns the matrix as a new tensor, if its structure makes that cheaper than products; else None.
        blocks: returns the diagonal blocks `(k, r, r)` of a block diagonal matrix as a new tensor; None if the matrix
            has no such structure. The singular values of the blocks together are those of the matrix.

    Example:
        >>> a = torch.tensor([[1.0, 2.0], [0.0, 1.0]])
        >>> operator = LinearOperator.from_dense(a)
        >>> operator.matvec(torch.tensor([1.0, 1.0]))
        tensor([3., 1.])
        >>> operator.plus_identity().to_dense()
        tensor([[2., 2.],
                [0., 2.]])
    """

    shape: tuple[int, int]
    matvec: Callable[[Tensor], Tensor]
    rmatvec: Callable[[Tensor], Tensor]
    dtype: torch.dtype
    device: torch.device
    name: str = "operator"
    dense: Callable[[], Tensor] | None = None
    blocks: Callable[[], Tensor] | None = None

    def _summary(self) -> str:
        rows, columns = self.shape
        return f"{self.name}, {rows} x {columns}, {str(self.dtype).removeprefix('torch.')} on {self.device}"

    @classmethod
    def from_dense(cls, matrix: Float[Tensor, "r c"], name: str = "matrix") -> "LinearOperator":
        """The operator of a given matrix, which is not copied."""
        rows, columns = matrix.shape
        return cls(
            (rows, columns),
            lambda v: matrix @ v,
            lambda u: matrix.mT @ u,
            matrix.dtype,
            matrix.device,
            name,
            dense=matrix.clone,
        )

    @property
    def mT(self) -> "LinearOperator":
        """The transpose."""
        rows, columns = self.shape
        dense, blocks = self.dense, self.blocks
        return replace(
            self,
            shape=(columns, rows),
            matvec=self.rmatvec,
            rmatvec=self.matvec,
            name=f"({self.name})^T",
            dense=dense and (lambda: dense().mT),
            blocks=blocks and (lambda: blocks().mT),
        )

    def plus_identity(self, gain: float = 1.0) -> "LinearOperator":
        """`K + I`, the Jacobian of a sub-block with its skip, or `K + a I`, of one whose skip is decayed.

        Args:
            gain: a.

        Raises:
            InputError: if it is not square.
        """
        rows, columns = self.shape
        if rows != columns:
            raise InputError(f"{self.name} is {rows} x {columns}: only a square operator can have the identity added")
        matvec, rmatvec = self.matvec, self.rmatvec
        dense, blocks = self.dense, self.blocks
        return replace(
            self,
            matvec=lambda v: matvec(v) + gain * v,
            rmatvec=lambda u: rmatvec(u) + gain * u,
            name=f"{self.name} + {'' if gain == 1 else f'{gain:g} '}I",
            dense=dense and (lambda: _plus_identity_(dense(), gain)),
            blocks=blocks and (lambda: _plus_identity_(blocks(), gain)),
        )

    @full_precision()
    def to_dense(self) -> Float[Tensor, "r c"]:
        """The matrix itself, from `dense` or `blocks` if there is one, otherwise from one product per column or row.

        Raises:
            InputError: if it would take more than `MAX_DENSE_BYTES`.
        """
        rows, columns = self.shape
        size = rows * columns * self.dtype.itemsize
        if size > MAX_DENSE_BYTES:
            raise InputError(
                f"{self.name} is {rows} x {columns}, {size / 2**30:.1f} GiB as a dense matrix; use its products "
                "(spectrum() needs no more), or fewer tokens"
            )
        if self.dense is not None:
            return self.dense()
        if self.blocks is not None:
            return torch.block_diag(*self.blocks())
        if rows < columns:
            return self.mT.to_dense().mT
        dense = torch.empty(columns, rows, dtype=self.dtype, device=self.device)
        unit = torch.zeros(columns, dtype=self.dtype, device=self.device)
        for column in range(columns):
            unit[column] = 1
            dense[column] = self.matvec(unit)
            unit[column] = 0
        return dense.mT


def _plus_identity_(matrix: Float[Tensor, "*k d d"], gain: float) -> Float[Tensor, "*k d d"]:
    matrix.diagonal(dim1=-2, dim2=-1).add_(gain)
    return matrix
