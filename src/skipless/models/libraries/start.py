"""How a model that is built by its name starts, whichever library has it."""

from typing import NotRequired, TypedDict

from skipless.choices import Positions
from skipless.init import SkiplessInit
from skipless.models.attention_config import AttentionConfig


class Start(TypedDict):
    """What every builder of models takes by keyword.

    Attributes:
        skip: keep the skips.
        init: the scheme; None leaves the library's own initialisation.
        positions: without `init`, what position embeddings and prefix tokens start as.
        seed: of the weights, which depend on it alone.
        attention: what stands for the softmax; asked for only where something does.
        skip_gain: what the skips of the last block multiply their tokens by, where that is not 1.
        blank: all weights will be overwritten; said only of such models.
    """

    skip: bool
    init: SkiplessInit | None
    positions: Positions
    seed: int
    attention: NotRequired[AttentionConfig]
    skip_gain: NotRequired[float]
    blank: NotRequired[bool]
