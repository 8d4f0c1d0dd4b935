"""Workload: the FLOPs and the memory of a recipe, independent of the machine."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from skipless.data.config import IMAGENET_CLASSES, IMAGENET_TRAIN, IMAGENET_VAL
from skipless.data.loading.steps import steps_per_epoch
from skipless.display import Record, Table
from skipless.display.values import counted
from skipless.errors import InputError
from skipless.optim import OptimizerConfig, build_optimizer
from skipless.planning.activations import SINGLE, Keeping, backbone_bytes, cast_bytes
from skipless.planning.flops import backward_flops, forward_flops, head_flops, token_count
from skipless.recipes import Recipe
from skipless.tasks import DINO, LanguageModel, Supervised
from skipless.training import FitConfig


@dataclass(frozen=True)
class Crops:
    """Crops of one training image that go through a backbone together: `count` squares with sides of `size` pixels."""

    size: int
    count: int


@dataclass(frozen=True, eq=False, repr=False)
class Workload(Record):
    """The work of a training run, independent of the machine.

    Attributes:
        task: the task on the meta device, without memory.
        optimizer: optimizer of the task's parameters.
        fit: options of the training loop.
        student: crops of each image with forward and backward pass.
        teacher: crops of each image with a forward pass through DINO's teacher.
        images: number of training images.
        evaluated: number of images of an evaluation.
        frequency: SOAP's steps between refreshes; 0 without refreshes.
    """

    task: Supervised | DINO | LanguageModel
    optimizer: Optimizer
    fit: FitConfig
    student: tuple[Crops, ...]
    teacher: tuple[Crops, ...]
    images: int
    evaluated: int
    frequency: int

    @property
    def unit(self) -> str:
        """What a sample is."""
        return "image"

    @property
    def rate(self) -> tuple[str, int]:
        """What a loader's speed is counted in, and how many of it a sample has."""
        return "images", 1

    def sample_json(self) -> dict[str, Any]:
        """What of each sample goes through the model, for JSON."""
        return {"crops": [asdict(crops) for crops in self.student]}

    @property
    def sample(self) -> str:
        """What of each sample goes through the model."""
        return f"of each image, pixels a side: {', '.join(f'{each.count} x {each.size}' for each in self.student)}"

    def _summary(self) -> str:
        crops = " + ".join(f"{each.count} x {each.size} px" for each in self.student)
        return f"{self.parameters:,} parameters, {self.images:,} images of {crops}, {counted(self.steps, 'step')}"

    def tables(self) -> tuple[Table, ...]:
        """The work in numbers."""
        rows = [
            ("trained parameters", f"{self.parameters:,}"),
            ("frozen parameters", f"{self.frozen:,}"),
            ("training images", f"{self.images:,}"),
            ("steps", f"{self.steps:,}"),
            ("forward pass of an image", f"{self.forward / 1e9:,.2f} GFLOP"),
            ("backward pass of an image", f"{self.backward / 1e9:,.2f} GFLOP"),
            ("teacher's pass of an image", f"{self.teaching / 1e9:,.2f} GFLOP"),
            ("evaluations", f"{self.evaluations} of {self.evaluated:,} images"),
        ]
        return (Table(("work", "value"), rows, self.sample, align="lr"),)

    @property
    def backbone(self) -> nn.Module:
        """The trained network, without DINO's head."""
        return self.task.student if isinstance(self.task, DINO) else self.task.model

    @property
    def parameters(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.task.parameters() if p.requires_grad)

    @property
    def frozen(self) -> int:
        """Number of parameters that are not trained: those of DINO's teacher."""
        return sum(p.numel() for p in self.task.parameters()) - self.parameters

    @property
    def patches(self) -> int:
        """Number of patches of each image that DINO's teacher judges one by one: none without a patch loss."""
        if not isinstance(self.task, DINO) or not self.task.config.patch_loss:
            return 0
        vit: Any = self.backbone
        return sum(some.count * (token_count(vit, some.size) - vit.num_prefix_tokens) for some in self.teacher)

    @property
    def masked(self) -> int:
        """Number of them that are masked, on average."""
        if not isinstance(self.task, DINO):
            return 0
        return round(self.patches * self.task.config.mask_share * self.task.config.mask_ratio)

    @property
    def steps(self) -> int:
        """Number of optimizer steps of the run."""
        return self.fit.total_steps(self.images)

    @cached_property
    def forward(self) -> int:
        """FLOPs of the forward pass for one training image, over all its crops."""
        return self._backbone_flops(self.student, forward_flops) + self._student_head_flops

    @cached_property
    def backward(self) -> int:
        """FLOPs of the backward pass for one training image."""
        return self._backbone_flops(self.student, backward_flops) + 2 * self._student_head_flops

    @cached_property
    def teaching(self) -> int:
        """FLOPs of the teacher's forward pass for one training image."""
        return self._backbone_flops(self.teacher, forward_flops) + self._teacher_head_flops

    @cached_property
    def evaluation(self) -> int:
        """FLOPs of all evaluations of the run."""
        return self.evaluations * self.evaluated * forward_flops(self.backbone, self.student[0].size)

    @property
    def evaluations(self) -> int:
        """Number of evaluations of the run, the last one included."""
        every = self.fit.evaluate_steps or self.fit.evaluate_every * steps_per_epoch(self.images, self.fit.batch_size)
        return -(-self.steps // every) if every else 1

    def kept(self, keeping: Keeping) -> int:
        """Return the bytes that autograd saves for each training image."""
        backbone = sum(crops.count * backbone_bytes(self.backbone, crops.size, keeping) for crops in self.student)
        targets, masked = self._count(self.teacher), self.masked
        return backbone + _loss_bytes(self.task, self._count(self.student) + masked, targets + masked, keeping)

    def casts(self, keeping: Keeping) -> int:
        """Return the bytes of the trained weights' copies in half precision."""
        return cast_bytes(self.task, keeping)

    def kept_once(self, keeping: Keeping) -> int:
        """Return the bytes that autograd saves once, for any number of images: DINO's normalised prototypes."""
        if not isinstance(self.task, DINO):
            return 0
        last = self.task.student_head.last_layer
        directions = SINGLE if last.weight_g.requires_grad else 0
        return last.weight_v.numel() * (keeping.width + directions)

    def loaded(self) -> int:
        """Return the bytes of one image as the loader gives it: float32 crops."""
        return sum(crops.count * 3 * crops.size**2 * SINGLE for crops in self.student)

    def _backbone_flops(self, crops: tuple[Crops, ...], count: Callable[[nn.Module, int], int]) -> int:
        return sum(some.count * count(self.backbone, some.size) for some in crops)

    @property
    def _student_head_flops(self) -> int:
        if not isinstance(self.task, DINO):
            return 0
        return head_flops(self.task.student_head) * (self._count(self.student) + self.masked)

    @property
    def _teacher_head_flops(self) -> int:
        """The head's work on features; with a patch loss, its MLP's on all patches, and outputs at a few of them."""
        if not isinstance(self.task, DINO):
            return 0
        head, features = self.task.student_head, self._count(self.teacher)
        if not self.patches:
            return head_flops(head) * features
        outputs = 2 * features + self.masked  # of each crop, of the mean of its patches, of masked patches
        return head_flops(head.mlp) * (features + self.patches) + head_flops(head.last_layer) * outputs

    @staticmethod
    def _count(crops: tuple[Crops, ...]) -> int:
        return sum(some.count for some in crops)


def _loss_bytes(task: Supervised | DINO | LanguageModel, crops: int, targets: int, keeping: Keeping) -> int:
    """Return the bytes saved by head and loss: inputs of linear maps and activations, log-softmax and targets."""
    if isinstance(task, Supervised):
        return 2 * SINGLE * task.classes
    assert isinstance(task, DINO)
    config, width = task.config, keeping.width
    widths = [m.in_features for m in task.student_head.mlp if isinstance(m, nn.Linear)]
    maps = width * (sum(widths) + sum(widths[1:]))
    bottleneck = config.bottleneck_dim * (SINGLE + width)
    return crops * (maps + bottleneck) + SINGLE * config.out_dim * (crops + targets)


def workload(recipe: Recipe, *, images: int = IMAGENET_TRAIN, classes: int | None = None) -> Workload:
    """Return the workload of a recipe; its data are not needed.

    Args:
        recipe: the recipe.
        images: number of training images.
        classes: number of classes; by default ImageNet's.

    Raises:
        InputError: if the model cannot be built or counted, or the batch is larger than the training set.

    Example:
        >>> from skipless.recipes import table1
        >>> work = workload(table1("paper", data="imagenet/"))
        >>> work.steps, round(work.forward / 1e9, 1)
        (93600, 35.1)
    """
    if images < 1:
        raise InputError(f"--images {images}: give the size of the training set, at least 1")
    if recipe.reads_text:
        raise InputError(f"{recipe.name!r} is a language model: its work is counted by skipless.planning.text_workload")
    with torch.device("meta"):
        task: Any = recipe.blank_task(recipe.fit.total_steps(images), IMAGENET_CLASSES if classes is None else classes)
    passes = recipe.passes(IMAGENET_VAL)
    return Workload(
        task=task,
        optimizer=build_optimizer(task, recipe.optimizer),
        fit=recipe.fit,
        student=tuple(Crops(*crops) for crops in passes.trained),
        teacher=tuple(Crops(*crops) for crops in passes.forward_only),
        images=images,
        evaluated=passes.evaluated,
        frequency=refresh_frequency(recipe.optimizer),
    )


def refresh_frequency(optimizer: OptimizerConfig) -> int:
    """SOAP's steps between refreshes; 0 for an optimizer without."""
    return optimizer.precondition_frequency if optimizer.name == "soap" else 0
