"""A task and its optimizer on their devices: alone, copied to each (DDP) or in shards (FSDP2); loops need not know."""

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
    """What takes a step, gives its state whole and takes it back, whatever the processes share.

    Args:
        fabric: launched.
        task: as `fit` takes it; under FSDP2 all processes but the first may hold it on the meta device.
        optimizer: of its parameters; it has not stepped.
        config: of the run.

    Attributes:
        task: under FSDP2 in shards from now on.
        optimizer: bare; fabric's wrapper of it is what steps.

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
        """Into training mode."""
        self._module.train()

    def take_step(self, step: int, rate: float, batches: Iterator[Any]) -> tuple[Outputs, Mapping[str, Any] | None]:
        """Do one optimizer step. Nothing in here waits for the device.

        Returns:
            What the task gave for each micro-batch, and what its hooks have found.
        """
        config, fabric = self.config, self.fabric
        for group in self.optimizer.param_groups:
            group["lr"] = rate
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
            self.release()  # it has looked at whole parts
        return [{**output, **noted} for output in outputs], found

    def _noted_before_update(self, step: int) -> dict[str, Tensor]:
        """Clip, and let the task's hooks see the gradients."""
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
        """What is evaluated, whole, with the present weights; every process must ask for it at the same time."""
        model = getattr(self.task, "model", self.task)
        return model if self._copies is None else self._copies.of(model)

    def release(self) -> None:
        """Let go of what `model` gave."""
        if self._copies is not None:
            self._copies.release()

    def is_finite(self) -> bool:
        """Whether all weights are; every process must ask for it at the same time."""
        return bool(full_tensor(get_total_norm(self.task.parameters())).isfinite())

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, whole, in memory of its own, on the first process; {} on the others."""
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
        """Take back a `state`, on every process the same, of any strategy and number of processes.

        Raises:
            InputError: if it is another model's or another optimizer's.
        """
        kind = type(self.optimizer).__name__
        check_tensors(self.task, state["task"], source)
        if state["optimizer_name"] != kind:
            raise InputError(f"{source!r} was made with {state['optimizer_name']}, not {kind}; give another --out")
        load_tensors_(self.task, state["task"], source)
        load_gathered_state_(self.optimizer, state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["scaler"])


def _check_replicas(fabric: Fabric, task: nn.Module, *, deferrable: bool) -> Tensor | None:
    """Compare the processes' weights; where they are to be shared out, give the first one's checksums."""
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
    """Compile each block on its own (one compilation serves all), or the whole model where no adapter knows it."""
    if device.type == "cpu" and shutil.which(os.environ.get("CXX", "g++")) is None:
        raise InputError("--compile on a CPU needs a C++ compiler (g++, or the one that CXX names): leave it out")
    try:
        parts = [view.block for view in block_views(task)]
    except InputError:
        parts = [getattr(task, "model", task)]
    # Blocks share their code, but not drop path's rate, for which each is compiled anew: more often than torch allows.
    limit: Any = torch._dynamo.config  # pyright: ignore[reportAttributeAccessIssue]
    limit.recompile_limit = max(limit.recompile_limit, 4 * len(parts))
    for part in parts:
        part.compile()


def compiled_eagerly(config: FitConfig) -> Any:
    """A context in which compiled modules run as they are written: what looks inside them must not compile anew."""
    return torch.compiler.set_stance("force_eager") if config.compile else nullcontext()
