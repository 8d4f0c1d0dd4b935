"""What the report of few bits trains: models of Table 1, of generated scenes or of Table 7. None is trained rotated."""

from typing import NamedTuple

from skipless.choices import OptimizerName, Row, slug
from skipless.errors import InputError
from skipless.experiments.quantisation.scales import QuantisationRow, QuantisationScale
from skipless.recipes.recipe import Recipe
from skipless.registry import recipe_named

LANGUAGE_STEPS = 300
TRAINED: dict[QuantisationRow, Row] = {
    "skip": "skip",
    "skip, rotated": "skip",
    "skipless + init": "skipless + init",
    "skipless + ours": "skipless + ours",
}
"""Which model each row trains; the rotated one is the residual model with its stream turned."""


class QuantisationCell(NamedTuple):
    """A row of the report, and the optimizer that trained its model."""

    row: QuantisationRow
    optimizer: OptimizerName

    @property
    def slug(self) -> str:
        """Its trained model's name as part of a path; a rotated model has that of the model that is turned.

        Example:
            >>> QuantisationCell("skip, rotated", "soap").slug
            'skip-soap'
        """
        return f"{slug(TRAINED[self.row])}-{self.optimizer}"


def quantisation_recipe(
    scale: QuantisationScale,
    cell: QuantisationCell,
    *,
    seed: int = 0,
    data: str | None = None,
    epochs: int | None = None,
    steps: int | None = None,
) -> Recipe:
    """One run of the report, with the rates that its own table has tuned.

    At scale `language` the paper's scheme is read as `sharp`, since as it is printed the model does not learn.

    Raises:
        InputError: for a row that does not exist, no folder at scale scenes, or a length of the other kind.

    Example:
        >>> quantisation_recipe("digits", QuantisationCell("skip, rotated", "soap")).model.skip
        True
    """
    if cell.row not in TRAINED:
        raise InputError(f"no row {cell.row!r}; there is {', '.join(map(repr, TRAINED))}")
    row = TRAINED[cell.row]
    if scale == "language":
        if epochs is not None:
            raise InputError(f"--epochs {epochs}: at scale language the length is --steps")
        reading = "sharp" if row == "skipless + init" else "paper"
        made = recipe_named("language")("tiny", row, cell.optimizer, reading=reading, seed=seed, data=data)
        return made.with_(fit__steps=LANGUAGE_STEPS if steps is None else steps)
    if steps is not None:
        raise InputError(f"--steps {steps}: at scale {scale} the length is --epochs")
    if scale == "scenes":
        return recipe_named("scenes")(row, cell.optimizer, seed=seed, data=data).with_(fit__epochs=epochs)
    return recipe_named("table1")(scale, row, cell.optimizer, seed=seed, data=data).with_(fit__epochs=epochs)
