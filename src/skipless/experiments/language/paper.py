"""What the paper states in Table 7, and what it can be held against."""

from collections.abc import Mapping
from typing import NamedTuple

from skipless.experiments.language.scales import LanguageRow

PAPER_SETTING = "Llama of 110 M parameters, C4, 20,480 steps of 262,144 tokens, AdamW"


class ZeroShotTask(NamedTuple):
    """One of Table 7's tasks.

    Attributes:
        title: its name in the table.
        questions: in the split that is scored.
        chance: accuracy of a guess, in percent.
        majority: accuracy of the most frequent answer, in percent; None where that is about chance.
    """

    title: str
    questions: int
    chance: float
    majority: float | None = None


TASKS: Mapping[str, ZeroShotTask] = {
    "boolq": ZeroShotTask("BoolQ", 3270, 50.0, 62.2),
    "hellaswag": ZeroShotTask("HellaSwag", 10042, 25.0),
    "winogrande": ZeroShotTask("Winogrande", 1267, 50.0),
    "piqa": ZeroShotTask("PIQA", 1838, 50.0),
    "social_iqa": ZeroShotTask("SIQA", 1954, 33.3),
}
"""By the name that lm-eval has for it."""

PAPER_TABLE7: Mapping[LanguageRow, Mapping[str, float]] = {
    "skip": {"boolq": 57.3, "hellaswag": 29.7, "winogrande": 50.9, "piqa": 63.9, "social_iqa": 36.5},
    "skipless + init": {"boolq": 61.2, "hellaswag": 28.2, "winogrande": 52.2, "piqa": 62.7, "social_iqa": 36.5},
}
"""Table 7: zero-shot accuracy in percent, one run a model, no spread stated. Without its initialisation the skipless
model "diverges immediately"."""
