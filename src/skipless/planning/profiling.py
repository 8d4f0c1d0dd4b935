"""profile_run: times the first seconds of a real run through torch's global hooks, and then ends it."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from skipless.data import ImageData, Order, TextData, count_workers, train_batches
from skipless.data.loading.loader import BatchedDataset
from skipless.data.loading.steps import steps_per_epoch
from skipless.data.memory import MemoryImages
from skipless.errors import InputError
from skipless.optim import SOAP
from skipless.planning.bottlenecks import RunProfile, Seconds
from skipless.recipes import Recipe
from skipless.tasks import DINO, Supervised
from skipless.training.loop.fit import CHECKPOINT_SECONDS
from skipless.training.processes.launch import launch
from skipless.training.run_folder.checkpoint import save_checkpoint

_REFRESH_EVERY = 4  # steps between refreshes while profiling; their cost is the same, and some must be measured
_TARGET_UPDATES = 2 * _REFRESH_EVERY + 2  # the first, which only initialises state, two refreshes, and others
_MIN_UPDATES = 3
_MAX_SECONDS = 60.0  # time limit for _TARGET_UPDATES, and for _MIN_UPDATES
_LOADER_BATCH = 32  # images of a batch when the loader is timed
_EVALUATED, _WARM_UP = 64, 8  # images that are evaluated to estimate an evaluation's time, and to warm up


class _ProfilingDone(BaseException):
    """Ends the profiled run; it is not an Exception, so that no handler takes it for a failure."""


@dataclass
class _StepTimer:
    """Timer of the parts of a run's steps.

    Attributes:
        seconds: time to profile for, in seconds.
        began: time at which the first forward pass began.
        task: task of the run.
        optimizer: optimizer of the run.
        between: seconds between steps, in the order of the steps.
        passes: seconds of forward and backward pass.
        updates: seconds of optimizer steps.
    """

    seconds: float
    began: float | None = None
    task: Supervised | DINO | None = None
    optimizer: Optimizer | None = None
    between: list[float] = field(default_factory=list)
    passes: list[float] = field(default_factory=list)
    updates: list[float] = field(default_factory=list)
    _forward: float | None = None
    _pre: float = 0.0
    _post: float | None = None

    @property
    def max_seconds(self) -> float:
        """Seconds after which profiling ends with fewer updates."""
        return max(self.seconds, _MAX_SECONDS)

    def forward(self, module: nn.Module, _inputs: Any) -> None:
        """Called when a forward pass of the task begins; the first one of a step ends the time between steps."""
        if not isinstance(module, Supervised | DINO) or not module.training:
            return
        now = _now(module)
        self.began = now if self.began is None else self.began
        self.task = module
        if self._forward is None:
            if self._post is not None:
                self.between.append(now - self._post)
            self._forward = now
        if now - self.began > self.max_seconds:
            raise _ProfilingDone

    def before_update(self, optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        """Called when the gradients are complete."""
        if self.task is not None and self._forward is not None:
            self.optimizer, self._pre = optimizer, _now(self.task)
            self.passes.append(self._pre - self._forward)

    def after_update(self, _optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        """Called when the weights are updated."""
        if self.task is None or self.began is None or self._forward is None:
            return
        self._post = _now(self.task)
        self.updates.append(self._post - self._pre)
        self._forward = None
        elapsed, seen = self._post - self.began, len(self.updates)
        if (elapsed > self.seconds and seen >= _TARGET_UPDATES) or (
            elapsed > self.max_seconds and seen >= _MIN_UPDATES
        ):
            raise _ProfilingDone

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time all tasks and optimizers of this process within the context."""
        hooks = [
            register_module_forward_pre_hook(self.forward),
            register_optimizer_step_pre_hook(self.before_update),
            register_optimizer_step_post_hook(self.after_update),
        ]
        try:
            yield
        except _ProfilingDone:
            pass
        finally:
            for hook in hooks:
                hook.remove()


def profile_run(recipe: Recipe, *, seconds: float = 8.0) -> RunProfile:
    """Run a recipe for some seconds in a temporary folder, and profile it.

    The run is that of the recipe, with two exceptions. Evaluations and checkpoints are timed separately, and SOAP's
    bases are refreshed more often, so that some refreshes are measured.

    Args:
        recipe: the recipe to profile.
        seconds: time to profile for. It is extended, up to a minute, until a few steps and refreshes are measured.

    Raises:
        InputError: if three steps take longer than a minute, or the recipe or its data cannot be used.
    """
    if not seconds > 0:
        raise InputError(f"--seconds {seconds}: give a number above 0")
    fabric = launch(recipe.fit.device, recipe.fit.precision)
    loaded = recipe.load()
    train, labelled = loaded.train, loaded.labelled if loaded.text is None else loaded.text
    loader = _loader_rate(train, recipe, seconds / 2)
    timer = _StepTimer(seconds)
    with tempfile.TemporaryDirectory(prefix="skipless-doctor-") as folder:
        with timer.running():
            _start(recipe, Path(folder) / "run")
        if len(timer.updates) < _MIN_UPDATES or timer.task is None or timer.optimizer is None:
            batch = f"{recipe.fit.batch_size} {_unit(recipe)}s"
            raise InputError(
                f"fewer than {_MIN_UPDATES} steps of {batch} in {timer.max_seconds:g} s; give a smaller --batch-size, "
                "or more --seconds"
            )
        checkpoint = _checkpoint_seconds(timer, Path(folder))
    return _profile(recipe, timer, train, loader, checkpoint, _evaluation_seconds(recipe, fabric, timer.task, labelled))


def _start(recipe: Recipe, out: Path) -> None:
    """Start the run, without evaluations and checkpoints, and with frequent refreshes."""
    watched = recipe.bare().with_(
        optimizer__precondition_frequency=min(_REFRESH_EVERY, recipe.optimizer.precondition_frequency)
    )
    watched.run(out)


def _loader_rate(dataset: BatchedDataset, recipe: Recipe, seconds: float) -> float:
    """Return the samples/s of the loader alone, once its workers have started."""
    fit = recipe.fit
    size = min(len(dataset), fit.batch_size // fit.accumulation)
    size = size if isinstance(dataset, MemoryImages) else min(size, _LOADER_BATCH)
    workers = count_workers(fit.workers, dataset)
    batches = train_batches(dataset, Order(len(dataset), size, fit.seed), workers=workers)
    try:
        next(batches)
        start, count = time.perf_counter(), 0
        while count < 2 * max(workers, 1) or time.perf_counter() - start < seconds:
            next(batches)
            count += 1
            if time.perf_counter() - start > 3 * seconds and count:
                break
        return count * size / (time.perf_counter() - start)
    finally:
        batches.close()


def _checkpoint_seconds(timer: _StepTimer, folder: Path) -> float:
    """Return the seconds that it takes to write one checkpoint."""
    assert timer.task is not None
    assert timer.optimizer is not None
    start = time.perf_counter()
    save_checkpoint(folder, {"task": timer.task.state_dict(), "optimizer": timer.optimizer.state_dict()})
    return time.perf_counter() - start


def _evaluation_seconds(
    recipe: Recipe, fabric: Fabric, task: nn.Module, data: ImageData | TextData | None
) -> float | None:
    """Return the seconds of one evaluation, extrapolated from a part of it after a warm-up."""
    if data is None:
        return None
    model: Any = task.model
    most = len(data.val) if isinstance(data.val, MemoryImages) else _EVALUATED
    with fabric.autocast():
        recipe.evaluation(data, _WARM_UP)(model)
        start = time.perf_counter()
        recipe.evaluation(data, most)(model)
        share = recipe.evaluated(data, most) / recipe.evaluated(data)
        return (time.perf_counter() - start) / share


def _update_seconds(updates: list[float], every: int) -> tuple[Seconds | None, Seconds | None]:
    """Seconds of ordinary updates and of those that refresh; the first update also initialises the state."""
    shown = min(_REFRESH_EVERY, every)
    refreshing = [bool(shown) and index % shown == 0 for index in range(len(updates))]
    later = list(zip(updates, refreshing, strict=True))[1:]
    ordinary = [seconds for seconds, refreshes in later if not refreshes] or [seconds for seconds, _ in later]
    return Seconds.of(ordinary), Seconds.of([seconds for seconds, refreshes in later if refreshes])


def _profile(
    recipe: Recipe,
    timer: _StepTimer,
    train: BatchedDataset,
    loader: float,
    checkpoint: float,
    evaluation: float | None,
) -> RunProfile:
    """Summarise the timings, without the first step, and with SOAP's refreshes separate from other updates."""
    fit, optimizer = recipe.fit, timer.optimizer
    every = recipe.optimizer.precondition_frequency if isinstance(optimizer, SOAP) else 0
    between, passes = Seconds.of(timer.between), Seconds.of(timer.passes[1:])
    update, refresh = _update_seconds(timer.updates, every)
    assert between is not None
    assert passes is not None
    assert update is not None
    per_epoch = steps_per_epoch(len(train), fit.batch_size)
    step = between.median + passes.median + update.median
    apart = max(per_epoch, round(CHECKPOINT_SECONDS / step))
    processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    return RunProfile(
        device=next(timer.task.parameters()).device.type if timer.task is not None else "cpu",
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        workers=count_workers(fit.workers, train),
        batch_size=fit.batch_size // processes,
        precision=fit.precision,
        optimizer_name=type(optimizer).__name__,
        loader=loader,
        between=between,
        passes=passes,
        update=update,
        refresh=refresh,
        refresh_every=every,
        evaluation=evaluation,
        checkpoint=checkpoint,
        steps_per_epoch=per_epoch,
        evaluate_every=fit.evaluate_every,
        checkpoint_every=fit.checkpoint_every or apart,
        processes=processes,
        unit=_unit(recipe),
    )


def _unit(recipe: Recipe) -> str:
    return "window" if recipe.reads_text else "image"


def _now(module: nn.Module) -> float:
    """Return the time, once the device has finished all work so far."""
    device = next(module.parameters()).device
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
