"""Every number of DINO that is no layer's, and its schedules as pure functions of the step."""

from dataclasses import dataclass
from typing import Literal, get_args

from skipless.errors import InputError
from skipless.optim.schedules import WarmupCosine

Clipping = Literal["parameter", "global", "none"]
OnCollapse = Literal["stop", "report"]


@dataclass(frozen=True)
class DINOConfig:
    """The self-distillation of Caron et al. 2021. The defaults are the published code's; `DINO_VIT_SMALL` is the run.

    Attributes:
        out_dim: prototypes K.
        hidden_dim, bottleneck_dim, head_layers: of the head.
        norm_last_layer: keep the prototypes' length at 1.
        freeze_last_layer: epochs at the start in which the prototypes stay where they are.
        global_crops: how many of the crops the teacher sees; they come first.
        student_temp: temperature of the student's softmax.
        teacher_temp: that of the teacher's, after its warm-up.
        warmup_teacher_temp: where it starts.
        warmup_teacher_temp_epochs: epochs of its linear rise; it changes between epochs.
        center_momentum: of the centre.
        momentum: share of the teacher's weights that stays at the first step; a cosine leads to `final_momentum`.
        final_momentum: the same at the end.
        weight_decay: of the decaying parameters at the first step; a cosine leads to `final_weight_decay`.
        final_weight_decay: the same at the end.
        clip: `parameter` clips each parameter's gradient on its own, as the published code does; `global` clips
            all of them together, as most libraries do; `none`.
        clip_norm: the largest norm, for either.
        drop_path: largest rate, reached linearly over depth; on the student, and only where a skip is left: without the
            skip it would erase the tokens.
        watch_every: steps between two looks at the teacher; 0 never looks.
        watch_after: epochs before a look is judged: at the start a healthy teacher looks collapsed, too.
        on_collapse: `stop` ends the run; `report` goes on, with the finding in `metrics.jsonl`.

    Raises:
        InputError: for a value that cannot be used.

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

    def __post_init__(self) -> None:
        for name, known in (("clip", Clipping), ("on_collapse", OnCollapse)):
            if getattr(self, name) not in get_args(known):
                raise InputError(f"{name}={getattr(self, name)!r}: choose from {', '.join(get_args(known))}")
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
        # A group without decay is told from one with decay by its number.
        if not (self.weight_decay > 0 <= self.final_weight_decay or self.weight_decay == 0 == self.final_weight_decay):
            raise InputError(
                f"weight_decay={self.weight_decay}, final_weight_decay={self.final_weight_decay}: start above 0 "
                "(1e-6, say), or give 0 for both"
            )

    def schedules(self, total_steps: int, steps_per_epoch: int) -> "DINOSchedules":
        """The schedules of a run of some length.

        Raises:
            InputError: if the run is shorter than a warm-up.
        """
        if not 0 < steps_per_epoch <= total_steps:
            raise InputError(f"{steps_per_epoch} steps an epoch do not fit a run of {total_steps} steps")
        epochs = -(-total_steps // steps_per_epoch)
        if self.warmup_teacher_temp_epochs > epochs:
            raise InputError(
                f"warmup_teacher_temp_epochs={self.warmup_teacher_temp_epochs} in a run of {epochs} epochs: "
                "warm up for less or train for longer"
            )
        return DINOSchedules(
            momentum=WarmupCosine(self.momentum, total_steps, final=self.final_momentum),
            weight_decay=WarmupCosine(self.weight_decay, total_steps, final=self.final_weight_decay),
            temperature=WarmupCosine(
                self.teacher_temp,
                epochs,
                warmup_steps=self.warmup_teacher_temp_epochs,
                start=self.warmup_teacher_temp,
                final=self.teacher_temp,
            ),
            steps_per_epoch=steps_per_epoch,
        )


DINO_VIT_SMALL = DINOConfig(norm_last_layer=False, teacher_temp=0.07, warmup_teacher_temp_epochs=30)
"""The published run nearest to the paper's: ViT-S/16, 300 epochs, batch 1024. The paper states no such number."""


@dataclass(frozen=True)
class DINOSchedules:
    """What changes during a run besides the learning rate, by the step counted from 0.

    Attributes:
        momentum: of the teacher.
        weight_decay: of the decaying parameters.
        temperature: of the teacher, by the *epoch*.
        steps_per_epoch: of the run.
    """

    momentum: WarmupCosine
    weight_decay: WarmupCosine
    temperature: WarmupCosine
    steps_per_epoch: int

    def epoch(self, step: int) -> int:
        """The epoch that a step belongs to, from 0."""
        return step // self.steps_per_epoch

    def teacher_temp(self, step: int) -> float:
        """Temperature of the teacher at a step."""
        return self.temperature(self.epoch(step))
