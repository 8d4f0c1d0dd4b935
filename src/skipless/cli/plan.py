"""`skipless plan`."""

from dataclasses import asdict, replace
from itertools import product
from json import dumps
from typing import Literal

from tyro.conf import Positional

from skipless import recipes
from skipless.errors import InputError
from skipless.planning import Assumptions, Setup, Workload, find_gpu, workload
from skipless.planning import plan as plan_run
from skipless.planning.plan import Strategy
from skipless.planning.table import Line, assumptions_text, compute_table, memory_table
from skipless.planning.workload import IMAGENET_TRAIN
from skipless.recipes.table1 import OptimizerName
from skipless.training.devices import Precision

SUPPOSED = Assumptions()


def plan(
    models: Positional[tuple[str, ...]] = ("vit_base_patch16_224",),
    *,
    recipe: Literal["table1", "dino"] = "table1",
    optimizer: tuple[OptimizerName, ...] = ("adamw", "soap"),
    devices: tuple[int, ...] = (1, 8, 64),
    gpu: str = "h100",
    strategy: Strategy = "ddp",
    share: bool = True,
    skip: bool = False,
    depth: tuple[int, ...] = (),
    epochs: int | None = None,
    batch_size: int | None = None,
    micro_batch: int | None = None,
    images: int = IMAGENET_TRAIN,
    precision: Precision | None = None,
    precondition_frequency: int | None = None,
    checkpointing: bool = False,
    fused: bool = True,
    mfu: float = SUPPOSED.mfu,
    product_share: float = SUPPOSED.product_share,
    qr_share: float = SUPPOSED.qr_share,
    bandwidth_share: float = SUPPOSED.bandwidth_share,
    link: float = SUPPOSED.link,
    usable: float = SUPPOSED.usable,
    json: bool = False,
) -> None:
    """Say what a run at the paper's scale would take: FLOPs, GPU hours and memory, a row for each combination.

    Work and memory are counted from the model, the optimizer and the recipe; hours rest on assumptions, which are
    printed. Nothing is trained and no data needed.

    Args:
        models: timm's names of plain ViTs, vit_small_patch16_224 vit_base_patch16_224.
        recipe: table1 (supervised, 300 epochs) or dino (self-supervised, 300 epochs).
        optimizer: adamw, soap or both.
        devices: numbers of GPUs.
        gpu: by its data sheet: v100, a100-40gb, a100, h100, h200, l40s.
        strategy: whole copies on each GPU (ddp) or shards (fsdp).
        share: SOAP shared out over the GPUs, as `skipless train` does.
        skip: keep the skip connections.
        depth: numbers of blocks, 12 11 10 9, instead of the model's own.
        epochs: length, instead of the recipe's.
        batch_size: images of an optimizer step over all GPUs, instead of the recipe's.
        micro_batch: images that go through a GPU at once; the largest that fits by default.
        images: in the training set; ImageNet-1k's by default.
        precision: fp32, bf16 or fp16, instead of the recipe's.
        precondition_frequency: SOAP's steps between refreshes, instead of the recipe's.
        checkpointing: keep blocks' inputs only, and compute each block twice.
        fused: fused attention.
        mfu: assumed share of the peak that forward and backward passes reach.
        product_share: assumed share of the fp32 peak that the optimizer's products reach.
        qr_share: assumed share of the fp32 peak that SOAP's QR reaches.
        bandwidth_share: assumed share of the memory bandwidth that element-wise updates reach.
        link: assumed bytes a second between GPUs.
        usable: share of a GPU's memory that a plan may fill.
        json: print JSON, unrounded, instead of tables.
    """
    if not (models and optimizer and devices):
        raise InputError("plan: name at least one model, one optimizer and one number of GPUs")
    assumed = Assumptions(mfu, product_share, qr_share, bandwidth_share, link, usable)
    lines = []
    for name, blocks, kind in product(models, depth or (None,), optimizer):
        base = _recipe(recipe, name, kind, skip, blocks).with_(
            fit__epochs=epochs,
            fit__batch_size=batch_size,
            fit__precision=precision,
            optimizer__precondition_frequency=precondition_frequency,
        )
        work = workload(base, images=images)
        title = name if blocks is None else f"{name}, {blocks} blocks"
        for count in devices:
            setup = Setup(find_gpu(gpu), count, strategy, share, micro_batch, fused, checkpointing)
            lines.append(_line(title, kind, work, setup, assumed))
    if json:
        described = {"gpu": asdict(find_gpu(gpu)), "assumptions": asdict(assumed)}
        print(dumps({**described, "runs": [line.as_json() for line in lines]}, indent=2))
        return
    print(f"{compute_table(lines)}\n\n{memory_table(lines)}\n\n{assumptions_text(lines, assumed)}")


def _line(title: str, optimizer: str, work: Workload, setup: Setup, assumed: Assumptions) -> Line:
    """A run, and the same run at the same micro-batch with checkpointing and without fused attention."""
    made = plan_run(work, setup, assumed)
    at_once = replace(setup, micro_batch=made.micro_batch)
    checkpointed = plan_run(work, replace(at_once, checkpointing=True), assumed)
    unfused = plan_run(work, replace(at_once, fused=False), assumed)
    return Line(title, optimizer, work, setup, made, checkpointed, unfused)


def _recipe(
    name: str, model: str, optimizer: OptimizerName, skip: bool, depth: int | None
) -> recipes.Recipe | recipes.DinoRecipe:
    """The recipe at the paper's scale, for another model."""
    row = "skip" if skip else "skipless"
    found = recipes.dino("vit_small", row, optimizer, data="-") if name == "dino" else None
    found = recipes.table1("paper", row, optimizer, data="-") if found is None else found
    kwargs = {key: value for key, value in found.model.kwargs.items() if key != "depth"}
    if depth is not None:
        if depth < 1:
            raise InputError(f"--depth {depth}: give at least 1")
        kwargs["depth"] = depth
    return found.with_(model=replace(found.model, name=model, kwargs=kwargs))
