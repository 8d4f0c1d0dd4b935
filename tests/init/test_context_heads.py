"""Two kinds of heads: their maps, and what becomes of tokens."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Generator

from skipless.errors import InputError
from skipless.init import SkiplessInit
from skipless.init.context_heads import (
    KEPT,
    context_count,
    draw_parted_value_output,
    draw_turned_rotation,
    solve_turn,
)


def drawn(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


@pytest.mark.parametrize(("dim", "kept"), [(12, 6), (12, 8), (12, 1), (64, 48)])
def test_each_kind_reads_and_writes_directions_of_its_own(dim: int, kept: int) -> None:
    w_v, w_o = draw_parted_value_output(dim, 3.0, kept, generator=drawn())()
    for w in (w_v, w_o):
        assert not w[:kept, kept:].any()
        assert not w[kept:, :kept].any()
        torch.testing.assert_close(w @ w.T, 9 * torch.eye(dim, dtype=torch.float64))
    torch.testing.assert_close(torch.linalg.svdvals(w_v @ w_o), torch.full((dim,), 9.0, dtype=torch.float64))


@pytest.mark.parametrize("angle", [0.0, 0.3, math.pi / 2])
@pytest.mark.parametrize(("dim", "kept"), [(12, 6), (12, 4), (12, 9)])
def test_the_turn_moves_a_share_of_one_kind_into_the_other(dim: int, kept: int, angle: float) -> None:
    rotation = draw_turned_rotation(dim, kept, angle, generator=drawn(1))()
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(dim, dtype=torch.float64))
    pairs = min(kept, dim - kept)
    moved = rotation[:kept, kept:].square().sum().item()
    assert moved == pytest.approx(pairs * math.sin(angle) ** 2)


@pytest.mark.parametrize("depth", [1, 12, 144])
def test_the_angle_leaves_as_much_after_any_depth(depth: int) -> None:
    assert math.cos(solve_turn(depth)) ** (2 * depth) == pytest.approx(KEPT)


def test_the_number_of_heads_is_rounded_and_never_all_or_none() -> None:
    assert [context_count(heads, 0.5) for heads in (2, 6, 12)] == [1, 3, 6]
    for heads, share in ((1, 0.5), (2, 0.1), (3, 0.9)):
        with pytest.raises(InputError, match=f"context_heads={share} of {heads} heads .* heads of both kinds"):
            context_count(heads, share)


PARTED = SkiplessInit(mlp="mirrored", attention_diagonal=0.95, last_diagonal=0.2, context_heads=0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context_heads": 1.0}, "give a number from 0 to below 1"),
        ({"context_heads": -0.1}, "give a number from 0 to below 1"),
        ({"mlp": "orthogonal"}, "needs mlp='mirrored': mlp='orthogonal' would mix"),
        ({"last_diagonal": None}, "needs attention_diagonal, .* and last_diagonal"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(PARTED, **changes)


def test_diagonals_are_by_head_where_there_are_two_kinds() -> None:
    assert PARTED.head_diagonals(2, 2) == ((0.95, 0.2), (0.95, 0.2))
    assert replace(PARTED, context_heads=0.0).head_diagonals(2, 2) == replace(PARTED, context_heads=0.0).diagonals(2)
