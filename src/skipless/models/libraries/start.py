"""How a model that is built by its name starts, whichever library has it."""

from typing import TypedDict

from skipless.choices import Positions
from skipless.init import SkiplessInit


class Start(TypedDict):
    """What every builder of models takes by keyword.

    Attributes:
        skip: keep the skips.
        init: the scheme; None leaves the library's own initialisation.
        positions: without `init`, what position embeddings and prefix tokens start as.
        seed: of the weights, which depend on it alone.
    """

    skip: bool
    init: SkiplessInit | None
    positions: Positions
    seed: int
