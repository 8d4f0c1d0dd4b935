"""What a report of section 6.2 is made from: runs, and what their teachers were worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from skipless.experiments.dense.pretraining.history import Pretraining
from skipless.experiments.dense.pretraining.runs import Member
from skipless.experiments.dense.scale import DenseScale
from skipless.experiments.dense.scores.evaluation import Found
from skipless.experiments.dense.what import DenseWhat
from skipless.recipes.self_supervised import DinoRecipe

Scores = Mapping[tuple[Member, int, str], Found | None]
UNTRAINED = 0


@dataclass(frozen=True)
class DenseRuns:
    """The runs behind a table or figure, and what was found in them.

    Attributes:
        what: the table or figure.
        scale: at which scale.
        recipes: of every member.
        pretrained: what the runs' folders tell.
        epochs: whose teachers were evaluated; 0 is before training.
        scores: by member, epoch and the paper's name of the data; None where the run had collapsed.
        command: what the report names as its origin.
    """

    what: DenseWhat
    scale: DenseScale
    recipes: Mapping[Member, DinoRecipe]
    pretrained: Sequence[Pretraining]
    epochs: tuple[int, ...]
    scores: Scores
    command: str

    @property
    def recipe(self) -> DinoRecipe:
        """The first."""
        return next(iter(self.recipes.values()))
