"""score_tasks: accuracy at zero-shot tasks, by the evaluation harness."""

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from skipless.data.text import ByteTokenizer, FileTokenizer, Tokenizer
from skipless.errors import InputError
from skipless.evaluators.language.zero_shot.local_files import check_questions, task_files
from skipless.evaluators.language.zero_shot.scores import TaskScore, TaskScores
from skipless.evaluators.language.zero_shot.tasks import ZERO_SHOT_TASKS, TaskName, task_named
from skipless.models.eval_mode import evaluating
from skipless.models.libraries.hf_tokenizer import check_vocabulary, fast_tokenizer
from skipless.optional import how_to_install, is_installed


def score_tasks(
    model: nn.Module,
    tokenizer: Tokenizer | Any,
    tasks: Sequence[str] = tuple(ZERO_SHOT_TASKS),
    *,
    data: Path | str | None = None,
    limit: int | None = None,
    context: int | None = None,
    batch_size: int = 16,
    begins: bool | None = None,
) -> TaskScores:
    """Measure a causal model of transformers at the tasks of Table 7, zero-shot, by `lm-eval`.

    The harness itself asks and counts: of every question it takes the log-likelihood of each answer, and the answer
    with the highest counts. Its descriptions of the tasks are taken as they are; with `data` they read local files.

    Args:
        model: one of transformers' models, with skips or without. It is evaluated on its own device.
        tokenizer: of its ids: one of ours, `bytes` too, or one of transformers'.
        tasks: `boolq`, `hellaswag`, `winogrande`, `piqa`, `social_iqa`.
        data: folder of local copies, a folder `boolq/` or a file `boolq.jsonl` a task, in the form that the data set
            has on the hub, as JSON lines, Parquet or Arrow; no network is used. None takes the hub.
        limit: take the first questions of each task only.
        context: tokens that the model sees at most; None takes its configuration's. What is longer loses its beginning.
        batch_size: answers at once.
        begins: whether the tokenizer's beginning-of-text token stands before each question. None takes what it does by
            itself; with one of our tokenizers that is an end of document, as in training.

    Raises:
        InputError: if lm-eval is missing, a task is unknown, its data is not there or of another form, the model is not
            transformers', or the tokenizer has more ids than the model.
    """
    names, local = check_tasks(tasks, data)
    if limit is not None and limit < 1:
        raise InputError(f"limit {limit}: give at least 1 question, or none for all")
    for name, value in (("context", context), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise InputError(f"{name} {value}: give at least 1")
    with tempfile.TemporaryDirectory() as place, evaluating(model):
        lm = _harnessed(model, tokenizer, context, batch_size, begins)
        scores = []
        for name in names:
            found = _run(lm, name, local[name], Path(place), limit)
            scores.append(_score(name, found, lm.cut / lm.asked))
            lm.asked = lm.cut = 0
    begun = lm.tok_encode("a")[:1] == [lm.tokenizer.bos_token_id]
    return TaskScores(tuple(scores), lm.max_length, begun, version("lm_eval"), limit)


def _run(lm: Any, name: TaskName, local: Any, place: Path, limit: int | None) -> dict[str, Any]:
    from skipless.evaluators.language.zero_shot.harness import described, load_task, run_task

    folder = place / name
    folder.mkdir()
    described(name, folder, local, place / "cache")
    with _quiet():
        loaded = load_task(name, folder, on_hub=local is None)
        (task,) = loaded["tasks"].values()
        where = task_named(name).hub if local is None else str(local[1][0])
        check_questions(name, task.dataset[task.config.validation_split], where)
        return run_task(lm, loaded, limit)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars of `datasets` for each file, and the harness' warnings: one for each question that is cut."""
    from datasets.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

    log, shown = logging.getLogger("lm_eval"), is_progress_bar_enabled()
    level = log.level
    disable_progress_bar()
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
        if shown:
            enable_progress_bar()


def needs_harness() -> None:
    """Refuse to go on without lm-eval, and what its models of transformers need.

    Raises:
        InputError: that says how to install it.
    """
    if not (is_installed("lm_eval") and is_installed("peft")):  # which `lm-eval` alone lacks, `lm-eval[hf]` not
        raise InputError(f"zero-shot tasks are scored by lm-eval: {how_to_install('lm_eval')}")


def check_tasks(tasks: Sequence[str], data: Path | str | None) -> tuple[list[TaskName], dict[TaskName, Any]]:
    """The tasks of some names, and the local files of each, before anything is computed; None is the hub.

    Raises:
        InputError: if a task is unknown, lm-eval is missing, or its data is not there.
    """
    names = checked_tasks(tasks)
    needs_harness()
    folder = None if data is None else _folder(data)
    return names, {name: None if folder is None else task_files(name, folder) for name in names}


def checked_tasks(tasks: Sequence[str]) -> list[TaskName]:
    """The tasks of some names, in the order of Table 7.

    Raises:
        InputError: for an unknown one, or none.
    """
    if isinstance(tasks, str) or not tasks:
        raise InputError(f"tasks {tasks!r}: give a list of {', '.join(ZERO_SHOT_TASKS)}")
    for name in tasks:
        task_named(name)
    return [name for name in ZERO_SHOT_TASKS if name in tasks]


def _folder(data: Path | str) -> Path:
    folder = Path(data).expanduser()
    if not folder.is_dir():
        raise InputError(f"{str(data)!r} is no folder: local copies of the tasks' data sets are looked for there")
    return folder.resolve()


def _harnessed(model: Any, tokenizer: Any, context: int | None, batch_size: int, begins: bool | None) -> Any:
    """The model as the harness takes it.

    Raises:
        InputError: if it is none of transformers', or has fewer ids than the tokenizer.
    """
    if not (hasattr(model, "config") and hasattr(model, "tie_weights") and hasattr(model, "get_input_embeddings")):
        raise InputError(f"lm-eval takes transformers' models, and `{type(model).__name__}` is none of them")
    ours = isinstance(tokenizer, ByteTokenizer | FileTokenizer)
    if isinstance(tokenizer, FileTokenizer):
        tokenizer = fast_tokenizer(tokenizer.file, tokenizer.end_token)
    elif ours:
        tokenizer = fast_tokenizer()
    if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
        raise InputError(
            "the tokenizer names neither a beginning nor an end of text, one of which stands before a text: set "
            "eos_token in its tokenizer_config.json"
        )
    check_vocabulary(model, max(tokenizer.get_vocab().values()) + 1, type(tokenizer).__name__)
    from skipless.evaluators.language.zero_shot.harness import Harnessed

    begin = True if ours and begins is None else begins
    options = {"batch_size": batch_size, "max_length": context, "add_bos_token": begin}
    with _quiet():
        return Harnessed(pretrained=model, tokenizer=tokenizer, backend="causal", **options)


def _score(name: TaskName, found: dict[str, Any], cut: float) -> TaskScore:
    task, result, asked = task_named(name), found["results"][name], found["samples"][name]
    labels = Counter(str(int(one["doc"][task.label])) for one in asked)

    def percent(key: str) -> float | None:
        value = result.get(f"{key},none")
        return 100 * value if isinstance(value, float | int) else None

    accuracy = percent("acc")
    assert accuracy is not None
    return TaskScore(
        task=name,
        title=task.title,
        accuracy=accuracy,
        error=percent("acc_stderr"),
        normalized=percent("acc_norm"),
        normalized_error=percent("acc_norm_stderr"),
        n=len(asked),
        chance=task.chance,
        majority=100 * max(labels.values()) / len(asked),
        cut=cut,
        version=str(found["versions"][name]),
    )
