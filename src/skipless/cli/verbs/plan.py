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
from skipless.recipes.kinds import Recipe
from skipless.recipes.language import LanguageRecipe


def main(words: list[str]) -> None:
    """Say what a run at the paper's scale would take."""
    lines = (
        "skipless plan vit_base_patch16_224 --optimizer soap --devices 8 64",
        "skipless plan vit_small_patch16_224 --recipe dino --gpu h200 --json",
        "skipless plan --recipe language --devices 8",
    )
    call(plan, words, prog="skipless plan", examples=lines)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which runs, and on what.

    Attributes:
        models: timm's names of plain ViTs; the language model has no other.
        recipe: what is trained, at the paper's scale.
        optimizer: one or more of adamw, soap, muon.
        devices: numbers of GPUs.
        gpu: by its data sheet: v100, a100-40gb, a100, h100, h200, l40s.
        strategy: whole copies on each GPU (ddp) or shards (fsdp).
        share: SOAP shared out over the GPUs, as skipless train does.
        skip: keep the skip connections.
        depth: numbers of blocks, 12 11 10 9.
        epochs: length.
        steps: length, of the language model.
        batch_size: images, or windows of text, of an optimizer step over all GPUs.
        micro_batch: images or windows that go through a GPU at once.
        images: in the training set.
        context: tokens of a window of text.
        vocabulary: ids of the tokenizer.
        precision: fp32, bf16 or fp16.
        precondition_frequency: SOAP's steps between refreshes.
        checkpointing: keep blocks' inputs only, and compute each block twice.
        fused: fused attention.
        assumed: what is taken for granted.
        json: print JSON, unrounded, instead of tables.
    """

    models: Annotated[tuple[str, ...], Option("vit_base_patch16_224, or the language model", positional=True)] = ()
    recipe: Annotated[str, Option(choices=paper_recipes)] = "table1"
    optimizer: tuple[OptimizerName, ...] = PAPER_OPTIMIZERS
    devices: tuple[int, ...] = (1, 8, 64)
    gpu: str = "h100"
    strategy: SharedStrategy = "ddp"
    share: bool = True
    skip: bool = False
    depth: Annotated[tuple[int, ...], Option("the model's own")] = ()
    epochs: Annotated[int | None, Option("the recipe's")] = None
    steps: Annotated[int | None, Option("the recipe's")] = None
    batch_size: Annotated[int | None, Option("the recipe's")] = None
    micro_batch: Annotated[int | None, Option("the largest that fits")] = None
    images: Annotated[int | None, Option("ImageNet's 1,281,167")] = None
    context: Annotated[int | None, Option("the recipe's, 4096")] = None
    vocabulary: Annotated[int | None, Option("the paper's, 32000")] = None
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

    if not (asked.optimizer and asked.devices):
        raise InputError("plan: name at least one optimizer and one number of GPUs")
    lines = _lines(asked)
    if asked.json:
        described = {"gpu": asdict(find_gpu(asked.gpu)), "assumptions": asdict(asked.assumed)}
        print(dumps({**described, "runs": [line.as_json() for line in lines]}, indent=2))
        return
    from skipless.planning.table import assumptions_text, compute_table, memory_table

    print(f"{compute_table(lines)}\n\n{memory_table(lines)}\n\n{assumptions_text(lines, asked.assumed)}")


def _lines(asked: Options) -> list[Any]:
    """A line for each combination of model, depth, optimizer and number of GPUs."""
    from skipless.planning import find_gpu
    from skipless.planning.estimate import Setup

    lines = []
    for name, blocks, kind in product(asked.models or (None,), asked.depth or (None,), asked.optimizer):
        row = "skip" if asked.skip else "skipless"
        base = recipe_at_paper_scale(asked.recipe, row, kind, name, blocks).with_(
            fit__epochs=asked.epochs,
            fit__steps=asked.steps,
            fit__batch_size=asked.batch_size,
            fit__precision=asked.precision,
            optimizer__precondition_frequency=asked.precondition_frequency,
        )
        work = _work(asked, base)
        title = base.model.name if blocks is None else f"{base.model.name}, {counted(blocks, 'block')}"
        for count in asked.devices:
            setup = Setup(
                find_gpu(asked.gpu), count, asked.strategy, asked.share, asked.micro_batch, asked.fused,
                asked.checkpointing,
            )  # fmt: skip
            lines.append(_line(title, kind, work, setup, asked.assumed))
    return lines


def _work(asked: Options, recipe: Recipe) -> Any:
    """The work of a recipe; options of the other kind of data are refused."""
    from skipless.planning import text_workload, workload

    of_images = {"--epochs": asked.epochs, "--images": asked.images}
    of_text = {"--steps": asked.steps, "--context": asked.context, "--vocabulary": asked.vocabulary}
    wrong = [flag for flag, value in (of_images if recipe.reads_text else of_text).items() if value is not None]
    if wrong:
        kind, other = ("text", "images") if recipe.reads_text else ("images", "text")
        raise InputError(f"{' '.join(wrong)}: of {other}, and {recipe.name!r} is trained on {kind}; leave it out")
    if not isinstance(recipe, LanguageRecipe):
        return workload(recipe, images=IMAGENET_TRAIN if asked.images is None else asked.images)
    return text_workload(recipe.with_(data__context=asked.context), vocabulary=asked.vocabulary)


def _line(title: str, optimizer: str, work: Any, setup: Any, assumed: Assumptions) -> Any:
    """A run, and the same run at the same micro-batch with checkpointing and without fused attention."""
    from skipless.planning import plan as plan_run
    from skipless.planning.table import PlanRow

    made = plan_run(work, setup, assumed)
    at_once = replace(setup, micro_batch=made.micro_batch)
    checkpointed = plan_run(work, replace(at_once, checkpointing=True), assumed)
    unfused = plan_run(work, replace(at_once, fused=False), assumed)
    return PlanRow(title, optimizer, work, setup, made, checkpointed, unfused)
