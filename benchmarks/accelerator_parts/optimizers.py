"""SOAP beside heavyball's, pytorch_optimizer's, torch's Muon and AdamW: the optimizer alone, and in a whole step."""

import importlib.util
import random
import time
from collections.abc import Callable

import timm
import torch
from soap import FREQUENCY, MEASURES, build_heavyball, build_ours, build_pytorch_optimizer  # beside this folder
from torch import nn
from torch.optim import AdamW, Optimizer

import skipless  # noqa: F401 (registers skipless_vit_*)
from accelerator_parts.record import Record, timed
from skipless.optim import MuonWithAdamW, param_groups

Build = Callable[[nn.Module], Optimizer]


def build_adamw(model: nn.Module) -> Optimizer:
    return AdamW(model.parameters(), lr=3e-4, fused=True)


def build_muon(model: nn.Module) -> Optimizer:
    groups = param_groups(model, weight_decay=0.01, use_muon=True)
    return MuonWithAdamW(groups, lr=3e-4, fused=True)


def build_torch_muon(model: nn.Module) -> Optimizer:
    """torch's Muon takes matrices only; it is timed on them, without the rest."""
    return torch.optim.Muon([p for p in model.parameters() if p.ndim == 2], lr=3e-4)


CONTENDERS: dict[str, tuple[str | None, Build]] = {
    "ours": (None, build_ours),
    "AdamW, fused": (None, build_adamw),
    "heavyball": ("heavyball", build_heavyball),
    "pytorch_optimizer": ("pytorch_optimizer", build_pytorch_optimizer),
    "torch's Muon, matrices alone": (None, build_torch_muon),
    "our Muon with AdamW": (None, build_muon),
}
NAMES = {"ViT-B": "vit_base_patch16_224", "ViT-S": "vit_small_patch16_224", "ViT-L": "vit_large_patch16_224"}
TINY = {"img_size": 32, "embed_dim": 48, "depth": 2, "num_heads": 2, "num_classes": 10}


def models(record: Record) -> dict[str, Callable[[], nn.Module]]:
    """What makes each model, in order of importance."""
    if record.tiny:
        return {"tiny ViT": lambda: timm.create_model("vit_tiny_patch16_224", **TINY)}
    return {name: lambda timm_name=timm_name: timm.create_model(timm_name) for name, timm_name in NAMES.items()}


def run(record: Record) -> None:
    """All rows, the goal's first: what SOAP adds to a whole step of ViT-B."""
    sizes = models(record)
    whole_step(record, *next(iter(sizes.items())))
    for size, build_model in sizes.items():
        for name, (package, build) in CONTENDERS.items():
            if package is not None and importlib.util.find_spec(package) is None:
                record.note(f"left out: {name} is not installed (pip install {package})")
                continue
            if record.left() < 2:
                record.cut("the time did not suffice for every contender")
                return
            alone(record, f"{size}, {name}", build_model, build)


def alone(record: Record, title: str, build_model: Callable[[], nn.Module], build: Build) -> None:
    """Ordinary, refresh and amortised step of one optimizer, in windows of ten calls."""
    windows: list[list[float]] = []

    def measure() -> list[float]:
        torch.manual_seed(0)
        model = build_model().to(record.device)
        optimizer = build(model)
        end = time.monotonic() + min(record.left(), 2 if record.tiny else 12)
        for call in range(-FREQUENCY - FREQUENCY // 2, (2 if record.tiny else 10) * FREQUENCY):
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter)
            seconds = timed(optimizer.step, record.device)
            if call >= 0 and call % FREQUENCY == 0:
                if windows and time.monotonic() > end:
                    break
                windows.append([])
            if call >= 0:
                windows[-1].append(1e3 * seconds)
        return [MEASURES["amortised"](window) for window in windows if len(window) == FREQUENCY]

    record.row(f"{title}: amortised at frequency {FREQUENCY}", "ms", measure)
    whole = [window for window in windows if len(window) == FREQUENCY]
    if whole:
        for name in ("ordinary step", "refresh step"):
            record.row(f"{title}: {name}", "ms", lambda name=name: [MEASURES[name](window) for window in whole])


def whole_step(record: Record, size: str, build_model: Callable[[], nn.Module]) -> None:
    """A whole training step in bf16 with SOAP beside AdamW, in turn, windows of ten steps."""
    batch = 8 if record.tiny else 256
    titles = {name: f"whole step, {size}, batch {batch}, bf16, {name}" for name in ("AdamW", "SOAP")}
    if record.samples(titles["SOAP"]):
        return
    found: dict[str, list[float]] = {name: [] for name in titles}

    def measure() -> list[float]:
        sides = {name: _step(record, build_model, build, batch) for name, build in
                 (("AdamW", build_adamw), ("SOAP", build_ours))}  # fmt: skip
        for step in sides.values():
            for _ in range(2 + FREQUENCY):
                step()
        end, order = time.monotonic() + min(record.left() / 2, 2 if record.tiny else 60), random.Random(0)
        while len(found["SOAP"]) < 10 and (not found["SOAP"] or time.monotonic() < end):
            for name in order.sample(list(sides), 2):
                window = lambda step=sides[name]: [step() for _ in range(FREQUENCY)]  # noqa: E731
                found[name].append(1e3 * timed(window, record.device) / FREQUENCY)
        return found["AdamW"]

    record.row(titles["AdamW"], "ms", measure)
    record.row(titles["SOAP"], "ms", lambda: found["SOAP"])
    record.ratio(f"whole step, {size}: SOAP / AdamW (goal: at most 1.10)", titles["SOAP"], titles["AdamW"])


def _step(record: Record, build_model: Callable[[], nn.Module], build: Build, batch: int) -> Callable[[], None]:
    torch.manual_seed(0)
    model = build_model().to(record.device).train()
    optimizer, side = build(model), 32 if record.tiny else 224
    images = torch.randn(batch, 3, side, side, device=record.device)
    labels = torch.zeros(batch, dtype=torch.long, device=record.device)

    def step() -> None:
        with torch.autocast(record.device.type, torch.bfloat16):
            loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
