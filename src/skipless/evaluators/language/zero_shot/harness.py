"""A model and a task in the evaluation harness. It imports the harness, which takes seconds: import it when needed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lm_eval.tasks
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from skipless.errors import InputError
from skipless.evaluators.language.zero_shot.tasks import TaskName, task_named

_STOCK = Path(lm_eval.tasks.__file__).parent


_Model: Any = HFLM  # its decorator hides from type checkers what it is


class Harnessed(_Model):
    """The harness' model of transformers, which counts what did not fit into the context."""

    asked = 0
    cut = 0

    def _loglikelihood_tokens(self, requests: list[Any], *args: Any, **kwargs: Any) -> list[tuple[float, bool]]:
        longest = max(len(answer) for _, _, answer in requests)
        if longest > self.max_length:
            raise InputError(
                f"an answer has {longest} tokens, the model's context {self.max_length}: it cannot be scored; give a "
                "larger context, if the model takes one, or leave this task out"
            )
        self.asked += len(requests)
        self.cut += sum(len(question) + len(answer) > self.max_length + 1 for _, question, answer in requests)
        return super()._loglikelihood_tokens(requests, *args, **kwargs)


def described(name: TaskName, folder: Path, local: tuple[str, Sequence[Path]] | None, cache: Path) -> None:
    """Write the description of a task for the harness: its own one, with local files in place of the hub's."""
    description: dict[str, Any] = {"include": str(_STOCK / task_named(name).stock), "task": name, "tag": []}
    if local is not None:
        reader, files = local
        kwargs = {"data_files": {"validation": [str(file) for file in files]}, "cache_dir": str(cache)}
        description |= {"dataset_path": reader, "dataset_name": None, "dataset_kwargs": kwargs}
        description |= {"training_split": None, "test_split": None}
    (folder / f"{name}.yaml").write_text(json.dumps(description), encoding="utf-8")  # JSON is YAML


def load_task(name: TaskName, folder: Path, *, on_hub: bool) -> Any:
    """Load a described task with its data.

    Raises:
        InputError: if the data cannot be had.
    """
    try:
        return TaskManager(include_path=str(folder), include_defaults=False).load([name])
    except Exception as error:  # the hub's client and `datasets` raise many kinds
        told = " ".join(str(error).split())
        task = task_named(name)
        if on_hub:
            raise InputError(
                f"{name} cannot be fetched from the hub ({task.hub}): {told[:200]}; give a folder of local copies "
                f"(data, --data-dir) with {name}/validation.jsonl or .parquet in it, of {', '.join(task.fields)}"
            ) from error
        raise InputError(f"the data of {name} cannot be read: {told}") from error


def run_task(model: Harnessed, loaded: Any, limit: int | None) -> dict[str, Any]:
    """Score a task, without any solved examples before a question: results, and what was answered to each."""
    for task in loaded["tasks"].values():
        task.set_config(key="num_fewshot", value=0)
    found = evaluate(lm=model, task_dict=loaded, limit=limit, log_samples=True)
    assert found is not None
    return dict(found)
