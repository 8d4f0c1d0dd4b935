"""Teachers kept on the way: weights every so many epochs, for evaluations that no training should wait for."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch.distributed as dist
from torch import nn

from skipless.tasks import DINO
from skipless.training import save_weights

Evaluate = Callable[[nn.Module], Mapping[str, float]]
_NAME = re.compile(r"teacher-epoch-(\d+)\.safetensors")


def keep_teachers(
    task: DINO,
    folder: Path,
    every: int,
    epochs: int,
    evaluate: Evaluate | None,
    note: Mapping[str, str] | None = None,
) -> Evaluate:
    """An evaluation for `fit` that also writes the teacher to `folder` after every so many epochs and the last.

    A run that was killed and goes on writes again, with the same content, what it had written after its checkpoint.
    Whatever else lies there under such a name is an earlier run's, which was replaced before its first checkpoint: it
    is removed, lest it be taken for this one's.

    Args:
        task: whose teacher.
        folder: of the run.
        every: epochs between two files.
        epochs: of the run.
        evaluate: what else is evaluated.
        note: what the files say of themselves, `note_of`.
    """

    def keep(model: nn.Module) -> Mapping[str, float]:
        epoch, rest = divmod(task.steps_done, task.schedules.steps_per_epoch)
        due = rest == 0 and (epoch == epochs or epoch % every == 0)
        first = not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0
        if first:
            for kept, file in kept_teachers(folder).items():
                if kept > epoch or (kept % every and kept != epochs):
                    file.unlink()
        if first and due:
            save_weights(model, teacher_file(folder, epoch), note=note)
        return {} if evaluate is None else evaluate(model)

    return keep


def teacher_file(folder: Path, epoch: int) -> Path:
    """Where the teacher after so many epochs lies.

    Example:
        >>> teacher_file(Path("runs/d1"), 20).name
        'teacher-epoch-0020.safetensors'
    """
    return folder / f"teacher-epoch-{epoch:04d}.safetensors"


def kept_teachers(folder: Path) -> dict[int, Path]:
    """The files of a run by epoch, in order."""
    found = {int(match[1]): file for file in folder.glob("*.safetensors") if (match := _NAME.fullmatch(file.name))}
    return dict(sorted(found.items()))
