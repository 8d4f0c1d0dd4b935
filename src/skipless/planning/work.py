"""From a recipe to what has to be computed: passes of images through networks, a head, a loss, an optimizer."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from skipless.data.config import IMAGENET_CLASSES, IMAGENET_TRAIN, IMAGENET_VAL
from skipless.errors import InputError
from skipless.optim import build_optimizer
from skipless.planning.activations import SINGLE, Keeping, backbone_bytes, cast_bytes
from skipless.planning.flops import backward_flops, forward_flops, head_flops
from skipless.recipes import Recipe
from skipless.recipes.recipe import without_init
from skipless.tasks import DINO, Supervised
from skipless.training import FitConfig


@dataclass(frozen=True)
class Crops:
    """Views of one training image that go through a backbone together: so many squares of so many pixels."""

    size: int
    count: int


@dataclass(frozen=True, eq=False)
class Workload:
    """A training run as work, independent of the machine.

    Attributes:
        task: on the meta device: shapes and no memory.
        optimizer: over the task's parameters.
        fit: epochs, batch, precision.
        student: crops that are trained on, of each image.
        teacher: crops that only pass forward, through a copy of the network.
        images: in the training set.
        evaluated: images that pass forward at each evaluation.
        frequency: SOAP's steps between refreshes; 0 where nothing is refreshed.
    """

    task: Supervised | DINO
    optimizer: Optimizer
    fit: FitConfig
    student: tuple[Crops, ...]
    teacher: tuple[Crops, ...]
    images: int
    evaluated: int
    frequency: int

    @property
    def backbone(self) -> nn.Module:
        """What is trained, without DINO's head."""
        return self.task.student if isinstance(self.task, DINO) else self.task.model

    @property
    def parameters(self) -> int:
        """Trained ones."""
        return sum(p.numel() for p in self.task.parameters() if p.requires_grad)

    @property
    def frozen(self) -> int:
        """Parameters that follow others: those of a teacher."""
        return sum(p.numel() for p in self.task.parameters()) - self.parameters

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        return self.fit.total_steps(self.images)

    @cached_property
    def forward(self) -> int:
        """FLOPs of the student's forward pass, for one training image."""
        return self._backbone_flops(self.student, forward_flops) + self._head_flops(self.student)

    @cached_property
    def backward(self) -> int:
        """FLOPs of the backward pass."""
        return self._backbone_flops(self.student, backward_flops) + 2 * self._head_flops(self.student)

    @cached_property
    def teaching(self) -> int:
        """FLOPs of the teacher's forward pass."""
        return self._backbone_flops(self.teacher, forward_flops) + self._head_flops(self.teacher)

    @cached_property
    def evaluation(self) -> int:
        """FLOPs of all evaluations of the run."""
        return self.evaluations * self.evaluated * forward_flops(self.backbone, self.student[0].size)

    @property
    def evaluations(self) -> int:
        """How often the run is evaluated: every so many epochs, and at the end."""
        every = self.fit.evaluate_every
        return -(-self.fit.epochs // every) if every else 1

    def kept(self, keeping: Keeping) -> int:
        """Bytes that autograd keeps for each training image."""
        backbone = sum(crops.count * backbone_bytes(self.backbone, crops.size, keeping) for crops in self.student)
        return backbone + _loss_bytes(self.task, self._count(self.student), self._count(self.teacher), keeping)

    def casts(self, keeping: Keeping) -> int:
        """Bytes of the trained weights' copies in half precision."""
        return cast_bytes(self.task, keeping)

    def kept_once(self, keeping: Keeping) -> int:
        """Bytes kept however many images there are: DINO's prototypes, scaled to their length."""
        if not isinstance(self.task, DINO):
            return 0
        last = self.task.student_head.last_layer
        directions = SINGLE if last.weight_g.requires_grad else 0
        return last.weight_v.numel() * (keeping.width + directions)

    def loaded(self) -> int:
        """Bytes of one image as the loader gives it: float32 crops."""
        return sum(crops.count * 3 * crops.size**2 * SINGLE for crops in self.student)

    def _backbone_flops(self, crops: tuple[Crops, ...], count: Callable[[nn.Module, int], int]) -> int:
        return sum(some.count * count(self.backbone, some.size) for some in crops)

    def _head_flops(self, crops: tuple[Crops, ...]) -> int:
        return head_flops(self.task.student_head) * self._count(crops) if isinstance(self.task, DINO) else 0

    @staticmethod
    def _count(crops: tuple[Crops, ...]) -> int:
        return sum(some.count for some in crops)


def _loss_bytes(task: Supervised | DINO, crops: int, targets: int, keeping: Keeping) -> int:
    """Bytes that head and loss keep: inputs of maps and activations, a log-softmax, what it is multiplied by."""
    if not isinstance(task, DINO):
        return 2 * SINGLE * task.classes
    config, width = task.config, keeping.width
    widths = [m.in_features for m in task.student_head.mlp if isinstance(m, nn.Linear)]
    maps = width * (sum(widths) + sum(widths[1:]))
    bottleneck = config.bottleneck_dim * (SINGLE + width)
    return crops * (maps + bottleneck) + SINGLE * config.out_dim * (crops + targets)


def workload(recipe: Recipe, *, images: int = IMAGENET_TRAIN, classes: int | None = None) -> Workload:
    """The work of a recipe; its data need not be there.

    Args:
        recipe: what would be trained.
        images: in the training set.
        classes: of the data; ImageNet's by default.

    Raises:
        InputError: if the model cannot be built or counted, or the batch is larger than the data.

    Example:
        >>> from skipless.recipes import table1
        >>> work = workload(table1("paper", data="imagenet/"))
        >>> work.steps, round(work.forward / 1e9, 1)
        (93600, 35.1)
    """
    if images < 1:
        raise InputError(f"--images {images}: give the size of the training set, at least 1")
    bare = without_init(recipe)  # shapes do not depend on it, and meta has no values
    with torch.device("meta"):
        task: Any = bare.blank_task(recipe.fit.total_steps(images), IMAGENET_CLASSES if classes is None else classes)
    passes = recipe.passes(IMAGENET_VAL)
    return Workload(
        task=task,
        optimizer=build_optimizer(task, recipe.optimizer),
        fit=recipe.fit,
        student=tuple(Crops(*crops) for crops in passes.trained),
        teacher=tuple(Crops(*crops) for crops in passes.forward_only),
        images=images,
        evaluated=passes.evaluated,
        frequency=recipe.optimizer.precondition_frequency if recipe.optimizer.name == "soap" else 0,
    )
