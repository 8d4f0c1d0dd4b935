"""Where a local copy of a task's data set lies, and whether it is one."""

import re
from pathlib import Path
from typing import Any

from skipless.errors import InputError
from skipless.evaluators.language.zero_shot.tasks import TaskName, ZeroShotTask, task_named

# How the library `datasets` calls the reader of each kind of file.
_READERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".arrow": "arrow"}
_HELD_OUT = re.compile(r"(^|[-_.])(validation|valid|val|dev)([-_.]|$)")
_SHARD = re.compile(r"-(\d+)-of-(\d+)")


def task_files(name: TaskName, folder: Path) -> tuple[str, list[Path]]:
    """Find the validation split of a task in a folder of data sets.

    It is a file `NAME.jsonl`, or lies below `NAME/`, or below the data set's own folder as the hub has it. Its file, or
    the folder of it, is named by the split: `validation`, `valid`, `val` or `dev`.

    Returns:
        How `datasets` calls the reader of such files, and the files, in order.

    Raises:
        InputError: if there are none, or one cannot tell which are meant.
    """
    task = task_named(name)
    roots = list(dict.fromkeys(folder / part for part in (name, task.hub, task.hub.rpartition("/")[2])))
    found = [file for suffix in _READERS if (file := folder / f"{name}{suffix}").is_file()]
    for root in roots:
        found = found or _held_out(root)
    if not found:
        files = "validation.jsonl or validation.parquet (also valid, val, dev; shards; .json, .arrow)"
        raise InputError(
            f"no data of {name} in {str(folder)!r}: wanted is {folder / name}/{files}, as {task.hub} has it, with "
            f"the fields {', '.join(task.fields)}"
        )
    places = {file.parent for file in found}
    if len(places) > 1 and task.part:
        found = [file for file in found if task.part in file.relative_to(folder).parts] or found
    kinds = {file.suffix for file in found}
    whole = [file for file in found if not _SHARD.search(file.name)]
    if len({file.parent for file in found}) > 1 or len(kinds) > 1 or len(whole) > 1 or (whole and len(found) > 1):
        shown = ", ".join(str(file.relative_to(folder)) for file in found[:3])
        raise InputError(f"{str(folder)!r} has the validation split of {name} more than once ({shown}): keep one")
    _check_shards(name, found)
    return _READERS[found[0].suffix], found


def _check_shards(name: TaskName, files: list[Path]) -> None:
    """Refuse shards of which some are missing: `validation-00000-of-00003.parquet` names three."""
    numbered = [match for file in files if (match := _SHARD.search(file.stem))]
    if not numbered:
        return
    of, there = int(numbered[0][2]), {int(match[1]) for match in numbered}
    missing = [number for number in range(of) if number not in there]
    if missing:
        raise InputError(
            f"{str(files[0].parent)!r} lacks shard {missing[0]} of the {of} that the data of {name} has: copy it there"
        )


def _held_out(root: Path) -> list[Path]:
    files = sorted(file for file in root.rglob("*") if file.suffix in _READERS and file.is_file())
    return [file for file in files if _HELD_OUT.search(file.stem.lower()) or _HELD_OUT.search(file.parent.name.lower())]


def check_questions(name: TaskName, questions: Any, where: str) -> None:
    """Check that a data set has what a task needs.

    Args:
        name: of the task.
        questions: the data set, of the library `datasets`.
        where: it was read from.

    Raises:
        InputError: if fields are missing, it is empty, or its labels are hidden or of another form.
    """
    task: ZeroShotTask = task_named(name)
    missing = [field for field in task.fields if field not in questions.column_names]
    if missing:
        raise InputError(
            f"{where} has no field {', '.join(missing)}: it is no data of {name}, which has {', '.join(task.fields)}, "
            f"as {task.hub} on the hub"
        )
    if not len(questions):
        raise InputError(f"{where} has no questions")
    odd = next((value for value in questions[task.label] if value not in task.labels), None)
    if odd is not None or None in questions[task.label]:
        known = ", ".join(map(repr, task.labels))
        raise InputError(f"{where} has a {task.label} {odd!r}, not one of {known}: a test split hides its answers")
