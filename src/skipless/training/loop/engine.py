"""Engine: optimizer steps of a task on one device, replicated (DDP) or sharded (FSDP2), behind one interface."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from skipless.data.loading.seeding import derive_seed, seed_all
from skipless.errors import InputError
from skipless.models import block_views
from skipless.optim import gathered_state, load_gathered_state_
from skipless.training.config import FitConfig
from skipless.training.loop.hooks import step_hooks
from skipless.training.processes.consistency import check_consistency, checksums
from skipless.training.processes.sharding import (
    UnshardedCopies,
    full_state_dict_on_cpu,
    full_tensor,
    parameter_names,
    rebind_parameters_,
)
from skipless.training.run_folder.checkpoint import check_tensors, load_tensors_

Outputs = list[Mapping[str, Tensor]]


class Engine:
    """Takes optimizer steps, and saves and restores their state, under every strategy.

    Args:
        fabric: already launched.
        task: the task, as `fit` takes it. Under FSDP2, all processes but the first may hold it on the meta device.
        optimizer: an optimizer of the task's parameters that has not stepped yet.
        config: options of the run.

    Attributes:
        task: the task; under FSDP2 it is sharded from now on.
        optimizer: the optimizer itself. Steps are taken by fabric's wrapper of it.

    Raises:
        InputError: if the processes do not start from the same weights.
    """

    def __init__(self, fabric: Fabric, task: nn.Module, optimizer: Optimizer, config: FitConfig) -> None:
        self.fabric, self.task, self.optimizer, self.config = fabric, task, optimizer, config
        sharded = config.strategy == "fsdp" and fabric.world_size > 1
        self._copies = UnshardedCopies(task) if sharded else None
        before = _check_replicas(fabric, task, deferrable=sharded)
        if config.compile:
            _compile_(task, fabric.device)
        if sharded:
            names = parameter_names(task)
            self._module = fabric.setup(task)
            rebind_parameters_(optimizer, task, names)
            check_consistency(fabric, full_state_dict_on_cpu(task), before)
            self._wrapped: Any = fabric.setup_optimizers(optimizer)
        else:
            self._module, self._wrapped = fabric.setup(task, optimizer)
        self.hooks = step_hooks(task)
        if self._copies is not None and hasattr(task, "whole"):
            task.whole = self._copies.of  # pyright: ignore[reportArgumentType] (no parameter, no module)

    def train(self) -> None:
        """Switch the task to training mode."""
        self._module.train()

    def take_step(self, step: int, rate: float, batches: Iterator[Any]) -> tuple[Outputs, Mapping[str, Any] | None]:
        """Take one optimizer step. Nothing in it waits for the device.

        Returns:
            The task's outputs for each micro-batch, and the line for `metrics.jsonl` that its `after_step` returned.
        """
        config, fabric = self.config, self.fabric
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        if self.hooks is not None:
            self.hooks.before_step(step, self.optimizer)
        outputs: Outputs = []
        for micro in range(config.accumulation):
            batch = fabric.to_device(next(batches))
            seed_all(derive_seed(config.seed, "step", step, micro, fabric.global_rank), fabric.device)
            more_to_come = micro + 1 < config.accumulation
            with fabric.no_backward_sync(self._module) if more_to_come and fabric.world_size > 1 else nullcontext():
                output = self._module(*batch)
                fabric.backward(output["loss"] / config.accumulation)
            outputs.append(output)
        noted = self._noted_before_update(step)
        self._wrapped.step()
        self._wrapped.zero_grad()
        found = self.hooks.after_step(step) if self.hooks is not None else None
        if found is not None:
            self.release()  # the hook may have gathered full parameters
        return [{**output, **noted} for output in outputs], found

    def _noted_before_update(self, step: int) -> dict[str, Tensor]:
        """Clip the gradients and call the task's `before_update`; return the scalars to log."""
        noted: dict[str, Tensor] = {}
        if self.config.clip_norm is not None:
            norm = self.fabric.clip_gradients(
                self._module, self._wrapped, max_norm=self.config.clip_norm, error_if_nonfinite=False
            )
            noted["grad_norm"] = full_tensor(norm)  # pyright: ignore[reportArgumentType]
        elif self.hooks is not None:
            self.fabric.strategy.precision.unscale_gradients(self.optimizer)
        if self.hooks is not None:
            noted |= self.hooks.before_update(step)
        return noted

    def model(self) -> nn.Module:
        """Return the model to evaluate, unsharded, with its present weights. All processes must call this together."""
        model = getattr(self.task, "model", self.task)
        return model if self._copies is None else self._copies.of(model)

    def release(self) -> None:
        """Free the full weights that `model` gathered."""
        if self._copies is not None:
            self._copies.release()

    def is_finite(self) -> bool:
        """Tell whether all weights are finite. All processes must call this together."""
        return bool(full_tensor(get_total_norm(self.task.parameters())).isfinite())

    def state(self) -> dict[str, Any]:
        """Return what the next step depends on, unsharded, as copies on the first process's CPU; {} on the others."""
        first = self.fabric.is_global_zero
        task = full_state_dict_on_cpu(self.task, keep=first)
        optimizer = gathered_state(self.optimizer)
        if not first:
            return {}
        return {
            "optimizer_name": type(self.optimizer).__name__,
            "scaler": self.fabric.strategy.precision.state_dict(),
            "task": task,
            "optimizer": optimizer,
        }

    def restore(self, state: Mapping[str, Any], source: str) -> None:
        """Restore a `state` that any strategy and any number of processes may have saved; the same on every process.

        Raises:
            InputError: if the state belongs to another model or another optimizer.
        """
        kind = type(self.optimizer).__name__
        check_tensors(self.task, state["task"], source)
        if state["optimizer_name"] != kind:
            raise InputError(f"{source!r} was made with {state['optimizer_name']}, not {kind}; give another --out")
        load_tensors_(self.task, state["task"], source)
        load_gathered_state_(self.optimizer, state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["scaler"])


def _check_replicas(fabric: Fabric, task: nn.Module, *, deferrable: bool) -> Tensor | None:
    """Check that all processes hold the same weights; where they will be sharded, return the first one's checksums."""
    deferred = any(tensor.is_meta for tensor in task.state_dict().values())
    if deferred and not deferrable:
        raise InputError("the model is on the meta device: build it on a real one; only strategy 'fsdp' shares it out")
    if not deferrable:
        check_consistency(fabric, task.state_dict())
        return None
    if not fabric.all_reduce(torch.tensor(float(deferred), device=fabric.device), reduce_op="sum"):
        check_consistency(fabric, task.state_dict())
    mine = checksums(task.state_dict()) if not deferred else torch.zeros(len(task.state_dict()) + 1, dtype=torch.int64)
    return fabric.broadcast(mine, src=0)


def _compile_(task: nn.Module, device: torch.device) -> None:
    """Compile each block (one compilation serves all of them), or the model if no adapter knows its blocks."""
    if device.type == "cpu" and shutil.which(os.environ.get("CXX", "g++")) is None:
        raise InputError("--compile on a CPU needs a C++ compiler (g++, or the one that CXX names): leave it out")
    try:
        parts = [view.block for view in block_views(task)]
    except InputError:
        parts = [getattr(task, "model", task)]
    # Blocks share their code but not their rate of drop path, so each is compiled anew: more often than torch allows.
    limit: Any = torch._dynamo.config  # pyright: ignore[reportAttributeAccessIssue]
    limit.recompile_limit = max(limit.recompile_limit, 4 * len(parts))
    for part in parts:
        part.compile()


def compiled_eagerly(config: FitConfig) -> Any:
    """Return a context that runs compiled modules eagerly: measurements inside them must not recompile them."""
    return torch.compiler.set_stance("force_eager") if config.compile else nullcontext()
