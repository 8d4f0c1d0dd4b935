"""What the paper states in Table 7, and what it can be held against."""

from collections.abc import Mapping

from skipless.evaluators.language.zero_shot.tasks import TaskName
from skipless.experiments.language.scales import LanguageRow

PAPER_SETTING = "Llama of 110 M parameters, C4, 20,480 steps of 262,144 tokens, AdamW"


QUESTIONS: Mapping[TaskName, int] = {
    "boolq": 3270,
    "hellaswag": 10042,
    "winogrande": 1267,
    "piqa": 1838,
    "social_iqa": 1954,
}
"""In the split of each task that is scored."""

BOOLQ_MAJORITY = 62.2
"""Accuracy at BoolQ of always answering yes, in percent. No other task has an answer far above chance."""

PAPER_TABLE7: Mapping[LanguageRow, Mapping[TaskName, float]] = {
    "skip": {"boolq": 57.3, "hellaswag": 29.7, "winogrande": 50.9, "piqa": 63.9, "social_iqa": 36.5},
    "skipless + init": {"boolq": 61.2, "hellaswag": 28.2, "winogrande": 52.2, "piqa": 62.7, "social_iqa": 36.5},
}
"""Table 7: zero-shot accuracy in percent, one run a model, no spread stated. Without its initialisation the skipless
model "diverges immediately"."""
