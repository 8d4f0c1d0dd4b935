"""The options of the training loop."""

from dataclasses import dataclass
from typing import Annotated, get_args

from skipless.choices import Device, Measured, Precision, ProgressKind, Strategy
from skipless.data.loading.steps import steps_per_epoch
from skipless.errors import InputError
from skipless.frozen import added
from skipless.options import Option


@dataclass(frozen=True)
class FitConfig:
    """How long, in which batches, at which precision and on which devices to train, and what to log.

    Attributes:
        epochs: passes over the training set.
        batch_size: samples of one optimizer step, summed over all devices and micro-batches. Neither the number of
            devices nor `accumulation` changes it.
        accumulation: micro-batches that each device splits its part of a batch into. More of them save memory.
        clip_norm: largest norm of the gradient of all parameters together.
        precision: `fp32`, or autocast to `bf16` or `fp16`; `fp16` scales the loss.
        seed: seed of the order of samples, augmentation, mixup and dropout.
        evaluate_every: epochs between evaluations; 0 evaluates the last epoch only, which is always evaluated.
        checkpoint_every: steps between checkpoints; 0 writes one after each epoch, but not within seconds of the last.
            A run also writes one at its end, at Ctrl-C and at SIGTERM.
        measure_every: steps between measurements of the model, written to `measurements.jsonl`; 0 turns them off. The
            model is also measured before the first step and after the last.
        log_every: steps between lines of `metrics.jsonl`. Each line has the means over these steps.
        workers: processes that load data; 0 loads in the training process. Results do not depend on the number.
        device: where to train; `auto` takes an accelerator if there is one. Under `torchrun` each process takes one.
        strategy: how the processes of `torchrun` divide the model: with `ddp` each holds all of it, with `fsdp` (FSDP2)
            a shard of every parameter, gradient and optimizer state; `auto` is `ddp`. It has no effect on one process.
        compile: compile each block with `torch.compile`. Results differ from an eager run's by rounding.
        profile: record a few steps with torch's profiler, in `profile/trace.json`.
        progress: a progress bar, plain lines, or nothing; `auto` shows a bar on a terminal and lines elsewhere.
        tensorboard: write TensorBoard event files to the run folder.
        wandb: send metrics to Weights & Biases.
        steps: optimizer steps of the run, in place of `epochs`: as many passes over the training set as they take.
        evaluate_steps: steps between evaluations, in place of `evaluate_every`; 0 counts epochs.
        measured: what `measure_every` measures of a recipe's model: its `conditioning` (Tables 5 and 6), its
            `activations` (kurtosis, peaks and SQNR by block), or both.
    """

    epochs: int = 30
    batch_size: int = 32
    accumulation: int = 1
    clip_norm: Annotated[float | None, Option("no clipping")] = None
    precision: Precision = "fp32"
    seed: int = 0
    evaluate_every: int = 1
    checkpoint_every: int = 0
    measure_every: int = 0
    log_every: int = 20
    workers: Annotated[int | None, Option("as many as keep the cores busy", group="machine")] = None
    device: Annotated[Device, Option(group="machine")] = "auto"
    strategy: Annotated[Strategy, Option(group="machine")] = "auto"
    compile: Annotated[bool, Option(group="machine")] = False
    profile: Annotated[bool, Option(group="machine")] = False
    progress: Annotated[ProgressKind, Option(group="machine")] = "auto"
    tensorboard: Annotated[bool, Option(group="machine")] = False
    wandb: Annotated[bool, Option(group="machine")] = False
    steps: Annotated[int | None, Option("as many as the epochs take")] = added(None)
    evaluate_steps: int = added(0)
    measured: tuple[Measured, ...] = added(("conditioning",))

    def __post_init__(self) -> None:
        least = {"epochs": 1, "batch_size": 1, "accumulation": 1, "log_every": 1, "steps": 1}
        for name in (*least, "evaluate_every", "evaluate_steps", "checkpoint_every", "measure_every", "workers"):
            if (value := getattr(self, name)) is not None and value < least.get(name, 0):
                raise InputError(f"{name} {value} is too small; give at least {least.get(name, 0)}")
        unknown = sorted(set(self.measured) - set(get_args(Measured)))
        if unknown or not self.measured:
            named = ", ".join(map(repr, unknown)) or "nothing"
            raise InputError(f"measured {named}; there is {', '.join(get_args(Measured))}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise InputError(f"clip_norm {self.clip_norm} would clip everything; give a positive norm or None")

    def total_steps(self, samples: int) -> int:
        """Count the optimizer steps of the run on a training set of `samples` samples."""
        of_epochs = self.epochs * steps_per_epoch(samples, self.batch_size)  # refuses a batch that does not fit
        return of_epochs if self.steps is None else self.steps


CHANGEABLE = frozenset(
    {
        "accumulation", "checkpoint_every", "compile", "corrupt_limit", "device", "log_every", "measure_every",
        "measured", "profile", "progress", "share", "strategy", "tensorboard", "wandb", "workers",
    }
)  # fmt: skip
"""Fields that a resumed run may change.

They change results by rounding only. The exception is a task that draws random numbers in its forward pass (mixup,
dropout): each micro-batch of each process has draws of its own.
"""
