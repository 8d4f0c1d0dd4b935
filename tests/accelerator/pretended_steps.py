"""Steps on the pretended device, for `test_pretended.py`: what each one reads, as JSON, and what went wrong."""

import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from reference.pretended import DEVICE, Reads, install, pretended, to_pretended_
from reference.tiny_dino import tiny_dino
from reference.tiny_run import tiny_task
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from skipless.optim import SOAP, MuonWithAdamW, param_groups
from skipless.tasks import LanguageConfig, LanguageModel
from skipless.tasks.dino import collapse, masks

BUILD: dict[str, Callable[[nn.Module], Optimizer]] = {
    "adamw": lambda task: AdamW(param_groups(task, weight_decay=0.1), lr=1e-3, fused=True),
    "muon": lambda task: MuonWithAdamW(param_groups(task, weight_decay=0.1, use_muon=True), lr=1e-3, fused=True),
    "soap": lambda task: SOAP(
        param_groups(task, weight_decay=0.1, split_qkv=True), lr=1e-3, precondition_frequency=2
    ),
}  # fmt: skip
STEPS = 4  # SOAP's first step makes the bases, and every second one after it turns them


def supervised() -> tuple[nn.Module, Callable[[], tuple]]:
    return tiny_task(), lambda: (_randn(8, 1, 8, 8), torch.zeros(8, dtype=torch.long, device=DEVICE))


def dino(**settings: object) -> tuple[nn.Module, Callable[[], tuple]]:
    task = tiny_dino(skip=False, **{"watch_every": 0, **settings})
    return task, lambda: ([_randn(4, 1, size, size) for size in (8, 8, 4, 4)],)


def language() -> tuple[nn.Module, Callable[[], tuple]]:
    blocks = nn.Sequential(nn.Sequential(nn.Linear(8, 8)))
    model = nn.Sequential()
    for name, part in (("embed", nn.Embedding(16, 8)), ("blocks", blocks), ("head", nn.Linear(8, 16))):
        model.add_module(name, part)
    task = LanguageModel(model, LanguageConfig(watch_every=100), unigram_entropy=2.0)
    return task, lambda: (torch.zeros(2, 5, dtype=torch.long, device=DEVICE),)


TASKS: dict[str, Callable[[], tuple[nn.Module, Callable[[], tuple]]]] = {
    "supervised": supervised,
    "dino": dino,
    "dino, clipped together": lambda: dino(clip="global"),
    "dino, watched": lambda: dino(watch_every=2),
    "dino, patches": lambda: dino(patch_loss=1.0),
    "language": language,
}


def _randn(*shape: int) -> Tensor:
    return torch.randn(shape, device=DEVICE)


def steps(task_name: str, optimizer_name: str) -> list[list[str]]:
    """What each step reads: a task's step with its hooks, as `fit` takes it."""
    found = []
    task, batch = TASKS[task_name]()
    with pretended():
        to_pretended_(task)
        optimizer = BUILD[optimizer_name](task)
        for step in range(STEPS):
            with Reads() as reads:
                _step(task, optimizer, batch, step)
            found.append(reads.noted)
    return found


def _step(task: nn.Module, optimizer: Optimizer, batch: Callable[[], tuple], step: int) -> None:
    hooks = task if hasattr(task, "before_step") else None
    if hooks is not None:
        hooks.before_step(step, optimizer)
    output = task(*batch())
    output["loss"].backward()
    if hooks is not None:
        hooks.before_update(step)
    optimizer.step()
    optimizer.zero_grad()
    if hooks is not None:
        hooks.after_step(step)


def _some_masks(drawn: Tensor) -> masks.Masks:
    """Six masked patches; where they are is for values, which there are none of."""
    return masks.Masks(
        torch.zeros(drawn.shape, dtype=torch.bool), torch.zeros(6, dtype=torch.long), torch.ones(6, dtype=torch.double)
    )


def main() -> None:
    install()
    masks.Masks.of = staticmethod(_some_masks)
    collapse._rank_and_spread = lambda features: (torch.ones(()), torch.ones(()))  # of values, on the CPU
    result = {}
    for task in TASKS:
        for optimizer in BUILD:
            try:
                result[f"{task}, {optimizer}"] = steps(task, optimizer)
            except Exception:
                result[f"{task}, {optimizer}"] = traceback.format_exc(limit=-9)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
