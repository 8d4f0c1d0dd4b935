"""Hyperparameters of DINO, and its schedules as pure functions of the step."""

from dataclasses import dataclass, fields
from math import isfinite
from typing import Annotated, Literal, get_args

from skipless.choices import Pooling
from skipless.display import Record
from skipless.display.values import counted
from skipless.errors import InputError
from skipless.frozen import added
from skipless.optim.schedules import WarmupCosine
from skipless.options import Option

Clipping = Literal["parameter", "global", "none"]
OnCollapse = Literal["stop", "report"]
MaskShape = Literal["block", "random"]


@dataclass(frozen=True)
class DINOConfig:
    """Hyperparameters of DINO. The defaults are the published code's; `DINO_VIT_SMALL` has those of the published run.

    Attributes:
        out_dim: number K of prototypes.
        hidden_dim: width of the head's hidden layers.
        bottleneck_dim: width of the head's normalised bottleneck.
        head_layers: number of linear layers of the head's MLP.
        norm_last_layer: keep the length of the prototypes at 1.
        freeze_last_layer: number of epochs at the start in which the prototypes are not trained.
        global_crops: number of crops that the teacher sees; they come first.
        student_temp: temperature of the student's softmax.
        teacher_temp: temperature of the teacher's softmax after its warm-up.
        warmup_teacher_temp: temperature of the teacher's softmax at the start of its warm-up.
        warmup_teacher_temp_epochs: epochs of the linear warm-up; the temperature changes once an epoch.
        center_momentum: momentum of the running mean that centres the teacher's outputs.
        momentum: momentum of the teacher's moving average at the first step; a cosine leads to `final_momentum`.
        final_momentum: momentum of the teacher's moving average at the end.
        weight_decay: weight decay at the first step; a cosine leads to `final_weight_decay`.
        final_weight_decay: weight decay at the end.
        clip: `parameter` clips the gradient of each parameter separately, as the published code does; `global` clips
            the gradient of all parameters together; `none` does not clip.
        clip_norm: largest gradient norm, of each parameter or of all together (see `clip`).
        drop_path: rate of drop path in the student's last block; it rises linearly over depth from 0. Branches without
            a skip connection have no drop path, which would erase their tokens.
        watch_every: steps between two measurements of the teacher's collapse; 0 turns them off.
        watch_after: epochs before a measurement can end the run; early on, a healthy teacher looks collapsed as well.
        on_collapse: `stop` ends the run; `report` writes the finding to `metrics.jsonl` and continues.
        pooling: feature that the head gets: the class token (the paper's), or the mean of the patch tokens.
        patch_loss: weight of iBOT's loss at masked patches beside that of the class token; 0 (the paper's) leaves it
            out, 1 is iBOT's.
        mask_share: with `patch_loss`, probability that a global crop of the student is masked.
        mask_ratio: with `patch_loss`, share of a masked crop's patches that are masked, on average.
        mask_spread: with `patch_loss`, how far that share may lie from its average; it is drawn evenly.
        mask_shape: with `patch_loss`, mask blocks of patches, or single patches at random.
        teacher_patch_temp: with `patch_loss`, temperature of the teacher's softmax at patches after its warm-up.

    The last seven are not in the paper's recipe. The defaults of the masks are those of iBOT's published runs. Patches
    share the head, and have a centre of their own; their temperature warms up as the other does.

    Raises:
        InputError: if a value is out of range; the message names the field.

    Example:
        >>> DINOConfig(teacher_temp=0.07, warmup_teacher_temp_epochs=30).schedules(1000, 10).teacher_temp(0)
        0.04
    """

    out_dim: int = 65536
    hidden_dim: int = 2048
    bottleneck_dim: int = 256
    head_layers: int = 3
    norm_last_layer: bool = True
    freeze_last_layer: int = 1
    global_crops: int = 2
    student_temp: float = 0.1
    teacher_temp: float = 0.04
    warmup_teacher_temp: float = 0.04
    warmup_teacher_temp_epochs: int = 0
    center_momentum: float = 0.9
    momentum: float = 0.996
    final_momentum: float = 1.0
    weight_decay: float = 0.04
    final_weight_decay: float = 0.4
    clip: Clipping = "parameter"
    clip_norm: float = 3.0
    drop_path: float = 0.1
    watch_every: int = 100
    watch_after: float = 1.0
    on_collapse: OnCollapse = "stop"
    pooling: Pooling = added("class")
    patch_loss: float = added(0.0)
    mask_share: float = added(0.5)
    mask_ratio: float = added(0.3)
    mask_spread: float = added(0.2)
    mask_shape: MaskShape = added("block")
    teacher_patch_temp: Annotated[float | None, Option("the teacher's")] = added(None)

    def __post_init__(self) -> None:
        choices = {"clip": Clipping, "on_collapse": OnCollapse, "pooling": Pooling, "mask_shape": MaskShape}
        for name, known in choices.items():
            if getattr(self, name) not in get_args(known):
                raise InputError(f"{name}={getattr(self, name)!r}: choose from {', '.join(get_args(known))}")
        self._check_patches()
        for name in ("student_temp", "teacher_temp", "warmup_teacher_temp", "clip_norm"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}={getattr(self, name)} must be above 0")
        for name in ("center_momentum", "momentum", "final_momentum", "drop_path"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}={getattr(self, name)} must lie in 0 to 1")
        for name in ("freeze_last_layer", "warmup_teacher_temp_epochs", "watch_every", "watch_after"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}={getattr(self, name)} must be 0 or more")
        if self.global_crops < 1:
            raise InputError(f"global_crops={self.global_crops}: the teacher needs one crop at least")
        # Parameter groups without decay are recognised by a weight decay of 0.
        if not (self.weight_decay > 0 <= self.final_weight_decay or self.weight_decay == 0 == self.final_weight_decay):
            raise InputError(
                f"weight_decay={self.weight_decay}, final_weight_decay={self.final_weight_decay}: start above 0 "
                "(1e-6, say), or give 0 for both"
            )

    def _check_patches(self) -> None:
        """Refuse weights, masks and temperatures of patches that mean nothing."""
        if not (isfinite(self.patch_loss) and self.patch_loss >= 0):
            raise InputError(f"patch_loss={self.patch_loss}: give a weight of 0 or more")
        idle = [part for part in fields(self) if part.name.startswith("mask_") or part.name == "teacher_patch_temp"]
        for part in idle if not self.patch_loss else ():
            value = getattr(self, part.name)
            if value != part.default:
                raise InputError(f"{part.name}={value} changes nothing without patch_loss: give patch_loss=1, too")
        if not 0 < self.mask_share <= 1:
            raise InputError(f"mask_share={self.mask_share} must lie above 0, and at most at 1")
        if not (0 < self.mask_ratio < 1 and 0 <= self.mask_spread <= min(self.mask_ratio, 1 - self.mask_ratio)):
            raise InputError(
                f"mask_ratio={self.mask_ratio}, mask_spread={self.mask_spread}: give a share between 0 and 1 that "
                "stays there within its spread"
            )
        if self.teacher_patch_temp is not None and not self.teacher_patch_temp > 0:
            raise InputError(f"teacher_patch_temp={self.teacher_patch_temp} must be above 0")

    def schedules(self, total_steps: int, steps_per_epoch: int) -> "DINOSchedules":
        """Return the schedules of a run.

        Raises:
            InputError: if the run is shorter than a warm-up.
        """
        if not 0 < steps_per_epoch <= total_steps:
            raise InputError(f"{steps_per_epoch} steps an epoch do not fit a run of {total_steps} steps")
        epochs = -(-total_steps // steps_per_epoch)
        if self.warmup_teacher_temp_epochs > epochs:
            raise InputError(
                f"warmup_teacher_temp_epochs={self.warmup_teacher_temp_epochs} in a run of {counted(epochs, 'epoch')}: "
                "warm up for less or train for longer"
            )
        return DINOSchedules(
            momentum=WarmupCosine(self.momentum, total_steps, final=self.final_momentum),
            weight_decay=WarmupCosine(self.weight_decay, total_steps, final=self.final_weight_decay),
            temperature=self._temperature(self.teacher_temp, epochs),
            steps_per_epoch=steps_per_epoch,
            patch_temperature=self._temperature(self.teacher_patch_temp or self.teacher_temp, epochs),
        )

    def _temperature(self, value: float, epochs: int) -> WarmupCosine:
        """A linear warm-up over epochs, then a constant."""
        return WarmupCosine(
            value, epochs, warmup_steps=self.warmup_teacher_temp_epochs, start=self.warmup_teacher_temp, final=value
        )


DINO_VIT_SMALL = DINOConfig(norm_last_layer=False, teacher_temp=0.07, warmup_teacher_temp_epochs=30)
"""The published run closest to the paper's: ViT-S/16, 300 epochs, batch 1024. The paper states no such number."""


@dataclass(frozen=True, repr=False)
class DINOSchedules(Record):
    """Schedules of a run besides the learning rate, as functions of the step, counted from 0.

    Attributes:
        momentum: momentum of the teacher's moving average.
        weight_decay: weight decay of the parameters that decay.
        temperature: temperature of the teacher, as a function of the *epoch*.
        steps_per_epoch: optimizer steps of an epoch.
        patch_temperature: that of the teacher at patches, as a function of the epoch; None is `temperature`.
    """

    momentum: WarmupCosine
    weight_decay: WarmupCosine
    temperature: WarmupCosine
    steps_per_epoch: int
    patch_temperature: WarmupCosine | None = None

    def epoch(self, step: int) -> int:
        """Return the epoch of a step, counted from 0."""
        return step // self.steps_per_epoch

    def teacher_temp(self, step: int) -> float:
        """Return the temperature of the teacher's softmax at a step."""
        return self.temperature(self.epoch(step))

    def teacher_patch_temp(self, step: int) -> float:
        """Return the temperature of the teacher's softmax at patches at a step."""
        return (self.patch_temperature or self.temperature)(self.epoch(step))
