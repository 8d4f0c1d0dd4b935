"""Language: bits per byte of held-out text beside floors, loss by position, and samples of text."""

from skipless.evaluators.language.floors import TextFloors, text_floors
from skipless.evaluators.language.held_out import TextScore, score_text
from skipless.evaluators.language.sample import TextSample, sample_text
from skipless.evaluators.language.zero_shot.score_tasks import score_tasks
from skipless.evaluators.language.zero_shot.scores import TaskScore, TaskScores

__all__ = [
    "TaskScore",
    "TaskScores",
    "TextFloors",
    "TextSample",
    "TextScore",
    "sample_text",
    "score_tasks",
    "score_text",
    "text_floors",
]
