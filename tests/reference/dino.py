"""A naive DINO step in float64, from the formulas: loops over crops, samples and parameters, one at a time.

The network is the smallest that takes crops of two sizes: each image's mean over a 2 x 2 grid, one hidden layer. Its
parameters and the head's are plain tensors in a dict, under the names that they have in `skipless.tasks.DINO`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Weights = dict[str, Tensor]
GRID = 2


def cosine(start: float, end: float, step: int, steps: int) -> float:
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * step / steps))


def forward(weights: Mapping[str, Tensor], image: Tensor) -> Tensor:
    """Logits of one image."""
    side = image.shape[-1] // GRID
    pooled = []
    for channel in image:
        for row in range(GRID):
            for column in range(GRID):
                pooled.append(channel[row * side : (row + 1) * side, column * side : (column + 1) * side].mean())
    feature = torch.tanh(weights["backbone.linear.weight"] @ torch.stack(pooled) + weights["backbone.linear.bias"])
    hidden = weights["head.mlp.0.weight"] @ feature + weights["head.mlp.0.bias"]
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    bottleneck = weights["head.mlp.2.weight"] @ hidden + weights["head.mlp.2.bias"]
    bottleneck = bottleneck / bottleneck.pow(2).sum().sqrt()
    logits = []
    for g, v in zip(weights["head.last_layer.weight_g"], weights["head.last_layer.weight_v"], strict=True):
        logits.append(g[0] * (v / v.pow(2).sum().sqrt()) @ bottleneck)
    return torch.stack(logits)


def loss_of(
    student: Sequence[Sequence[Tensor]],
    teacher: Sequence[Sequence[Tensor]],
    center: Tensor,
    temp: float,
    teacher_temp: float,
) -> Tensor:
    """Mean over pairs of different crops, and over samples, of the cross-entropy."""
    total, pairs = torch.zeros((), dtype=torch.float64), 0
    for i, of_teacher in enumerate(teacher):
        for v, of_student in enumerate(student):
            if i == v:
                continue
            pairs += 1
            for t, s in zip(of_teacher, of_student, strict=True):
                q = torch.exp((t - center) / teacher_temp)
                q = (q / q.sum()).detach()
                log_p = s / temp - torch.log(torch.exp(s / temp).sum())
                total = total - (q * log_p).sum() / len(of_teacher)
    return total / pairs


@dataclass
class NaiveDINO:
    """Student, teacher, centre and AdamW's moments, moved by `step`."""

    student: Weights
    total_steps: int
    steps_per_epoch: int
    trained: tuple[str, ...]
    lr: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    student_temp: float = 0.1
    teacher_temp: tuple[float, float] = (0.04, 0.07)
    warmup_epochs: int = 2
    center_momentum: float = 0.9
    momentum: tuple[float, float] = (0.9, 1.0)
    weight_decay: tuple[float, float] = (0.04, 0.4)
    clip: float = 0.05
    freeze: int = 1
    decayed: tuple[str, ...] = ()
    teacher: Weights = field(init=False)
    center: Tensor = field(init=False)
    moments: dict[str, tuple[int, Tensor, Tensor]] = field(default_factory=dict)
    gradients: Weights = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.student = {name: value.detach().clone().double() for name, value in self.student.items()}
        self.teacher = {name: value.clone() for name, value in self.student.items()}
        self.center = torch.zeros(len(self.student["head.last_layer.weight_v"]), dtype=torch.float64)

    def temperature(self, epoch: int) -> float:
        low, high = self.teacher_temp
        return high if epoch >= self.warmup_epochs else low + (high - low) * epoch / (self.warmup_epochs - 1)

    def step(self, step: int, crops: Sequence[Tensor], global_crops: int = 2) -> float:
        """One step on a batch of crops; `gradients` holds what the optimizer was given."""
        leaves = {name: value.clone().requires_grad_(name in self.trained) for name, value in self.student.items()}
        student = [[forward(leaves, image) for image in crop.double()] for crop in crops]
        teacher = [[forward(self.teacher, image) for image in crop.double()] for crop in crops[:global_crops]]
        epoch = step // self.steps_per_epoch
        loss = loss_of(student, teacher, self.center, self.student_temp, self.temperature(epoch))
        grads = torch.autograd.grad(loss, [leaves[name] for name in self.trained])
        self.gradients = {}
        for name, grad in zip(self.trained, grads, strict=True):
            if "last_layer" in name and epoch < self.freeze:
                continue
            factor = self.clip / (grad.pow(2).sum().sqrt() + 1e-6)
            self.gradients[name] = grad * factor if factor < 1 else grad
        for name, grad in self.gradients.items():
            self._adamw(name, grad, cosine(*self.weight_decay, step, self.total_steps))
        keep = cosine(*self.momentum, step, self.total_steps)
        for name, value in self.teacher.items():
            self.teacher[name] = keep * value + (1 - keep) * self.student[name]
        rows = [row for crop in teacher for row in crop]
        mean = sum(rows[1:], rows[0]) / len(rows)
        self.center = self.center * self.center_momentum + mean * (1 - self.center_momentum)
        return loss.item()

    def _adamw(self, name: str, grad: Tensor, decay: float) -> None:
        first, second = self.betas
        t, m, v = self.moments.get(name, (0, torch.zeros_like(grad), torch.zeros_like(grad)))
        t, m, v = t + 1, first * m + (1 - first) * grad, second * v + (1 - second) * grad * grad
        self.moments[name] = t, m, v
        weight = self.student[name]
        if name in self.decayed:
            weight = weight * (1 - self.lr * decay)
        self.student[name] = weight - self.lr * (m / (1 - first**t)) / ((v / (1 - second**t)).sqrt() + self.eps)
