"""`skipless train`."""

import os
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from skipless import recipes
from skipless.cli.named import AnyScale, RecipeName, named_recipe, use_threads
from skipless.cli.words import words
from skipless.errors import InputError
from skipless.init import SkiplessInit
from skipless.recipes.table1 import OptimizerName


def train(
    recipe: Positional[RecipeName],
    *,
    out: Path,
    scale: AnyScale | None = None,
    depth: int | None = None,
    data: str | None = None,
    skip: bool = False,
    init: bool = True,
    optimizer: OptimizerName | None = None,
    lr: float | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    c: float | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    accumulation: int | None = None,
    clip_norm: float | None = None,
    precision: Literal["fp32", "bf16", "fp16"] | None = None,
    seed: int = 0,
    workers: int | None = None,
    corrupt_limit: float | None = None,
    measure_every: int | None = None,
    device: Literal["auto", "cpu", "cuda", "mps"] | None = None,
    strategy: Literal["auto", "ddp", "fsdp"] | None = None,
    compile: bool = False,
    profile: bool = False,
    progress: Literal["auto", "bar", "lines", "none"] = "auto",
    threads: int | None = None,
    tensorboard: bool = False,
    wandb: bool = False,
) -> None:
    """Train one model; the same command with the same --out resumes it.

    Args:
        recipe: the experiment: table1 (supervised), dino (self-supervised), or scenes (a small supervised ViT on
            `skipless data scenes --layout imagenet`).
        out: run folder: metrics.jsonl, run.json, checkpoint, result.json.
        scale: of table1: digits, fashion or paper (ViT-B on ImageNet-1k), by default the one that --data names; of
            dino: vit_small (the paper's) or scenes.
        depth: number of blocks, of dino.
        data: digits, fashion, or a folder: ImageNet-style (train/CLASS/*.jpg, val/CLASS/*.jpg), or Fashion-MNIST's.
        skip: keep the skip connections (and timm's initialisation).
        init: the paper's initialisation, for models without skips.
        optimizer: adamw or soap; soap by default, adamw for dino at the paper's scale.
        lr: peak learning rate; the recipe's by default.
        alpha: scale of Z in W_Q W_K^T = alpha Z + beta I.
        beta: scale of I there.
        c: scale of W_V and W_O.
        epochs: length; the warm-up keeps its share.
        batch_size: images of an optimizer step, over all devices.
        accumulation: micro-batches of a step, to save memory.
        clip_norm: largest global gradient norm.
        precision: fp32, or autocast to bf16 or fp16.
        seed: of weights, order and augmentation.
        workers: processes that load data; by default as many as keep the cores busy, none for images in memory.
        corrupt_limit: share of the training images that may be unreadable, each named and replaced; 0.001 by default.
        measure_every: steps between measurements of the model's conditioning, written to measurements.jsonl; 0 is none.
        device: where to train; the recipe's choice by default.
        strategy: how the processes of torchrun share the model: ddp copies it, fsdp (FSDP2) shards it; auto is ddp.
        compile: compile the blocks by torch.compile.
        profile: write a trace of a few steady steps to OUT/profile/trace.json, for Perfetto or chrome://tracing.
        progress: a bar, plain lines or nothing.
        threads: CPU threads; they decide rounding, so resume with as many.
        tensorboard: write TensorBoard files into the run folder.
        wandb: log to Weights & Biases.
    """
    use_threads(threads)
    made = named_recipe(recipe, scale, data, optimizer, skip=skip, init=init, seed=seed, depth=depth)
    made = made.with_(
        optimizer__lr=lr,
        fit__epochs=epochs,
        fit__batch_size=batch_size,
        fit__accumulation=accumulation,
        **{"task__clip_norm" if recipe == "dino" else "fit__clip_norm": clip_norm},
        fit__precision=precision,
        fit__workers=workers,
        data__corrupt_limit=corrupt_limit,
        fit__measure_every=measure_every,
        fit__device=device,
        fit__strategy=strategy,
        fit__compile=compile,
        fit__profile=profile,
        fit__progress=progress,
        fit__tensorboard=tensorboard,
        fit__wandb=wandb,
    )
    values = {name: value for name, value in (("alpha", alpha), ("beta", beta), ("c", c)) if value is not None}
    if values and made.model.init is None:
        given = " ".join(f"--{name}" for name in values)
        raise InputError(f"{given}: part of the initialisation, which --skip and --no-init leave out")
    if made.model.init is not None:
        made = made.with_(model__init=SkiplessInit(**{**vars(made.model.init), **values}))
    result = made.run(out) if isinstance(made, recipes.DinoRecipe) else recipes.run(made, out)
    if int(os.environ.get("RANK", "0")) == 0:
        print(f"{out}: {result.steps} steps in {result.seconds:.0f} s  {words(result.metrics)}")
