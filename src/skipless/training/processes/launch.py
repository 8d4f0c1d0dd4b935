"""Launching a process: device, precision and strategy, by lightning-fabric."""

import os

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from lightning_fabric.strategies.strategy import Strategy as FabricStrategy

from skipless.choices import Device, Precision, Strategy
from skipless.errors import InputError
from skipless.training.processes.launcher import check_launcher, rank_and_world_size, started_by_torchrun
from skipless.training.processes.rendezvous import init_process_group
from skipless.training.processes.sharding import shard_

_FABRIC_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def launch(device: Device, precision: Precision, strategy: Strategy = "auto") -> Fabric:
    """Set up this process, alone on one device or as one of those that `torchrun` started.

    Args:
        device: as in `FitConfig`.
        precision: as in `FitConfig`.
        strategy: as in `FitConfig`; it has no effect on a single process.

    Raises:
        InputError: if there is no such device, or it does not support the precision, or this process is one of several
            that another launcher than `torchrun` has started.
    """
    check_launcher()
    kind = _resolve_device(device)
    if precision == "fp16" and strategy == "fsdp":
        raise InputError("precision 'fp16' under strategy 'fsdp': its loss scale is not agreed on; use 'bf16' or 'ddp'")
    if precision == "fp16" and kind != "cuda":
        raise InputError(f"precision 'fp16' needs a CUDA device, this is {kind!r}; use 'fp32' or 'bf16'")
    if precision == "bf16" and kind == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise InputError(f"{torch.cuda.get_device_name()} has no bf16; use 'fp16' or 'fp32'")
    init_process_group("nccl" if kind == "cuda" else "gloo")
    together = started_by_torchrun()
    fabric = Fabric(
        accelerator=kind,
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if together else 1,
        num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", "1")) if together else 1,
        strategy=_fabric_strategy(strategy),
        precision=_FABRIC_PRECISION[precision],  # pyright: ignore[reportArgumentType]
        # Said, not found out: fabric would take any job of Slurm's, LSF's or MPI's for its launcher.
        plugins=[TorchElasticEnvironment() if together else LightningEnvironment()],
    )
    fabric.launch()
    return fabric


def takes_shards_only(strategy: Strategy) -> bool:
    """Tell whether `fit` gives this process shards of the first one's weights, so that it needs none of its own.

    It is asked before a model is built, so that what `launch` would refuse is refused here.
    """
    check_launcher()
    rank, count = rank_and_world_size()
    return strategy == "fsdp" and count > 1 and rank > 0


def _fabric_strategy(name: Strategy) -> FabricStrategy | str:
    _, count = rank_and_world_size()
    if count == 1:
        return "auto"
    if name == "fsdp":
        return ModelParallelStrategy(shard_, data_parallel_size=count, tensor_parallel_size=1)
    return "ddp"


def _resolve_device(device: Device) -> str:
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next(kind for kind in ("cuda", "mps", "cpu") if available[kind])
    if not available[device]:
        raise InputError(
            f"no device {device!r} here; there is {', '.join(kind for kind, yes in available.items() if yes)}"
        )
    return device
