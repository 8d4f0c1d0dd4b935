"""The training loop: the only one, for every task.

It draws all randomness from (seed, step), so that a run needs no generator's state to be taken up again: killed at any
moment and resumed, it computes bit for bit what it would have computed undisturbed (fp32, one CPU, as many threads).
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
from skipless.training.processes.collectives import check_same_step, report_lost_processes
from skipless.training.processes.launch import launch
from skipless.training.run_folder.async_writer import CheckpointWriter
from skipless.training.run_folder.checkpoint import CHECKPOINT, latest_checkpoint, set_aside_corrupt, snapshot
from skipless.training.run_folder.fingerprint import check_fingerprint, fingerprint
from skipless.training.run_folder.folder import RunFolder
from skipless.training.run_folder.provenance import provenance

CORRUPT = "corrupt.txt"
CHECKPOINT_SECONDS = 10.0  # at least, between checkpoints at the ends of short epochs: below 1 % of the time

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
    """Train, or go on with, or recognise as finished, the run in a folder.

    Args:
        task: called with a batch, returns 0-d tensors, "loss" among them; its attribute `model` is what is evaluated.
            It may have `StepHooks`. Under strategy `fsdp` it is in shards afterwards.
        dataset: of training.
        optimizer: of the task's parameters.
        schedule: learning rate of every step, counted from 0; written into every parameter group.
        out: the run folder, created if need be.
        config: defaults to `FitConfig()`.
        evaluate: named numbers of a model; called in the precision of training.
        measure: a slow look at the model, as JSON, every `config.measure_every` steps; called in full precision on one
            process, and written to `measurements.jsonl`. Training does not depend on it.
        recipe: what was asked for, all of it, as JSON; stored in `run.json`. A run resumes under the same recipe only
            (apart from the keys in `CHANGEABLE`).
        notes: what else `run.json` shall say, as JSON; compared with nothing.

    Returns:
        What came out; the task holds the trained weights, on the device of training.

    Raises:
        InputError: if the folder is in use, or holds a run of another recipe, or nothing usable; if the disk is full;
            if processes start from different weights, or one has lost the others.
        TrainingDiverged: if the loss or a weight is no longer finite or the task's hooks say so, now or when it ran.
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
        run = _Run(fabric, engine, schedule, evaluate, measurements, config, folder, expected, len(dataset))
        note = run.resume()
        record = _write_run_json(folder, run, recipe or {}, notes or {})
        with run.writer:
            run.train(dataset, record, note)
        return run.finish()


@dataclass(eq=False)
class _Run:
    """The state of a run between two steps, and what is done with it.

    Attributes:
        asked: the fingerprint that a checkpoint must share.
        step: optimizer steps taken.
        seconds: of training, without evaluations and checkpoints.
        logged: step and seconds at the last log line.
        metrics: of the last evaluation.
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
    step: int = 0
    seconds: float = 0.0
    logged: tuple[int, float] = (0, 0.0)
    metrics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.steps_per_epoch = steps_per_epoch(self.samples, self.config.batch_size)
        self.total_steps = self.config.total_steps(self.samples)
        self.meter = MetricMeter(self.fabric)
        self.writer = CheckpointWriter(self.folder.path)
        self._timer_start = self._last_checkpoint = time.perf_counter()

    @property
    def epoch(self) -> float:
        """Epochs done."""
        return self.step / self.steps_per_epoch

    def resume(self) -> str:
        """Take up the folder's last checkpoint, if there is one; return a line that says so."""
        state, note = latest_checkpoint(self.folder.path)
        damaged = bool(note)
        check_same_step(self.fabric, -1 if state is None else state["step"], str(self.folder.path))
        if state is not None:
            self._restore(state)
            note = f"{note + '. ' if note else ''}resumed at step {self.step} of {self.total_steps}"
        self.folder.open_log(self.step)
        self.measurements.open(self.step)
        if state is None and self.folder.writes:
            (self.folder.path / CORRUPT).unlink(missing_ok=True)  # of a run that never came to a checkpoint
        self.fabric.barrier()  # all have read before one may write
        if damaged and self.folder.writes:
            set_aside_corrupt(self.folder.path)
        return note

    def _restore(self, state: Mapping[str, Any]) -> None:
        source = str(self.folder.path / CHECKPOINT)
        check_fingerprint(state["asked"], self.expected, source)
        self.engine.restore(state, source)
        self.step, self.seconds, self.logged = state["step"], state["seconds"], state["logged"]
        self.metrics, self.writer.saved = state["metrics"], self.step
        self.meter.restore(state["window"])

    def checkpoint(self) -> None:
        """Take a snapshot of everything and have it written, unless it is no longer worth saving."""
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
        """Take the steps that are left."""
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
                    self._log_monitor(found)
                self.writer.check()
                traced()
                progress.advance(self.step)
                self._after_step(stop, progress, logger)

    def _log_monitor(self, found: Mapping[str, Any]) -> None:
        """Write down what a task has found out about itself, and stop if it asks for that."""
        self._update_seconds()
        self.folder.log({"step": self.step, "epoch": self.epoch, "seconds": self.seconds, "watch": found})
        if "stop" in found:
            raise self._diverged(f"{found['stop']} at step {self.step}", found.get("remedy", DIVERGED_REMEDY))

    def _after_step(self, stop: StopRequest, progress: Progress, logger: Logger) -> None:
        """Log, evaluate, measure and checkpoint where due, in this order: a checkpoint implies the lines before it."""
        config, last = self.config, self.step == self.total_steps
        if last or self.step % config.log_every == 0:
            line = self._log_line()
            self.folder.log(line)
            progress.report(line)
            logger(self.step, {f"train/{name}": value for name, value in line.items()})
        evaluation_steps = config.evaluate_every * self.steps_per_epoch
        if self.evaluate is not None and (last or (evaluation_steps and self.step % evaluation_steps == 0)):
            self.metrics = self._run_evaluation(self.evaluate)
            self.folder.log(
                {"step": self.step, "epoch": self.epoch, "seconds": self.seconds, "evaluation": self.metrics}
            )
            progress.note(f"epoch {self.epoch:g}  " + "  ".join(f"{k} {v:.5g}" for k, v in self.metrics.items()))
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
        # Only one process knows when the last one was written, and all must take part in the next.
        return self.step % self.steps_per_epoch == 0 and not (fresh and self.fabric.world_size == 1)

    def _log_line(self) -> dict[str, float | int]:
        """Describe the steps since the last line."""
        self._read_meter()
        self._update_seconds()
        steps, seconds = self.step - self.logged[0], self.seconds - self.logged[1]
        self.logged = self.step, self.seconds
        return {
            "step": self.step,
            "epoch": self.epoch,
            **self.meter.means(),
            "lr": self.schedule(self.step - 1),
            "images_per_second": steps * self.config.batch_size / seconds,
            "seconds": self.seconds,
        }

    def _run_evaluation(self, evaluate: Evaluate) -> dict[str, float]:
        self._read_meter()
        self._update_seconds()
        self.writer.wait()  # loaders fork their workers, best while no thread of ours is about
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
        """Back to training, whose time counts from now."""
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
        """Count the time since the last tick, or since the last pause, as training."""
        now = time.perf_counter()
        self.seconds, self._timer_start = self.seconds + now - self._timer_start, now

    def _diverged(self, what: str, remedy: str = DIVERGED_REMEDY) -> TrainingDiverged:
        """Record that the run is over."""
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
        if self.step % self.config.log_every:  # processes must agree, and agreeing waits for the device
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
        return FitResult(self.step, self.epoch, self.seconds, self.metrics)

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
    """Write `run.json`; a resumed run keeps its first description and appends where it went on."""
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
