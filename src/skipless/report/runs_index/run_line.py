"""What a run folder tells of its run, whatever state it is in: nothing in it need be whole."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from skipless.choices import Row
from skipless.report.runs_index.damage import damaged_checkpoint, held_by_a_process

State = Literal["finished", "running", "cut off", "diverged", "damaged"]


@dataclass(frozen=True)
class RunLine:
    """A line of the index.

    Attributes:
        folder: of the run.
        state: how it stands.
        detail: more of its state, in words: at which step, why, which file is damaged.
        record: what `run.json` says; empty if it cannot be read.
        step, steps: how far it came, and how far it should; None where no file says it.
        metric: name of the number that it is judged by; empty if it was not evaluated.
        last, best: this number at the last evaluation, and the best of all.
        best_epoch: when that was.
        curve: epoch and training loss of every logged step.
        seconds: training time; None where no file says it.
    """

    folder: Path
    state: State
    detail: str
    record: Mapping[str, Any]
    step: int | None
    steps: int | None
    metric: str
    last: float | None
    best: float | None
    best_epoch: float | None
    curve: tuple[tuple[float, float], ...]
    seconds: float | None

    def at(self, path: str, default: Any = None) -> Any:
        """A value of `run.json` by its dotted path."""
        return _at(self.record, path, default)

    @property
    def row(self) -> Row | None:
        """The row of the paper's tables that its model belongs to; None where `run.json` does not say."""
        skip = self.at("recipe.model.skip")
        if not isinstance(skip, bool):
            return None
        init = self.at("recipe.model.init")
        if skip or not init:
            return "skip" if skip else "skipless"
        ours = isinstance(init, Mapping) and init.get("mlp") == "mirrored"
        return "skipless + ours" if ours else "skipless + init"

    @property
    def epochs(self) -> float | None:
        """Passes over the training set that were asked for; of a run that counts steps, those that they take."""
        steps, of_an_epoch = finite(self.at("fit.steps")), finite(self.at("steps_per_epoch"))
        return finite(self.at("fit.epochs")) if not (steps and of_an_epoch) else steps / of_an_epoch

    @property
    def final_loss(self) -> float | None:
        """Mean training loss over the last tenth of what was trained."""
        end = self.curve[-1][0] if self.curve else 0.0
        last = [loss for epoch, loss in self.curve if epoch >= 0.9 * end]
        return sum(last) / len(last) if last else None


def read_run_line(folder: Path, metrics: Sequence[str]) -> RunLine | str:
    """Read a folder with a run, or say why it is none.

    Args:
        folder: with a `run.json`, or with other files of a run.
        metrics: names of the numbers that runs are judged by, those that come first before others.
    """
    record, problem = _read(folder / "run.json")
    if not problem and not ({"recipe", "fit"} & record.keys()):
        return "its run.json is not of skipless train"
    result, also = _read(folder / "result.json", may_lack=True)
    lines, bad = _read_lines(folder / "metrics.jsonl")
    problems = [one for one in (problem, also, bad, damaged_checkpoint(folder)) if one]
    logged = [line for line in lines if finite(line.get("step")) is not None]
    step = int(max((line["step"] for line in logged), default=0)) if logged else _whole(result.get("steps"))
    steps = _whole(record.get("steps"))
    seconds = finite(result.get("seconds"))
    if seconds is None:
        seconds = max((s for line in logged if (s := finite(line.get("seconds"))) is not None), default=None)
    state, detail = _state(folder, result, step, steps, problems)
    metric, scores = _scores(lines, result, metrics)
    best = (min if any(word in metric for word in _LOWER_IS_BETTER) else max)(
        scores, key=lambda one: one[1], default=None
    )
    return RunLine(
        folder, state, detail, record, step, steps, metric, scores[-1][1] if scores else None,
        None if best is None else best[1], None if best is None else best[0], _curve(logged), seconds,
    )  # fmt: skip


def _state(
    folder: Path, result: Mapping[str, Any], step: int | None, steps: int | None, problems: Sequence[str]
) -> tuple[State, str]:
    where = f"at step {step or 0:,}" + ("" if steps is None else f" of {steps:,}")
    state: State
    if result.get("diverged"):
        state, detail = "diverged", str(result.get("reason") or where)
    elif result:
        state, detail = "finished", ""
    elif held_by_a_process(folder / ".lock"):
        state, detail = "running", where
    else:
        state, detail = "cut off", where
    if problems:
        return "damaged", "; ".join([*problems, f"{state} {detail}".strip()])
    return state, detail


def _scores(
    lines: Sequence[Mapping[str, Any]], result: Mapping[str, Any], metrics: Sequence[str]
) -> tuple[str, list[tuple[float, float]]]:
    """The number that the run is judged by, and its value at every evaluation with the epoch."""
    evaluated = [
        (finite(line.get("epoch")) or 0.0, line["evaluation"])
        for line in lines
        if isinstance(line.get("evaluation"), Mapping)
    ]
    evaluated = evaluated or [(finite(result.get("epochs")) or 0.0, result)]
    names = dict.fromkeys(name for _, found in evaluated for name in found)
    known = [name for name in metrics if name in names]
    others = [name for name in names if name not in _NO_METRICS]
    metric = next(iter([*known, *others]), "")
    pairs = [(epoch, value) for epoch, found in evaluated if (value := finite(found.get(metric))) is not None]
    return (metric, pairs) if pairs else ("", [])


def _curve(lines: Sequence[Mapping[str, Any]]) -> tuple[tuple[float, float], ...]:
    """Finite losses by epoch; if a resumed run logs a step twice, the last counts."""
    points: dict[float, tuple[float, float]] = {}
    for line in lines:
        epoch, loss = finite(line.get("epoch")), finite(line.get("loss"))
        if epoch is not None and loss is not None:
            points[line["step"]] = (epoch, loss)
    return tuple(points[step] for step in sorted(points))


def _read(file: Path, *, may_lack: bool = False) -> tuple[Mapping[str, Any], str]:
    """A JSON file's object, and what is wrong with it; empty where nothing is."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, "" if may_lack else f"{file.name} is missing"
    except OSError as error:
        return {}, f"{file.name} cannot be read ({error.strerror})"
    except (ValueError, RecursionError):
        return {}, f"{file.name} is not JSON that can be read"
    return (values, "") if isinstance(values, dict) else ({}, f"{file.name} holds no object")


def _read_lines(file: Path) -> tuple[list[Mapping[str, Any]], str]:
    """The lines that can be read, and how many cannot. A last line without its end is still being written."""
    try:
        lines = file.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return [], ""
    except OSError as error:
        return [], f"{file.name} cannot be read ({error.strerror})"
    found, bad = [], 0
    for line in lines:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            bad += line.endswith(b"\n")
            continue
        if isinstance(value, dict):
            found.append(value)
        else:
            bad += 1
    return found, f"{bad} of {len(lines)} lines of {file.name} are no JSON objects" if bad else ""


def finite(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # JSON has integers of any length
        return None
    return number if math.isfinite(number) else None


def _whole(value: Any) -> int | None:
    number = finite(value)
    return None if number is None else int(number)


def _at(values: Any, path: str, default: Any = None) -> Any:
    for key in path.split("."):
        values = values.get(key) if isinstance(values, Mapping) else None
    return default if values is None else values


_LOWER_IS_BETTER = ("loss", "bits_per_byte", "perplexity")  # in a metric's name
_NO_METRICS = ("loss", "n", "status", "diverged", "steps", "epochs", "seconds", "reason", "last_evaluation")
