"""The five tasks of Table 7: what the harness calls them, and what their data sets have."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from skipless.errors import InputError, did_you_mean

TaskName = Literal["boolq", "hellaswag", "winogrande", "piqa", "social_iqa"]


@dataclass(frozen=True)
class ZeroShotTask:
    """A task of the harness.

    Attributes:
        title: its name in tables.
        stock: the harness' own description of it, below its folder `tasks`.
        hub: the data set that this names, on Hugging Face's hub.
        part: the part of it that is this task's; empty where there is but one.
        fields: what every question has.
        label: the field that says which answer is right.
        labels: its values, each of one answer.
        answers: how many answers a question has.
    """

    title: str
    stock: str
    hub: str
    part: str
    fields: tuple[str, ...]
    label: str
    labels: tuple[Any, ...]
    answers: int

    @property
    def chance(self) -> float:
        """Accuracy of guesses, in per cent."""
        return 100 / self.answers


ZERO_SHOT_TASKS: Mapping[TaskName, ZeroShotTask] = {
    "boolq": ZeroShotTask(
        *("BoolQ", "super_glue/boolq/default.yaml", "aps/super_glue", "boolq"),
        *(("question", "passage", "label"), "label", (0, 1), 2),
    ),
    "hellaswag": ZeroShotTask(
        *("HellaSwag", "hellaswag/hellaswag.yaml", "Rowan/hellaswag", ""),
        *(("activity_label", "ctx_a", "ctx_b", "endings", "label"), "label", ("0", "1", "2", "3", 0, 1, 2, 3), 4),
    ),
    "winogrande": ZeroShotTask(
        *("Winogrande", "winogrande/default.yaml", "allenai/winogrande", "winogrande_xl"),
        *(("sentence", "option1", "option2", "answer"), "answer", ("1", "2"), 2),
    ),
    "piqa": ZeroShotTask(
        *("PIQA", "piqa/piqa.yaml", "baber/piqa", ""),
        *(("goal", "sol1", "sol2", "label"), "label", (0, 1), 2),
    ),
    "social_iqa": ZeroShotTask(
        *("SIQA", "siqa/siqa.yaml", "lighteval/siqa", ""),
        *(("context", "question", "answerA", "answerB", "answerC", "label"), "label", ("1", "2", "3", 1, 2, 3), 3),
    ),
}
"""By the name that the harness has for it; versions 2.0, 1.0, 1.0, 1.0 and 0.0 of lm-eval 0.4.13."""


def task_named(name: TaskName | str) -> ZeroShotTask:
    """The task of a name.

    Raises:
        InputError: if there is none.

    Example:
        >>> task_named("piqa").fields
        ('goal', 'sol1', 'sol2', 'label')
    """
    found = next((task for known, task in ZERO_SHOT_TASKS.items() if known == name), None)
    if found is None:
        near = did_you_mean(name, ZERO_SHOT_TASKS)
        raise InputError(f"no task {name!r}; {near}there is {', '.join(ZERO_SHOT_TASKS)}")
    return found
