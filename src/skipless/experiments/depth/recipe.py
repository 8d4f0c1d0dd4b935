"""What the depth report trains: Table 1's models with other numbers of blocks."""

from typing import NamedTuple

from skipless.choices import OptimizerName, slug
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


# Peak learning rates at 12 blocks, by row and optimizer. Rows that have no rule for depth are tuned at each (`--tune`);
# without tuning, rates of models without skips fall as 12 / depth, and others stay.
LEARNING_RATE: dict[tuple[DepthRow, OptimizerName], float] = {
    ("skip", "soap"): 1e-3,
    ("skip + positions", "soap"): 2e-3,
    ("skipless", "soap"): 1e-4,
    ("skipless + init", "soap"): 3e-3,
    ("skipless + ours", "soap"): 6e-3,
    ("skip", "adamw"): 1e-3,
    ("skip + positions", "adamw"): 1e-3,
    ("skipless", "adamw"): 1e-5,
    ("skipless + init", "adamw"): 3e-4,
    ("skipless + ours", "adamw"): 1e-3,
}
GRID = (1 / 3, 1.0, 3.0)  # what `--tune` tries, times the rate above


def depth_recipe(
    scale: DepthScale, cell: DepthCell, *, seed: int = 0, data: str | None = None, epochs: int | None = None
) -> Recipe:
    """One run of the report.

    Raises:
        InputError: for fewer than one block, or a row that does not exist.

    Example:
        >>> recipe = depth_recipe("digits", DepthCell("skipless + ours", "soap", 36))
        >>> recipe.model.kwargs["depth"], round(recipe.optimizer.block_lr, 3)
        (36, 0.111)
    """
    if cell.depth < 1:
        raise InputError(f"--depths {cell.depth}: a model has at least one block")
    if (cell.row, cell.optimizer) not in LEARNING_RATE:
        raise InputError(f"no row {cell.row!r} by {cell.optimizer!r}; there is {', '.join(map(str, LEARNING_RATE))}")
    positions = cell.row == "skip + positions"
    base: Recipe = recipe_named("table1")(
        scale, "skip" if positions else cell.row, cell.optimizer, seed=seed, data=data
    )
    made = base.with_(
        model__kwargs={**base.model.kwargs, "depth": cell.depth},
        model__positions="orthogonal" if positions else None,
        optimizer__lr=learning_rate(cell),
        fit__epochs=epochs,
    )
    return with_our_init(made) if cell.row == "skipless + ours" else made


def learning_rate(cell: DepthCell) -> float:
    """The peak rate of a cell that has not been tuned."""
    own = LEARNING_RATE[cell.row, cell.optimizer]
    return own * min(1.0, 12 / cell.depth) if cell.row in ("skipless", "skipless + init") else own
