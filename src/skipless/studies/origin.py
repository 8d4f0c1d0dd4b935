"""What a study is told of its model and its call, for the name of its folder and for its page."""

from dataclasses import dataclass

from skipless.choices import ModelState


@dataclass(frozen=True)
class Origin:
    """Where a study's numbers come from.

    Attributes:
        state: whose weights are measured; it becomes part of the folder's name. None leaves it out.
        command: the command line that makes the study again; empty where it was called from Python.

    Example:
        >>> Origin("untrained", "skipless eval runs/s1 knn").state
        'untrained'
    """

    state: ModelState | None = None
    command: str = ""


UNSAID = Origin()
