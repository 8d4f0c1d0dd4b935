"""What a run of the training loop can be asked for."""

from dataclasses import dataclass
from typing import Annotated

from skipless.choices import Device, Precision, ProgressKind, Strategy
from skipless.data.loading.steps import steps_per_epoch
from skipless.errors import InputError
from skipless.options import Option


@dataclass(frozen=True)
class FitConfig:
    """How long, in what portions and at what precision to train, and what to write down meanwhile.

    Attributes:
        epochs: passes over the training set.
        batch_size: samples of one optimizer step, over all devices and micro-batches: accumulation and the number of
            devices do not change what is computed.
        accumulation: micro-batches that each device splits its share of a step into, to save memory.
        clip_norm: largest global gradient norm.
        precision: `fp32`; `bf16` or `fp16` run the forward pass in autocast, fp16 with a scaled loss.
        seed: of order, augmentation, mixup and dropout.
        evaluate_every: epochs between evaluations; the last epoch is always evaluated. 0 evaluates only there.
        checkpoint_every: steps between checkpoints; 0 is at the end of an epoch, unless the last one is a few
            seconds old. The end, Ctrl-C and SIGTERM write one, too.
        measure_every: steps between measurements of the model's conditioning, and one at the start and one at the end,
            in `measurements.jsonl`; 0 measures nothing.
        log_every: steps between lines of `metrics.jsonl`, each with means over those steps.
        workers: processes that fetch data; 0 fetches between the steps. None takes `default_workers`. Results do not
            depend on it.
        device: `auto` takes an accelerator if there is one. `torchrun` gives each of its processes one.
        strategy: how the processes that `torchrun` starts share the work: `ddp` gives each the whole model, `fsdp`
            (FSDP2) a shard of every parameter, of its gradient and of the optimizer's state; `auto` is ddp. One process
            shares nothing.
        compile: compile the blocks by `torch.compile`; rounding differs from that of an eager run.
        profile: write a trace of a few steady steps to `profile/trace.json`.
        progress: a bar, plain lines, or nothing; `auto` is a bar on a terminal.
        tensorboard: write TensorBoard's event files into the run folder.
        wandb: send metrics to Weights & Biases.
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
    workers: Annotated[int | None, Option("as many as keep the cores busy")] = None
    device: Device = "auto"
    strategy: Strategy = "auto"
    compile: bool = False
    profile: bool = False
    progress: ProgressKind = "auto"
    tensorboard: bool = False
    wandb: bool = False

    def __post_init__(self) -> None:
        least = {"epochs": 1, "batch_size": 1, "accumulation": 1, "log_every": 1}
        for name in (*least, "evaluate_every", "checkpoint_every", "measure_every", "workers"):
            if (value := getattr(self, name)) is not None and value < least.get(name, 0):
                raise InputError(f"{name} {value} is too small; give at least {least.get(name, 0)}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise InputError(f"clip_norm {self.clip_norm} would clip everything; give a positive norm or None")

    def total_steps(self, samples: int) -> int:
        """Count the optimizer steps of the whole run on a training set of so many samples."""
        return self.epochs * steps_per_epoch(samples, self.batch_size)


CHANGEABLE = frozenset(
    {
        "accumulation", "checkpoint_every", "compile", "corrupt_limit", "device", "log_every", "measure_every",
        "profile", "progress", "share", "strategy", "tensorboard", "wandb", "workers",
    }
)  # fmt: skip
"""Fields that a resumed run may change: what is computed does not depend on them, up to rounding and, where a task
draws at random in its forward pass (mixup, dropout), up to these draws: each micro-batch of a process has its own."""
