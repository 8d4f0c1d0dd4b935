"""Run folders as training leaves them, with made-up curves: what the tests of `report` read."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np


def write_run(
    folder: Path,
    *,
    seed: int = 0,
    lr: float = 3e-3,
    top1: float | None = 90.0,
    final: float = 0.1,
    epochs: int = 30,
    steps: int = 300,
    diverges_at: int | None = None,
) -> Path:
    """Write a folder whose training loss falls from 2.5 towards `final`, or stops after `diverges_at` steps."""
    folder.mkdir(parents=True)
    recipe = {"model": {"name": "vit_tiny", "depth": 12}, "optimizer": {"name": "soap", "lr": lr}, "epochs": epochs}
    run: dict[str, Any] = {
        "recipe": recipe,
        "versions": {"python": "3.11.2", "torch": "2.11.0", "skipless": "0.1.0"},
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "seed": seed,
        "hardware": {"device": "cpu", "cores": 2},
        "command": ["skipless", "train", "table1"],
    }
    (folder / "run.json").write_text(json.dumps(run))
    noise = np.random.default_rng(seed).normal(size=steps)
    taken = steps if diverges_at is None else diverges_at
    lines = []
    for step in range(1, taken + 1):
        loss = final + (2.5 - final) * math.exp(-6 * step / steps) + 0.06 * noise[step - 1]
        if diverges_at is not None:
            loss = 2.3 + 0.05 * noise[step - 1] + math.exp(0.2 * (step - taken))
        lines.append({"step": step, "epoch": step * epochs / steps, "loss": loss, "accuracy": 50.0, "lr": lr})
    lines.append({"step": taken, "epoch": taken * epochs / steps, "evaluation": {"top1": top1, "loss": 0.5}})
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    result: dict[str, Any] = {"diverged": diverges_at is not None, "steps": taken, "seconds": 48.5, "top1": top1}
    if diverges_at is not None:
        result |= {"reason": f"loss is nan at step {taken}"}
    (folder / "result.json").write_text(json.dumps(result))
    return folder
