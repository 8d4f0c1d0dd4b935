"""A training step of the skipless model beside timm's residual one, eager and compiled."""

import random
import time
from collections.abc import Callable

import timm
import torch
from torch import nn
from torch.optim import AdamW

import skipless  # noqa: F401 (registers skipless_vit_*)
from accelerator_parts.optimizers import TINY
from accelerator_parts.record import Record, timed

NAMES = ("vit_tiny_patch16_224", "vit_base_patch16_224")


def run(record: Record) -> None:
    """Eager first: compiling takes longest."""
    pairs(record, "eager", compiled=False)
    if record.tiny:
        record.note("left out: compiled steps, which take longer to compile than the whole check on a CPU")
    elif record.left() > 10:
        pairs(record, "compiled", compiled=True)
    else:
        record.cut("the time did not suffice for compiled steps")


def pairs(record: Record, kind: str, *, compiled: bool) -> None:
    """Steps of both in turn."""
    batch = 8 if record.tiny else 256
    titles = {prefix: f"{prefix or 'residual'} ViT, batch {batch}, bf16, {kind}" for prefix in ("", "skipless_")}
    titles = {prefix: title.replace("skipless_", "skipless") for prefix, title in titles.items()}
    found: dict[str, list[float]] = {prefix: [] for prefix in titles}

    def measure() -> list[float]:
        sides = {prefix: _step(record, prefix, batch, compiled=compiled) for prefix in titles}
        for step in sides.values():
            for _ in range(3):
                step()
        order, end = random.Random(0), time.monotonic() + min(record.left() / 2, 1 if record.tiny else 20)
        while len(found[""]) < 40 and (not found[""] or time.monotonic() < end):
            for prefix in order.sample(list(sides), 2):
                found[prefix].append(1e3 * timed(sides[prefix], record.device))
        return found[""]

    record.row(titles[""], "ms", measure)
    record.row(titles["skipless_"], "ms", lambda: found["skipless_"])
    record.ratio(f"skipless / residual, {kind}", titles["skipless_"], titles[""])


def _step(record: Record, prefix: str, batch: int, *, compiled: bool) -> Callable[[], None]:
    torch.manual_seed(0)
    sizes = TINY if record.tiny else {}
    model = timm.create_model(prefix + NAMES[not record.tiny], **sizes).to(record.device).train()
    optimizer, side = AdamW(model.parameters(), lr=1e-4, fused=True), 32 if record.tiny else 224
    images = torch.randn(batch, 3, side, side, device=record.device)
    labels = torch.zeros(batch, dtype=torch.long, device=record.device)
    if compiled:
        for block in model.blocks:  # as `fit --compile` does it
            block.compile()

    def step() -> None:
        with torch.autocast(record.device.type, torch.bfloat16):
            loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
