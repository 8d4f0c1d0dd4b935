"""`skipless plan`."""

from dataclasses import asdict, dataclass, field, replace
from itertools import product
from json import dumps
from typing import Annotated, Any

from skipless.choices import PAPER_OPTIMIZERS, OptimizerName, Precision, SharedStrategy
from skipless.cli.call import call
from skipless.cli.named_recipe import paper_recipes, recipe_at_paper_scale
from skipless.data.config import IMAGENET_TRAIN
from skipless.display.values import counted
from skipless.errors import InputError
from skipless.options import Option
from skipless.planning.assumptions import Assumptions


def main(words: list[str]) -> None:
    """Say what a run at the paper's scale would take."""
    lines = (
        "skipless plan vit_base_patch16_224 --optimizer soap --devices 8 64",
        "skipless plan vit_small_patch16_224 --recipe dino --gpu h200 --json",
    )
    call(plan, words, prog="skipless plan", examples=lines)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which runs, and on what.

    Attributes:
        models: timm's names of plain ViTs, vit_small_patch16_224 vit_base_patch16_224.
        recipe: what is trained, at the paper's scale.
        optimizer: one or more of adamw, soap, muon.
        devices: numbers of GPUs.
        gpu: by its data sheet: v100, a100-40gb, a100, h100, h200, l40s.
        strategy: whole copies on each GPU (ddp) or shards (fsdp).
        share: SOAP shared out over the GPUs, as skipless train does.
        skip: keep the skip connections.
        depth: numbers of blocks, 12 11 10 9.
        epochs: length.
        batch_size: images of an optimizer step over all GPUs.
        micro_batch: images that go through a GPU at once.
        images: in the training set.
        precision: fp32, bf16 or fp16.
        precondition_frequency: SOAP's steps between refreshes.
        checkpointing: keep blocks' inputs only, and compute each block twice.
        fused: fused attention.
        assumed: what is taken for granted.
        json: print JSON, unrounded, instead of tables.
    """

    models: Annotated[tuple[str, ...], Option(positional=True)] = ("vit_base_patch16_224",)
    recipe: Annotated[str, Option(choices=paper_recipes)] = "table1"
    optimizer: tuple[OptimizerName, ...] = PAPER_OPTIMIZERS
    devices: tuple[int, ...] = (1, 8, 64)
    gpu: str = "h100"
    strategy: SharedStrategy = "ddp"
    share: bool = True
    skip: bool = False
    depth: Annotated[tuple[int, ...], Option("the model's own")] = ()
    epochs: Annotated[int | None, Option("the recipe's")] = None
    batch_size: Annotated[int | None, Option("the recipe's")] = None
    micro_batch: Annotated[int | None, Option("the largest that fits")] = None
    images: int = IMAGENET_TRAIN
    precision: Annotated[Precision | None, Option("the recipe's")] = None
    precondition_frequency: Annotated[int | None, Option("the recipe's")] = None
    checkpointing: bool = False
    fused: bool = True
    assumed: Annotated[Assumptions, Option(group="assumption")] = field(default_factory=Assumptions)
    json: bool = False


def plan(asked: Options) -> None:
    """Say what a run at the paper's scale would take: FLOPs, GPU hours and memory, a row for each combination.

    Work and memory are counted from the model, the optimizer and the recipe; hours rest on assumptions, which are
    printed. Nothing is trained and no data needed.
    """
    from skipless.planning import find_gpu

    if not (asked.models and asked.optimizer and asked.devices):
        raise InputError("plan: name at least one model, one optimizer and one number of GPUs")
    lines = _lines(asked)
    if asked.json:
        described = {"gpu": asdict(find_gpu(asked.gpu)), "assumptions": asdict(asked.assumed)}
        print(dumps({**described, "runs": [line.as_json() for line in lines]}, indent=2))
        return
    from skipless.planning.table import assumptions_text, compute_table, memory_table

    print(f"{compute_table(lines)}\n\n{memory_table(lines)}\n\n{assumptions_text(lines, asked.assumed)}")


def _lines(asked: Options) -> list[Any]:
    """A line for each combination of model, depth, optimizer and number of GPUs."""
    from skipless.planning import find_gpu, workload
    from skipless.planning.estimate import Setup

    lines = []
    for name, blocks, kind in product(asked.models, asked.depth or (None,), asked.optimizer):
        row = "skip" if asked.skip else "skipless"
        base = recipe_at_paper_scale(asked.recipe, row, kind, name, blocks).with_(
            fit__epochs=asked.epochs,
            fit__batch_size=asked.batch_size,
            fit__precision=asked.precision,
            optimizer__precondition_frequency=asked.precondition_frequency,
        )
        work = workload(base, images=asked.images)
        title = name if blocks is None else f"{name}, {counted(blocks, 'block')}"
        for count in asked.devices:
            setup = Setup(
                find_gpu(asked.gpu), count, asked.strategy, asked.share, asked.micro_batch, asked.fused,
                asked.checkpointing,
            )  # fmt: skip
            lines.append(_line(title, kind, work, setup, asked.assumed))
    return lines


def _line(title: str, optimizer: str, work: Any, setup: Any, assumed: Assumptions) -> Any:
    """A run, and the same run at the same micro-batch with checkpointing and without fused attention."""
    from skipless.planning import plan as plan_run
    from skipless.planning.table import PlanRow

    made = plan_run(work, setup, assumed)
    at_once = replace(setup, micro_batch=made.micro_batch)
    checkpointed = plan_run(work, replace(at_once, checkpointing=True), assumed)
    unfused = plan_run(work, replace(at_once, fused=False), assumed)
    return PlanRow(title, optimizer, work, setup, made, checkpointed, unfused)
