"""A LinearOperator, its transpose and its sum with I, are one matrix however it is asked for."""

from dataclasses import replace

import pytest
import torch

from skipless.conditioning.operators.linear_operator import LinearOperator
from skipless.errors import InputError


def operators() -> list[tuple[LinearOperator, torch.Tensor]]:
    """The same kinds of matrix known in each of the three ways."""
    square, wide, blocks = (torch.randn(*shape, dtype=torch.double) for shape in ((6, 6), (3, 7), (3, 2, 2)))
    known = LinearOperator.from_dense(square)
    by_blocks = torch.block_diag(*blocks)
    return [
        (known, square),
        (replace(known, dense=None), square),
        (LinearOperator.from_dense(wide), wide),
        (replace(LinearOperator.from_dense(wide), dense=None), wide),
        (replace(LinearOperator.from_dense(by_blocks), dense=None, blocks=blocks.clone), by_blocks),
    ]


def test_products_dense_and_transpose_agree() -> None:
    torch.manual_seed(0)
    for operator, matrix in operators():
        v, u = torch.randn(matrix.shape[1]).double(), torch.randn(matrix.shape[0]).double()
        assert torch.allclose(operator.matvec(v), matrix @ v, atol=1e-12)
        assert torch.allclose(operator.rmatvec(u), matrix.T @ u, atol=1e-12)
        assert torch.allclose(operator.to_dense(), matrix, atol=1e-12)
        assert operator.mT.shape == tuple(matrix.T.shape)
        assert torch.allclose(operator.mT.to_dense(), matrix.T, atol=1e-12)
        assert torch.allclose(operator.mT.matvec(u), matrix.T @ u, atol=1e-12)
        assert torch.allclose(operator.mT.mT.to_dense(), matrix, atol=1e-12)


def test_the_identity_is_added_in_every_form() -> None:
    torch.manual_seed(0)
    for operator, matrix in operators():
        if matrix.shape[0] != matrix.shape[1]:
            with pytest.raises(InputError, match="only a square operator"):
                operator.plus_identity()
            continue
        plus, expected = operator.plus_identity(), matrix + torch.eye(6).double()
        v = torch.randn(6).double()
        assert torch.allclose(plus.to_dense(), expected, atol=1e-12)
        assert torch.allclose(plus.matvec(v), expected @ v, atol=1e-12)
        assert torch.allclose(plus.mT.to_dense(), expected.T, atol=1e-12)
        if plus.blocks is not None:
            assert torch.allclose(torch.block_diag(*plus.blocks()), expected, atol=1e-12)
        assert torch.allclose(operator.to_dense(), matrix, atol=1e-12), "the operator itself has changed"


def test_a_dense_form_that_cannot_fit_is_refused_with_its_size() -> None:
    operator = replace(LinearOperator.from_dense(torch.eye(2)), shape=(75648, 75648), dense=None, name="K")
    with pytest.raises(InputError, match=r"K is 75648 x 75648, 21\.3 GiB"):
        operator.to_dense()
