"""Where to compute and at what precision, by lightning-fabric."""

import os
from typing import Literal

import torch
from lightning_fabric import Fabric

from skipless.errors import InputError

Precision = Literal["fp32", "bf16", "fp16"]
Device = Literal["auto", "cpu", "cuda", "mps"]
_FABRIC_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def launch(device: Device, precision: Precision) -> Fabric:
    """Set up this process: alone on one device, or as one of those that `torchrun` started.

    Raises:
        InputError: if there is no such device, or it cannot compute at this precision.
    """
    kind = _resolve(device)
    if precision == "fp16" and kind != "cuda":
        raise InputError(f"precision 'fp16' needs a CUDA device, this is {kind!r}; use 'fp32' or 'bf16'")
    if precision == "bf16" and kind == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError(f"{torch.cuda.get_device_name()} has no bf16; use 'fp16' or 'fp32'")
    fabric = Fabric(
        accelerator=kind,
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", "1")),
        precision=_FABRIC_PRECISION[precision],  # pyright: ignore[reportArgumentType]
    )
    fabric.launch()
    return fabric


def _resolve(device: Device) -> str:
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next(kind for kind in ("cuda", "mps", "cpu") if available[kind])
    if not available[device]:
        raise InputError(
            f"no device {device!r} here; there is {', '.join(kind for kind, yes in available.items() if yes)}"
        )
    return device
