"""What the depth report trains: Table 1's models with other numbers of blocks."""

from typing import NamedTuple, get_args

from skipless.choices import OptimizerName, Row, slug
from skipless.errors import InputError
from skipless.experiments.depth.scales import DepthRow, DepthScale
from skipless.recipes.our_init import with_our_init
from skipless.recipes.recipe import Recipe
from skipless.registry import recipe_named


class DepthCell(NamedTuple):
    """A model, its optimizer, and its number of blocks."""

    row: DepthRow
    optimizer: OptimizerName
    depth: int

    @property
    def slug(self) -> str:
        """Its name as part of a path.

        Example:
            >>> DepthCell("skip + positions", "soap", 36).slug
            'skip-positions-soap-36'
        """
        return f"{slug(self.row)}-{self.optimizer}-{self.depth}"


# Peak learning rates are Table 1's, of 12 blocks, and at scenes those of `skipless train scenes`, of 6. This row is in
# neither: by hand, not on a grid (LOG.md), and at scenes that of the row `skip`.
POSITIONS_RATE: dict[tuple[DepthScale, OptimizerName], float] = {
    ("digits", "soap"): 2e-3,
    ("digits", "adamw"): 1e-3,
    ("fashion", "soap"): 1e-2,
    ("fashion", "adamw"): 3e-3,
    ("scenes", "soap"): 3e-3,
    ("scenes", "adamw"): 1e-3,
    ("digits", "muon"): 1e-3,  # as in Table 1: AdamW's, not tuned
    ("fashion", "muon"): 3e-3,
    ("scenes", "muon"): 1e-3,
}
GRID = (1 / 3, 1.0, 3.0)  # what `--tune` tries, times the rate of the cell


def depth_recipe(
    scale: DepthScale, cell: DepthCell, *, seed: int = 0, data: str | None = None, epochs: int | None = None
) -> Recipe:
    """One run of the report.

    Raises:
        InputError: for fewer than one block, a row that does not exist, or no folder at scale scenes.

    Example:
        >>> recipe = depth_recipe("digits", DepthCell("skipless + ours", "soap", 36))
        >>> recipe.model.kwargs["depth"], round(recipe.optimizer.block_lr, 3)
        (36, 0.111)
    """
    if cell.depth < 1:
        raise InputError(f"--depths {cell.depth}: a model has at least one block")
    if cell.row not in get_args(DepthRow):
        raise InputError(f"no row {cell.row!r}; there is {', '.join(get_args(DepthRow))}")
    positions = cell.row == "skip + positions"
    row = "skip" if cell.row == "skip + positions" else cell.row
    base = _twelve_blocks(scale, row, cell.optimizer, seed, data)
    made = base.with_(
        model__kwargs={**base.model.kwargs, "depth": cell.depth},
        model__positions="orthogonal" if positions else None,
        optimizer__lr=_rate(scale, cell, base.optimizer.lr),
        fit__epochs=epochs,
    )
    return with_our_init(made) if cell.row == "skipless + ours" else made


def _twelve_blocks(scale: DepthScale, row: Row, optimizer: OptimizerName, seed: int, data: str | None) -> Recipe:
    """What the recipe of another room trains, by the same names."""
    if scale == "scenes":
        return recipe_named("scenes")(row, optimizer, seed=seed, data=data)
    return recipe_named("table1")(scale, row, optimizer, seed=seed, data=data)


def _rate(scale: DepthScale, cell: DepthCell, own: float) -> float:
    """The peak rate of a cell that has not been tuned; without skips and without our rule it falls with depth."""
    if cell.row == "skip + positions":
        return POSITIONS_RATE[scale, cell.optimizer]
    return own * min(1.0, 12 / cell.depth) if cell.row in ("skipless", "skipless + init") else own
