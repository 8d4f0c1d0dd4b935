"""Linear classifiers for a whole grid of learning rates, trained together on the same features.

Heads of all learning rates see the same batches, so one matrix product computes the logits of all of them. Their
updates are elementwise, so each head ends as if it were trained alone. The features need no gradient, so the gradient
of the weights is computed in closed form, without autograd.
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
_BATCH_NORM_EPS = 1e-5  # torch's default, like the momentum
_BATCH_NORM_MOMENTUM = 0.1
# Logits in one chunk: what fits in a CPU's cache, and 256 MB in float32 on other devices.
_CHUNK_LOGITS = {True: 2**18, False: 2**26}


@dataclass(frozen=True)
class HeadOptimizer:
    """The optimizer of the heads, with its grid of learning rates.

    Attributes:
        learning_rates: learning rates of the grid; each has a head of its own.
        name: `adamw` or `sgd`, as in torch.optim.
        betas: betas of AdamW.
        eps: epsilon of AdamW.
        momentum: momentum of SGD.
        weight_decay: weight decay of every parameter, including biases; decoupled in AdamW, part of the gradient in
            SGD.
        schedule: learning rate schedule: `constant`, or `cosine` or `linear` decay to 0.
        warmup: fraction of the steps with a linear warm-up from 0.
        init_std: standard deviation of the initial weights, the same draw for every learning rate; biases start at 0.
        batch_norm: normalise the features with BatchNorm before the head; each head has its own scale and shift.
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
        """Factor on the learning rate at a step (counted from 0)."""
        warm = round(self.warmup * steps)
        if step < warm:
            return (step + 1) / warm
        done = (step - warm) / max(1, steps - warm)
        return {"constant": 1.0, "cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done}[self.schedule]


class LinearHeads:
    """One linear classifier for each learning rate, all on the same features.

    Args:
        dim: width of the features.
        classes: number of classes.
        optimizer: learning rates and all other settings.
        seed: seed of the initial weights, which depend on seed, dim and classes only.
        device: device of the weights.
        dtype: dtype of weights and computation.
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
        """Whether each head's weights are finite; a learning rate that is too large ends in NaN."""
        weight, bias = self.affine_weights()
        return tuple((weight.isfinite().all(0) & bias.isfinite()).all(0).tolist())

    def normalise(self, x: Float[Tensor, "n d"], *, training: bool) -> Float[Tensor, "n d"]:
        """The features normalised by BatchNorm, if it is on: by the batch in training, else by running statistics."""
        if not self.optimizer.batch_norm:
            return x
        if not training:
            return (x - self.running_mean) * (self.running_var + _BATCH_NORM_EPS).rsqrt()
        variance, mean = torch.var_mean(x, dim=0, correction=0)
        self.running_mean.lerp_(mean, _BATCH_NORM_MOMENTUM)
        self.running_var.lerp_(variance * (len(x) / max(1, len(x) - 1)), _BATCH_NORM_MOMENTUM)
        return (x - mean) * (variance + _BATCH_NORM_EPS).rsqrt()

    def logits(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n c l"]:
        """Logits of every head, for features returned by `normalise`."""
        weight, bias = self.affine_weights()
        return torch.addmm(bias.flatten(), x, weight.flatten(1)).view(-1, *bias.shape)

    def affine_weights(self) -> tuple[Float[Tensor, "d c l"], Float[Tensor, "c l"]]:
        """Weight and bias, with BatchNorm's scale and shift folded in."""
        weight, bias = self.parameters["weight"], self.parameters["bias"]
        if not self.optimizer.batch_norm:
            return weight, bias
        return weight * self.parameters["scale"], bias + (weight * self.parameters["shift"]).sum(0)

    def folded(self, rate: int) -> tuple[Float[Tensor, "d c"], Float[Tensor, " c"]]:
        """One head as a plain linear map of the features, with BatchNorm's running statistics folded in."""
        weight, bias = (part[..., rate] for part in self.affine_weights())
        if self.optimizer.batch_norm:
            weight = weight * (self.running_var + _BATCH_NORM_EPS).rsqrt()[:, None]
            bias = bias - self.running_mean @ weight
        return weight.clone(), bias.clone()

    def gradients(
        self, features: Float[Tensor, "d c l"], ones: Float[Tensor, "c l"]
    ) -> dict[str, Float[Tensor, "..."]]:
        """The gradients of the parameters.

        Args:
            features: x^T G, with G the gradient of the loss by the logits.
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
        """One optimizer step of every head at its own learning rate; `step` counts from 0."""
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
    """One training step of every head on the weighted mean cross-entropy.

    Args:
        heads: heads on the same features.
        x: features.
        target: class distribution of each row, which sums to the row's weight: 0 for an ignored row. m is n unless the
            logits are resized.
        step: number of the step, from 0.
        steps: total number of steps.
        resize: grid of the n cells and grid of the m pixels; logits are resized bilinearly before the loss.
        with_loss: return the mean loss of each head on this batch before the step, in nats.
    """
    weight = target.sum()
    if not weight > 0:  # all pixels are ignored: there is no loss
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
    """Gradient of the summed cross-entropy by the logits: w p - t, with w the sum of a row's target t."""
    return logits.softmax(1).mul_(target.sum(1)[:, None, None]).sub_(target[..., None])


def cross_entropy(logits: Float[Tensor, "n c l"], target: Float[Tensor, "n c"]) -> Float[Tensor, " l"]:
    """The summed cross-entropy of each head, in nats."""
    return -(logits.log_softmax(1) * target[..., None]).sum((0, 1))
