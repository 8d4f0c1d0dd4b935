"""A run of seconds that uses every source of randomness: order, shifts, mixup and dropout."""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer

from skipless.data import EvalLoader
from skipless.data.builtin import load_digits
from skipless.data.memory import MemoryImages
from skipless.evaluators import top1
from skipless.optim import SOAP, MuonWithAdamW, param_groups
from skipless.tasks import IMAGENET_TARGETS, Supervised, SupervisedConfig
from skipless.training import FitConfig, FitResult, fit

SAMPLES, BATCH, EPOCHS = 88, 16, 3  # five steps an epoch, eight samples left out of each
CONFIG = FitConfig(
    epochs=EPOCHS, batch_size=BATCH, checkpoint_every=4, log_every=3, workers=0, device="cpu", progress="none"
)
STEPS = CONFIG.total_steps(SAMPLES)


@cache
def _all_digits() -> MemoryImages:
    return load_digits()[0]


def digits(n: int = SAMPLES, shift: int = 1) -> MemoryImages:
    train = _all_digits()
    return MemoryImages(train.images[:n], train.labels[:n], train.mean, train.std, shift=shift, flip=shift > 0)


def tiny_task(targets: SupervisedConfig = IMAGENET_TARGETS, dropout: float = 0.1, dim: int = 16) -> Supervised:
    torch.manual_seed(0)
    model = VisionTransformer(
        img_size=8, patch_size=4, in_chans=1, num_classes=10, embed_dim=dim, depth=2, num_heads=2,
        proj_drop_rate=dropout,
    )  # fmt: skip
    return Supervised(model, 10, targets)


def schedule(step: int) -> float:
    return 2e-3 * (1 - step / (STEPS + 1))


def train(out: Path, optimizer: str = "AdamW", **changes: Any) -> FitResult:
    """Run `fit` on digits; `changes` replace arguments of `fit` or fields of `CONFIG`."""
    task = changes.pop("task", None) or tiny_task()
    kinds: dict[str, Any] = {"AdamW": torch.optim.AdamW, "SOAP": SOAP, "Muon": MuonWithAdamW, "SGD": torch.optim.SGD}
    arguments: dict[str, Any] = {
        "dataset": changes.pop("dataset", None) or digits(),
        "schedule": changes.pop("schedule", schedule),
        "evaluate": changes.pop("evaluate", lambda model: top1(model, EvalLoader(digits(40, shift=0)))),
        "measure": changes.pop("measure", None),
        "recipe": changes.pop("recipe", {"optimizer": {"name": optimizer, "lr": 2e-3}}),
    }
    params = param_groups(task, weight_decay=0.1, use_muon=True) if optimizer == "Muon" else task.parameters()
    built = kinds[optimizer](params, lr=2e-3)
    return fit(task, optimizer=built, out=out, config=replace(CONFIG, **changes), **arguments)


def killed(run: Callable[[], object]) -> None:
    """Run something in a process of its own, which must die by SIGKILL."""
    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL, f"not killed, but exit code {process.exitcode}"
    process.close()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def tensors(out: Path) -> dict[str, torch.Tensor]:
    """Read the checkpoint's tensors; copied, as `load_file` gives views of the file."""
    return {name: value.clone() for name, value in load_file(out / "checkpoint.safetensors").items()}


def lines(out: Path) -> list[dict[str, Any]]:
    """Read `metrics.jsonl` without what time alone decides."""
    timing = ("seconds", "images_per_second")
    logged = (json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in timing} for line in logged]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
