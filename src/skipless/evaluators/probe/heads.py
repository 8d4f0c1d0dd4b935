"""Linear classifiers for a whole grid of learning rates at once, on one set of features.

Heads of several learning rates see the same batches, so one matrix product serves all of them, and their updates are
elementwise: each is what training it alone would give. Their inputs need no gradient, so the gradient of the weights is
written down; no graph is kept.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from skipless.errors import InputError
from skipless.evaluators.probe.segmentation_metrics import resample

Schedule = Literal["constant", "cosine", "linear"]
_BATCH_NORM_EPS = 1e-5  # torch's own
_BATCH_NORM_MOMENTUM = 0.1
# Logits at a time: what a CPU's cache holds, and on other devices 256 MB in float32.
_CHUNK_LOGITS = {True: 2**18, False: 2**26}


@dataclass(frozen=True)
class HeadOptimizer:
    """How heads learn.

    Attributes:
        learning_rates: one head each.
        name: `adamw` or `sgd`, as torch.optim has them.
        betas: of AdamW.
        eps: of AdamW.
        momentum: of SGD.
        weight_decay: decoupled with AdamW, in the gradient with SGD; on every parameter, biases too.
        schedule: the learning rate over the steps: `constant`, or down to 0 by a `cosine` or a `linear` line.
        warmup: share of the steps in which it first rises from 0, linearly.
        init_std: of the initial weights; biases start at 0. Every learning rate starts from the same draw.
        batch_norm: normalise the features by BatchNorm, with a scale and a shift of each head's own, before the head.
    """

    learning_rates: tuple[float, ...]
    name: Literal["adamw", "sgd"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Schedule = "constant"
    warmup: float = 0.0
    init_std: float = 0.01
    batch_norm: bool = False

    def __post_init__(self) -> None:
        rates = self.learning_rates
        if not rates or min(rates) <= 0 or not all(map(math.isfinite, rates)) or len(set(rates)) < len(rates):
            raise InputError(f"learning_rates={rates!r}: give positive numbers, each once")
        if self.name not in ("adamw", "sgd") or self.schedule not in ("constant", "cosine", "linear"):
            raise InputError(f"optimizer {self.name!r} with schedule {self.schedule!r} is not known")
        if not 0 <= self.warmup < 1:
            raise InputError(f"warmup={self.warmup} is a share of the steps: give 0 to below 1")

    def factor(self, step: int, steps: int) -> float:
        """What the learning rate is multiplied by in a step (from 0)."""
        warm = round(self.warmup * steps)
        if step < warm:
            return (step + 1) / warm
        done = (step - warm) / max(1, steps - warm)
        return {"constant": 1.0, "cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done}[self.schedule]


class LinearHeads:
    """One linear classifier a learning rate, all on the same features.

    Args:
        dim: width of the features.
        classes: number of classes.
        optimizer: learning rates and the rest.
        seed: of the initial weights: a function of seed, dim and classes alone.
        device: where they are.
        dtype: of weights and computation.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        optimizer: HeadOptimizer,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.optimizer = optimizer
        rates = len(optimizer.learning_rates)
        draw = torch.randn(dim, classes, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        weight = (draw * optimizer.init_std).expand(dim, classes, rates)
        self.parameters = {"weight": weight, "bias": torch.zeros(classes, rates)}
        if optimizer.batch_norm:
            self.parameters |= {"scale": torch.ones(dim, 1, rates), "shift": torch.zeros(dim, 1, rates)}
        self.parameters = {name: p.to(device, dtype).clone() for name, p in self.parameters.items()}
        self.state = [{name: torch.zeros_like(p) for name, p in self.parameters.items()} for _ in optimizer.betas]
        self.running_mean = torch.zeros(dim, device=device, dtype=dtype)
        self.running_var = torch.ones(dim, device=device, dtype=dtype)
        self._rates = torch.tensor(optimizer.learning_rates, device=device, dtype=dtype)

    @property
    def finite(self) -> tuple[bool, ...]:
        """Whether each head's weights are finite: a learning rate that is too large ends in NaN."""
        weight, bias = self.affine_weights()
        return tuple((weight.isfinite().all(0) & bias.isfinite()).all(0).tolist())

    def normalise(self, x: Float[Tensor, "n d"], *, training: bool) -> Float[Tensor, "n d"]:
        """The features as the heads take them; with BatchNorm by this batch in training, else by running statistics."""
        if not self.optimizer.batch_norm:
            return x
        if not training:
            return (x - self.running_mean) * (self.running_var + _BATCH_NORM_EPS).rsqrt()
        variance, mean = torch.var_mean(x, dim=0, correction=0)
        self.running_mean.lerp_(mean, _BATCH_NORM_MOMENTUM)
        self.running_var.lerp_(variance * (len(x) / max(1, len(x) - 1)), _BATCH_NORM_MOMENTUM)
        return (x - mean) * (variance + _BATCH_NORM_EPS).rsqrt()

    def logits(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n c l"]:
        """Every head's logits, for features that `normalise` gave."""
        weight, bias = self.affine_weights()
        return torch.addmm(bias.flatten(), x, weight.flatten(1)).view(-1, *bias.shape)

    def affine_weights(self) -> tuple[Float[Tensor, "d c l"], Float[Tensor, "c l"]]:
        """Weight and bias with BatchNorm's scale and shift taken in."""
        weight, bias = self.parameters["weight"], self.parameters["bias"]
        if not self.optimizer.batch_norm:
            return weight, bias
        return weight * self.parameters["scale"], bias + (weight * self.parameters["shift"]).sum(0)

    def folded(self, rate: int) -> tuple[Float[Tensor, "d c"], Float[Tensor, " c"]]:
        """One head as a plain linear map of the features, BatchNorm's running statistics taken in."""
        weight, bias = (part[..., rate] for part in self.affine_weights())
        if self.optimizer.batch_norm:
            weight = weight * (self.running_var + _BATCH_NORM_EPS).rsqrt()[:, None]
            bias = bias - self.running_mean @ weight
        return weight.clone(), bias.clone()

    def gradients(
        self, features: Float[Tensor, "d c l"], ones: Float[Tensor, "c l"]
    ) -> dict[str, Float[Tensor, "..."]]:
        """The parameters' gradients.

        Args:
            features: x^T G, G the loss's gradient by the logits.
            ones: G summed over its rows.
        """
        if not self.optimizer.batch_norm:
            return {"weight": features, "bias": ones}
        weight, scale, shift = (self.parameters[name] for name in ("weight", "scale", "shift"))
        return {
            "weight": scale * features + shift * ones,
            "bias": ones,
            "scale": (weight * features).sum(1, keepdim=True),
            "shift": (weight * ones).sum(1, keepdim=True),
        }

    def step_(self, gradients: dict[str, Float[Tensor, "..."]], step: int, steps: int) -> None:
        """One step of every head, each by its own learning rate; `step` counts from 0."""
        rates = self._rates * self.optimizer.factor(step, steps)
        for name, gradient in gradients.items():
            p, first, second = self.parameters[name], self.state[0][name], self.state[1][name]
            if self.optimizer.name == "sgd":
                gradient = gradient + self.optimizer.weight_decay * p  # noqa: PLW2901
                first.mul_(self.optimizer.momentum).add_(gradient)
                p.sub_(rates * first)
            else:
                self._adamw_(p, gradient, first, second, rates, step + 1)

    def _adamw_(self, p: Tensor, g: Tensor, m: Tensor, v: Tensor, rates: Tensor, t: int) -> None:
        beta1, beta2 = self.optimizer.betas
        if self.optimizer.weight_decay:
            p.mul_(1 - rates * self.optimizer.weight_decay)
        m.lerp_(g, 1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        denominator = v.sqrt().div_(math.sqrt(1 - beta2**t)).add_(self.optimizer.eps)
        p.sub_(torch.div(m, denominator, out=denominator).mul_(rates / (1 - beta1**t)))


def train_step_(
    heads: LinearHeads,
    x: Float[Tensor, "b n d"],
    target: Float[Tensor, "b m c"],
    step: int,
    steps: int,
    *,
    resize: tuple[tuple[int, int], tuple[int, int]] | None = None,
    with_loss: bool = False,
) -> Float[Tensor, " l"] | None:
    """One step of every head, on the mean cross-entropy over the targets' weight.

    Args:
        heads: all of them on the same features.
        x: features.
        target: the classes' shares of each row; they sum to the row's weight, 0 where it is to be ignored. m is n
            unless the logits are resized.
        step: from 0.
        steps: of the whole training.
        resize: from a grid of n cells to one of m pixels, bilinearly, before the loss.
        with_loss: give the batch's mean loss of each head, in nats, before the step.
    """
    weight = target.sum()
    if not weight > 0:  # nothing but pixels to be ignored: no loss, and no step
        return None
    count, cells, dim = x.shape
    x = heads.normalise(x.flatten(0, 1), training=True).view(count, cells, dim)
    classes, rates = shape = heads.parameters["bias"].shape
    features, ones, loss = x.new_zeros(dim, classes * rates), x.new_zeros(classes * rates), x.new_zeros(rates)
    chunk = max(1, _CHUNK_LOGITS[x.device.type == "cpu"] // (target.shape[1] * classes * rates))
    for part, chunk_target in zip(x.split(chunk), target.split(chunk), strict=True):
        rows = part.flatten(0, 1)
        logits = heads.logits(rows)
        if resize is not None:
            logits = resample(logits.view(len(part), cells, -1), *resize).view(-1, *shape)
        if with_loss:
            loss += cross_entropy(logits, chunk_target.flatten(0, 1))
        gradient = logit_gradient(logits, chunk_target.flatten(0, 1)).flatten(1)
        if resize is not None:
            gradient = resample(gradient.view(len(part), -1, classes * rates), *resize, transpose=True).flatten(0, 1)
        features.addmm_(rows.mT, gradient)
        ones += gradient.sum(0)
    gradients = heads.gradients(features.view(dim, *shape).div_(weight), ones.view(shape).div_(weight))
    heads.step_(gradients, step, steps)
    return loss / weight if with_loss else None


def logit_gradient(logits: Float[Tensor, "n c l"], target: Float[Tensor, "n c"]) -> Float[Tensor, "n c l"]:
    """The summed cross-entropy's gradient by the logits: w p - t, where w is the sum of a row's target t."""
    return logits.softmax(1).mul_(target.sum(1)[:, None, None]).sub_(target[..., None])


def cross_entropy(logits: Float[Tensor, "n c l"], target: Float[Tensor, "n c"]) -> Float[Tensor, " l"]:
    """The summed cross-entropy of each head, in nats."""
    return -(logits.log_softmax(1) * target[..., None]).sum((0, 1))
