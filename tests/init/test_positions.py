import pytest
import torch
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.init import orthogonal_positions, smooth_positions

SMALL = [(1, 1), (1, 2), (1, 3), (1, 4), (1, 7), (2, 2), (2, 3), (2, 8), (3, 1), (3, 3)]
GRIDS = [*SMALL, (4, 4), (5, 3), (8, 8), (14, 14)]


def cosines(rows: Tensor) -> Tensor:
    unit = nn.functional.normalize(rows.double(), dim=1)
    return unit @ unit.T


@pytest.mark.parametrize(("tokens", "dim"), [(1, 1), (3, 8), (17, 32), (32, 32), (197, 384)])
@pytest.mark.parametrize("rms", [0.02, 1.0, 3.5])
def test_rows_are_orthogonal_and_of_the_given_size(tokens: int, dim: int, rms: float) -> None:
    rows = orthogonal_positions(tokens, dim, rms, dtype=torch.float64)
    torch.testing.assert_close(rows @ rows.T, rms**2 * dim * torch.eye(tokens, dtype=torch.float64))


@pytest.mark.parametrize(("tokens", "dim"), [(33, 32), (197, 64), (50, 1)])
def test_more_rows_than_directions_have_one_size_and_are_as_orthogonal_as_fits(tokens: int, dim: int) -> None:
    rows = orthogonal_positions(tokens, dim, 2.0, dtype=torch.float64)
    torch.testing.assert_close(rows.square().mean(1), torch.full((tokens,), 4.0, dtype=torch.float64))
    if dim > 1:
        others = cosines(rows)[~torch.eye(tokens, dtype=torch.bool)]
        assert others.square().mean().sqrt().item() == pytest.approx(((tokens - dim) / (tokens * dim)) ** 0.5, rel=0.15)


@pytest.mark.parametrize(("rows", "columns"), GRIDS)
@pytest.mark.parametrize("dim", [32, 384])
def test_no_two_places_of_a_grid_are_alike(rows: int, columns: int, dim: int) -> None:
    """Half the cosines of two, three or four places told none, or few, of them apart."""
    x = smooth_positions(rows, columns, dim, 1.5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert x.shape == (rows * columns, dim)
    torch.testing.assert_close(x.square().mean(1), torch.full((rows * columns,), 2.25, dtype=torch.float64))
    assert cosines(x).fill_diagonal_(-1).max() < 0.96


@pytest.mark.parametrize("size", [8, 14, 16])
def test_neighbours_are_alike_and_far_patches_nearly_orthogonal(size: int) -> None:
    k = cosines(smooth_positions(size, size, 1024, generator=torch.Generator().manual_seed(0))).view(
        size, size, size, size
    )
    rows = [k[i, j, i, j + 1].item() for i in range(size) for j in range(size - 1)]
    columns = [k[i, j, i + 1, j].item() for i in range(size - 1) for j in range(size)]
    far = [k[i, j, i + 4, j + 4].item() for i in range(size - 4) for j in range(size - 4)]
    assert min(rows + columns) > 0.3
    assert abs(sum(far) / len(far)) < 0.1


def test_resized_to_a_finer_grid_smooth_rows_keep_their_size_and_orthogonal_ones_do_not() -> None:
    kept = {}
    generator = torch.Generator().manual_seed(0)
    made = {
        "smooth": smooth_positions(8, 8, 192, generator=generator),
        "orthogonal": orthogonal_positions(64, 192, generator=generator),
    }
    for name, rows in made.items():
        grid = rows.view(1, 8, 8, 192).permute(0, 3, 1, 2)
        finer = nn.functional.interpolate(grid, (16, 16), mode="bicubic", antialias=True)
        kept[name] = finer.square().mean().item()
    assert kept["smooth"] > 0.95
    assert 0.6 < kept["orthogonal"] < 0.75


@pytest.mark.parametrize("seed", [0, 1])
def test_a_seed_gives_one_draw_wherever_tensors_are_made(seed: int) -> None:
    for make in (lambda g: orthogonal_positions(5, 8, generator=g), lambda g: smooth_positions(3, 4, 8, generator=g)):
        first = make(torch.Generator().manual_seed(seed))
        with torch.device("meta"):
            again = make(torch.Generator("cpu").manual_seed(seed))
        assert torch.equal(first, again)
        assert not torch.equal(first, make(torch.Generator().manual_seed(seed + 5)))
        assert first.dtype == torch.float32


@pytest.mark.parametrize("rms", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_input_is_quoted(rms: float) -> None:
    for make in (lambda: orthogonal_positions(2, 3, rms), lambda: smooth_positions(2, 2, 3, rms)):
        with pytest.raises(InputError, match=f"a positive rms, got .*rms={rms}"):
            make()
    with pytest.raises(InputError, match="tokens=0"):
        orthogonal_positions(0, 3)
    with pytest.raises(InputError, match="0 x 4"):
        smooth_positions(0, 4, 3)
