"""Scale `scenes` of section 6.2 made tiny: five blocks of width 12 on scenes of 32 pixels, three epochs."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from skipless.data.multicrop import MultiCropConfig
from skipless.experiments.dense import scale as dense_scale
from skipless.experiments.dense.scale import SceneSet
from skipless.recipes import dino as dino_recipe
from skipless.recipes.neighbours_config import NeighboursConfig
from skipless.recipes.self_supervised import DinoRecipe
from skipless.studies import DiscoveryConfig, ProbeConfig
from skipless.sweep import Call, Job
from skipless.tasks import DINOConfig
from skipless.training import FitConfig, TrainingDiverged

EPOCHS = 3
RATE = 5e-4


def tiny(*arguments: Any, depth: int | None = None, seed: int = 0, **named: Any) -> DinoRecipe:
    """What `dino` gives, made tiny."""
    sizes = {"patch_size": 8, "embed_dim": 12, "num_heads": 1, "depth": depth or 5, "dynamic_img_size": True}
    task = DINOConfig(out_dim=16, hidden_dim=8, bottleneck_dim=4, watch_every=2, watch_after=10)
    return dino_recipe(*arguments, seed=seed, **named).with_(
        model__kwargs=sizes,
        data__image_size=32,
        crops=MultiCropConfig(global_size=32, local_size=16, local_crops=1),
        task=task,
        optimizer__lr=RATE,
        optimizer__weight_decay=task.weight_decay,
        fit=FitConfig(epochs=EPOCHS, batch_size=10, seed=seed, device="cpu", progress="none", log_every=1),
        neighbours=NeighboursConfig(k=3),
        keep_every=1,
    )


def in_this_process(jobs: Sequence[Job | Call], **_: Any) -> None:
    """`run_jobs` without processes."""
    for job in jobs:
        try:
            if isinstance(job, Call):
                job.work(*job.arguments)
            else:
                job.recipe.run(job.out)  # pyright: ignore[reportAttributeAccessIssue]
        except TrainingDiverged:
            pass


def make_tiny(patch: pytest.MonkeyPatch, *, processes: bool = False) -> None:
    """Replace the scale's sizes, and its processes."""
    for module in ("run", "pretraining.runs"):
        patch.setattr(f"skipless.experiments.dense.{module}.dino", tiny)
    small = {"objects": "digits"}
    for index, key in enumerate(dense_scale.SCENES):
        layout = dense_scale.SCENES[key].layout
        train, val = (20, 10) if key == "imagenet" else (8, 12 if key == "coco" else 4)
        patch.setitem(dense_scale.SCENES, key, SceneSet(layout, train, val, index, small))
    scale = dense_scale.SCALES["scenes"]
    scale = replace(
        scale,
        boxes={name: replace(chosen, sample=6) for name, chosen in scale.boxes.items()},
        points=1,
        probe=ProbeConfig(protocol="patch", epochs=1),
        discovery=DiscoveryConfig(kinds=("k", "tokens")),
    )
    patch.setitem(dense_scale.SCALES, "scenes", scale)
    if not processes:
        for module in ("scores.evaluation", "pretraining.runs"):
            patch.setattr(f"skipless.experiments.dense.{module}.run_jobs", in_this_process)
