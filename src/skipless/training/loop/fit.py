"""fit: the training loop of every task.

All randomness is a function of (seed, step), so resuming a run needs no state of a generator. A run that is killed at
any moment and resumed gives bit for bit the result of an uninterrupted one (fp32, one CPU, as many threads).
"""

import math
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim import Optimizer

from skipless.choices import ProgressKind
from skipless.data.loading.loader import BatchedDataset, Order, train_batches
from skipless.data.loading.steps import steps_per_epoch
from skipless.data.loading.workers import count_workers
from skipless.frozen import to_json
from skipless.training.config import FitConfig
from skipless.training.loop.engine import Engine, compiled_eagerly
from skipless.training.loop.loggers import Logger, open_loggers
from skipless.training.loop.measurements import Measure, PeriodicMeasurement
from skipless.training.loop.meters import MetricMeter
from skipless.training.loop.profiler import profiled, unprofiled
from skipless.training.loop.progress import Progress, show_progress
from skipless.training.loop.result import DIVERGED_REMEDY, FitResult, TrainingDiverged, finished_result
from skipless.training.loop.signals import StopRequest, TrainingStopped
from skipless.training.loop.units import Unit, unit_of
from skipless.training.processes.collectives import check_same_step, report_lost_processes
from skipless.training.processes.launch import launch
from skipless.training.run_folder.async_writer import CheckpointWriter
from skipless.training.run_folder.checkpoint import CHECKPOINT, latest_checkpoint, set_aside_corrupt, snapshot
from skipless.training.run_folder.fingerprint import check_fingerprint, fingerprint
from skipless.training.run_folder.folder import RunFolder
from skipless.training.run_folder.provenance import provenance

CORRUPT = "corrupt.txt"
CHECKPOINT_SECONDS = 10.0  # least time between checkpoints of short epochs: they then take under 1 % of a run

Schedule = Callable[[int], float]
Evaluate = Callable[[nn.Module], Mapping[str, float]]


def fit(
    task: nn.Module,
    dataset: BatchedDataset,
    optimizer: Optimizer,
    schedule: Schedule,
    *,
    out: Path | str,
    config: FitConfig | None = None,
    evaluate: Evaluate | None = None,
    measure: Measure | None = None,
    recipe: Mapping[str, Any] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> FitResult:
    """Start the run in a folder, resume it, or return its result if it has finished.

    Args:
        task: maps a batch to named 0-d tensors, "loss" among them. Its attribute `model` is evaluated. It may have
            `StepHooks`. Under strategy `fsdp` the task is sharded afterwards.
        dataset: the training set.
        optimizer: an optimizer of the task's parameters.
        schedule: maps a step, counted from 0, to its learning rate, which all parameter groups get.
        out: the run folder; created if it does not exist.
        config: defaults to `FitConfig()`.
        evaluate: maps a model to named metrics; called at the precision of training.
        measure: maps a model to a JSON measurement for `measurements.jsonl`. It is called every `config.measure_every`
            steps, in full precision, on one process, and does not influence training.
        recipe: everything that the run was asked for, as JSON, for `run.json`. A run can be resumed only with the same
            recipe, except for the keys in `CHANGEABLE`.
        notes: further JSON for `run.json`, which is not compared on resuming.

    Returns:
        The result. The task then holds the trained weights, on the device of training.

    Raises:
        InputError: if the folder is in use, holds a run of another recipe or no usable checkpoint; if the disk is full;
            if processes start from different weights, or this process has lost the others.
        TrainingDiverged: if the loss or a weight is not finite or the task's hooks end the run, now or in an earlier
            call.
        TrainingStopped: after Ctrl-C or SIGTERM, once the checkpoint is written.
    """
    config = config or FitConfig()
    fabric = launch(config.device, config.precision, config.strategy)
    with RunFolder(Path(out), writes=fabric.is_global_zero) as folder, report_lost_processes(fabric):
        expected = fingerprint(recipe or {}, config, len(dataset))
        if (result := finished_result(folder, expected, task)) is not None:
            return result
        measurements = PeriodicMeasurement(measure, config.measure_every, folder)
        engine = Engine(fabric, task, optimizer, config)
        run = _Run(
            fabric, engine, schedule, evaluate, measurements, config, folder, expected, len(dataset), unit_of(dataset)
        )
        note = run.resume()
        record = _write_run_json(folder, run, recipe or {}, notes or {})
        with run.writer:
            run.train(dataset, record, note)
        return run.finish()


@dataclass(eq=False)
class _Run:
    """The state of a run between two steps, and its operations.

    Attributes:
        expected: fingerprint that a checkpoint must match.
        step: number of optimizer steps taken.
        seconds: training time in seconds, without evaluations and checkpoints.
        logged: step and seconds at the last log line.
        metrics: metrics of the last evaluation.
        began: step at which this call went on.
        unit: what the log counts a second.
        faults: what the task's monitor has found and the user has been told.
    """

    fabric: Fabric
    engine: Engine
    schedule: Schedule
    evaluate: Evaluate | None
    measurements: PeriodicMeasurement
    config: FitConfig
    folder: RunFolder
    expected: Mapping[str, Any]
    samples: int
    unit: Unit
    step: int = 0
    seconds: float = 0.0
    logged: tuple[int, float] = (0, 0.0)
    metrics: dict[str, float] = field(default_factory=dict)
    began: int = 0
    faults: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.steps_per_epoch = steps_per_epoch(self.samples, self.config.batch_size)
        self.total_steps = self.config.total_steps(self.samples)
        self.meter = MetricMeter(self.fabric)
        self.writer = CheckpointWriter(self.folder.path)
        self._timer_start = self._last_checkpoint = time.perf_counter()

    @property
    def epoch(self) -> float:
        """Number of epochs done, with fractions."""
        return self.step / self.steps_per_epoch

    def resume(self) -> str:
        """Load the folder's last checkpoint, if there is one, and return a line for the user that says so."""
        state, note = latest_checkpoint(self.folder.path)
        damaged = bool(note)
        check_same_step(self.fabric, -1 if state is None else state["step"], str(self.folder.path))
        if state is not None:
            self._restore(state)
            note = f"{note + '. ' if note else ''}resumed at step {self.step} of {self.total_steps}"
        self.folder.open_log(self.step)
        self.measurements.open(self.step)
        if state is None and self.folder.writes:
            (self.folder.path / CORRUPT).unlink(missing_ok=True)  # of a run killed before its first checkpoint
        self.fabric.barrier()  # all processes must have read before one writes
        if damaged and self.folder.writes:
            set_aside_corrupt(self.folder.path)
        return note

    def _restore(self, state: Mapping[str, Any]) -> None:
        source = str(self.folder.path / CHECKPOINT)
        check_fingerprint(state["asked"], self.expected, source)
        self.engine.restore(state, source)
        self.step, self.seconds, self.logged = state["step"], state["seconds"], state["logged"]
        self.began = self.step
        self.metrics, self.writer.saved = state["metrics"], self.step
        self.meter.restore(state["window"])

    def checkpoint(self) -> None:
        """Take a snapshot of the run and start to write it; end the run if a weight is not finite."""
        self._check_finite()
        self._update_seconds()
        state = self.engine.state()
        if self.folder.writes:
            state |= {
                "step": self.step,
                "seconds": self.seconds,
                "logged": self.logged,
                "metrics": self.metrics,
                "window": self.meter.state(),
                "asked": self.expected,
            }
            self.writer.start(snapshot(state), self.step)
        self._timer_start = self._last_checkpoint = time.perf_counter()

    def train(self, dataset: BatchedDataset, record: Mapping[str, Any], note: str) -> None:
        """Take the remaining steps."""
        config, fabric = self.config, self.fabric
        order = Order(
            self.samples, config.batch_size, config.seed, self.step, config.accumulation,
            fabric.global_rank, fabric.world_size,
        )  # fmt: skip
        kind: ProgressKind = config.progress if fabric.is_global_zero else "none"
        progress = show_progress(kind, self.folder.path.name, self.total_steps)
        batches = train_batches(
            dataset, order, workers=count_workers(config.workers, dataset), pin_memory=fabric.device.type == "cuda",
            corrupt_log=self.folder.path / CORRUPT, on_corrupt=progress.note,
        )  # fmt: skip
        loggers = open_loggers(
            self.folder.path, record, self.step,
            tensorboard=config.tensorboard and fabric.is_global_zero, wandb=config.wandb and fabric.is_global_zero,
        )  # fmt: skip
        left = self.total_steps - self.step
        profiling = config.profile and fabric.is_global_zero and left > 0
        trace = profiled(self.folder.path, steps=left, device=fabric.device) if profiling else unprofiled()
        with closing(batches), loggers as logger, progress, StopRequest() as stop, trace as traced:
            if note:
                progress.note(note)
            self.engine.train()
            self._timer_start = time.perf_counter()
            if self.step == 0:
                self._run_measurement(progress)
            while self.step < self.total_steps:
                outputs, found = self.engine.take_step(self.step, self.schedule(self.step), batches)
                self.step += 1
                for output in outputs:
                    self.meter.add(output)
                if found is not None:
                    self._log_monitor(found, progress)
                self.writer.check()
                traced()
                progress.advance(self.step)
                self._after_step(stop, progress, logger)

    def _log_monitor(self, found: Mapping[str, Any], progress: Progress) -> None:
        """Log the line that a task's `after_step` returned, tell of a new fault, and end the run at `stop`."""
        self._update_seconds()
        self.folder.log({"step": self.step, "epoch": self.epoch, "seconds": self.seconds, "watch": found})
        if (kind := found.get("fault_kind")) is not None and kind not in self.faults:
            self.faults.add(kind)
            progress.note(f"! step {self.step}: {found['fault']}; {found['remedy']}")
        if "stop" in found:
            raise self._diverged(f"{found['stop']} at step {self.step}", found.get("remedy", DIVERGED_REMEDY))

    def _after_step(self, stop: StopRequest, progress: Progress, logger: Logger) -> None:
        """Log, evaluate, measure and checkpoint if due, in this order: a checkpoint implies the lines before it."""
        config, last = self.config, self.step == self.total_steps
        if last or self.step % config.log_every == 0:
            line = self._log_line()
            self.folder.log(line)
            progress.report(line)
            logger(self.step, {f"train/{name}": value for name, value in line.items()})
        evaluation_steps = config.evaluate_steps or config.evaluate_every * self.steps_per_epoch
        if self.evaluate is not None and (last or (evaluation_steps and self.step % evaluation_steps == 0)):
            self.metrics = self._run_evaluation(self.evaluate)
            self.folder.log(
                {"step": self.step, "epoch": self.epoch, "seconds": self.seconds, "evaluation": self.metrics}
            )
            where = f"step {self.step}" if config.evaluate_steps else f"epoch {self.epoch:g}"
            progress.note(f"{where}  " + "  ".join(f"{k} {v:.5g}" for k, v in self.metrics.items()))
            logger(self.step, {f"evaluation/{name}": value for name, value in self.metrics.items()})
        if self.measurements.due(self.step, last=last):
            self._run_measurement(progress)
        stopping = not last and self._should_stop(stop)
        if stopping or last or self._checkpoint_due():
            self.checkpoint()
        if stopping:
            raise self._stopped(stop)

    def _checkpoint_due(self) -> bool:
        if self.config.checkpoint_every:
            return self.step % self.config.checkpoint_every == 0
        fresh = time.perf_counter() - self._last_checkpoint < CHECKPOINT_SECONDS
        # Processes have clocks of their own, and all of them must take part in a checkpoint.
        return self.step % self.steps_per_epoch == 0 and not (fresh and self.fabric.world_size == 1)

    def _log_line(self) -> dict[str, float | int]:
        """Make the log line for the steps since the last one."""
        self._read_meter()
        self._update_seconds()
        steps, seconds = self.step - self.logged[0], self.seconds - self.logged[1]
        self.logged = self.step, self.seconds
        return {
            "step": self.step,
            "epoch": self.epoch,
            **self.meter.means(),
            "lr": self.schedule(self.step - 1),
            self.unit.rate: steps * self.config.batch_size * self.unit.of_a_sample / seconds,
            "seconds": self.seconds,
        }

    def _run_evaluation(self, evaluate: Evaluate) -> dict[str, float]:
        self._read_meter()
        self._update_seconds()
        self.writer.wait()  # loaders fork their workers, which is safest while no thread runs
        with self.fabric.autocast():
            metrics = {name: float(value) for name, value in evaluate(self.engine.model()).items()}
        self._return_to_training()
        return metrics

    def _run_measurement(self, progress: Progress) -> None:
        if not self.measurements.every:
            return
        self._check_finite()
        self._update_seconds()
        with compiled_eagerly(self.config):
            note = self.measurements.take(self.engine.model(), self.step, self.epoch)
        progress.note(note)
        self._return_to_training()

    def _return_to_training(self) -> None:
        """Return to training after a pause, which does not count as training time."""
        self.engine.release()
        self.engine.train()
        self._timer_start = time.perf_counter()

    def _check_finite(self) -> None:
        self._read_meter()
        if not self.engine.is_finite():
            raise self._diverged(f"the weights are no longer finite at step {self.step}")

    def _read_meter(self) -> None:
        losses = self.meter.read()
        bad = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), None)
        if bad is not None:
            step = self.step - (len(losses) - 1 - bad) // self.config.accumulation
            raise self._diverged(f"the loss is {losses[bad]} at step {step}")

    def _update_seconds(self) -> None:
        """Add the time since the last call, or since the last pause, to the training time."""
        now = time.perf_counter()
        self.seconds, self._timer_start = self.seconds + now - self._timer_start, now

    def _diverged(self, what: str, remedy: str = DIVERGED_REMEDY) -> TrainingDiverged:
        """Write `result.json` for a diverged run, and return the exception to raise."""
        self._update_seconds()
        self.writer.wait()
        reason = f"{what} of {self.total_steps} (learning rate {self.schedule(max(self.step - 1, 0)):.3g})"
        self.folder.write("result.json", self._result("diverged") | {"reason": reason, "last_evaluation": self.metrics})
        saved = self.writer.saved
        last = f"the last checkpoint is of step {saved}" if saved is not None else "there is no checkpoint"
        return TrainingDiverged(f"{self.folder.path} diverged: {reason}; {last}; {remedy}")

    def _should_stop(self, stop: StopRequest) -> bool:
        if self.fabric.world_size == 1:
            return stop.signal is not None
        if self.step % self.config.log_every:  # processes must agree, which waits for the device: not at every step
            return False
        wish = torch.tensor(float(stop.signal is not None), device=self.fabric.device)
        return bool(self.fabric.all_reduce(wish, reduce_op="sum"))

    def _stopped(self, stop: StopRequest) -> TrainingStopped:
        number = stop.signal or signal.SIGTERM
        self.writer.wait()
        if self.fabric.is_global_zero:
            where = f"step {self.step} of {self.total_steps}, checkpoint in {self.folder.path}"
            print(f"stopped by {number.name} at {where}; the same command goes on from there", file=sys.stderr)
        return TrainingStopped(128 + number)

    def finish(self) -> FitResult:
        """Write `result.json`."""
        self.folder.write("result.json", self._result("finished") | self.metrics)
        return FitResult(self.step, self.epoch, self.seconds, self.metrics, self.began, self.folder.path)

    def _result(self, status: str) -> dict[str, Any]:
        return {
            "status": status,
            "diverged": status == "diverged",
            "steps": self.step,
            "epochs": self.epoch,
            "seconds": self.seconds,
        }


def _write_run_json(
    folder: RunFolder, run: _Run, recipe: Mapping[str, Any], notes: Mapping[str, Any]
) -> dict[str, Any]:
    """Write `run.json`. A resumed run keeps the first description and appends the step at which it resumed."""
    now = provenance(run.fabric.device)
    earlier = folder.read("run.json") if run.step else None
    if earlier is not None:
        record = earlier | {"resumed": [*earlier["resumed"], {"step": run.step, **now}]}
    else:
        record = {
            "recipe": recipe,
            "fit": to_json(run.config),
            "seed": run.config.seed,
            "samples": run.samples,
            "steps_per_epoch": run.steps_per_epoch,
            "steps": run.total_steps,
            "parameters": sum(parameter.numel() for parameter in run.engine.task.parameters()),
            "processes": run.fabric.world_size,
            **notes,
            **now,
            "resumed": [],
        }
    folder.write("run.json", record)
    return record
