"""LanguageConfig: options of next-token prediction."""

from dataclasses import dataclass
from typing import Literal

from skipless.errors import InputError

OnStuck = Literal["report", "stop"]


@dataclass(frozen=True)
class LanguageConfig:
    """How the loss of a language model is computed, and when a model counts as stuck.

    Attributes:
        loss_chunk: tokens whose logits are in fp32 at once. The softmax of a chunk is computed again in the backward
            pass, so that no more than one is kept.
        watch_every: steps between two looks at the loss; 0 turns them off.
        watch_after: steps after the warm-up before a look can find a model stuck.
        stuck_share: a mean loss above this share of the text's unigram entropy is stuck: the model knows how frequent
            each token is, and no more.
        on_stuck: `report` tells it and goes on; `stop` ends the run.

    Raises:
        InputError: for what makes no sense.
    """

    loss_chunk: int = 2048
    watch_every: int = 100
    watch_after: int = 300
    stuck_share: float = 0.99
    on_stuck: OnStuck = "report"

    def __post_init__(self) -> None:
        for name, least in (("loss_chunk", 1), ("watch_every", 0), ("watch_after", 0)):
            if (value := getattr(self, name)) < least:
                raise InputError(f"{name} {value} is too small; give at least {least}")
        if not 0 < self.stuck_share <= 1:
            raise InputError(
                f"stuck_share {self.stuck_share} is no share of the unigram entropy; give 0.99 or the like"
            )
        if self.on_stuck not in ("report", "stop"):
            raise InputError(f"on_stuck {self.on_stuck!r}; give 'report' or 'stop'")
