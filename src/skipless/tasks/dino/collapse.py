"""Collapse monitors of self-distillation: statistics of the teacher's outputs and features on a few images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from skipless.choices import Pooling
from skipless.display import Record, Table
from skipless.display.axes import lines_by_name
from skipless.errors import InputError
from skipless.models.vit_view import enter, find_vit
from skipless.tasks.dino.encoder import encode

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_IMAGES = 64
"""Largest number of images of a measurement, on each process. One in 100 steps then takes 1 % of the time."""

# Thresholds from measurements. Collapsed teachers (digits, K = 32; temperature too high, no centring, or both) had at
# most 5e-6 nats of information, usually 1e-7, which is rounding. A teacher that had not collapsed (scenes, K = 1024)
# had at least 2e-2 from step 5 on, although its features were no better than chance.
MIN_INFORMATION = 1e-5  # nats
UNIFORM_KL = 1e-3  # nats
ONE_HOT_ENTROPY = 1e-3  # nats
MIN_EFFECTIVE_RANK = 1.01  # effective rank
MIN_SPREAD = 1e-5  # relative spread

REMEDY = (
    "lower the teacher's temperature or warm it up for longer (one dimension: raise it), lower the learning rate, "
    "warm up for longer, keep the last layer's norm fixed (norm_last_layer), freeze it for more epochs"
)


@dataclass(frozen=True, repr=False)
class CollapseReport(Record):
    """Statistics of the teacher on a few images. Logarithms are natural.

    Attributes:
        entropy: mean entropy of the teacher's outputs, in nats: 0 (a single prototype) to ln K (uniform).
        kl_uniform: mean Kullback-Leibler divergence of the outputs from the uniform distribution: ln K - entropy.
        information: mutual information of sample and prototype, in nats: the entropy of the mean output minus the mean
            entropy. It is 0 if all samples have the same output, and at most ln n.
        ranks: `effective_rank` of the class token after each block, and of the backbone's output last.
        spreads: `spread` of the same features.
        grad_norms: norms of the last step's gradients before clipping, by part of the student.
        n: number of samples, over all processes. Each process has its own, and the statistics are means over processes.
        processes: number of processes.
    """

    entropy: float
    kl_uniform: float
    information: float
    ranks: tuple[float, ...]
    spreads: tuple[float, ...]
    grad_norms: Mapping[str, float] = field(default_factory=dict)
    n: int = 0
    processes: int = 1

    def _summary(self) -> str:
        numbers = f"entropy {self.entropy:.4g}, information {self.information:.4g} nats, last rank {self.ranks[-1]:.4g}"
        return f"{self.diagnosis() or 'no collapse'}; {numbers}, n = {self.n}"

    def tables(self) -> tuple[Table, ...]:
        """A row for each block's features."""
        names = [*(f"block {i}" for i in range(len(self.ranks) - 1)), "output"]
        values = zip(names, self.ranks, self.spreads, strict=True)
        rows = [(name, f"{rank:.4g}", f"{spread:.4g}") for name, rank, spread in values]
        caption = (
            f"entropy {self.entropy:.4g}, KL to uniform {self.kl_uniform:.4g}, information {self.information:.4g} nats"
            f"; n = {self.n}, {self.processes} processes"
        )
        found = self.diagnosis()
        notes = [f"! {found}"] if found else ["no collapse, as far as so few samples can tell"]
        return (Table(("features", "effective rank", "spread"), rows, caption, notes, align="lrr"),)

    def _draw(self, axes: "Axes") -> None:
        names = [*map(str, range(len(self.ranks) - 1)), "output"]
        lines_by_name(axes, names, {"effective rank": self.ranks}, "effective rank")
        axes.set_ylim(bottom=0)

    def diagnosis(self) -> str | None:
        """Say in what way the teacher has collapsed; None if it has not, as far as so few samples can tell.

        A single sample cannot differ from another, and two samples differ in one direction at most.

        Example:
            >>> report = CollapseReport(2.0794, kl_uniform=0.0, information=0.0, ranks=(3.0,), spreads=(0.1,))
            >>> report.diagnosis()
            'the teacher gives every sample the same output, uniform over the prototypes (entropy 2.079 of 2.079 nats)'
        """
        numbers = (self.entropy, self.kl_uniform, self.information, *self.ranks, *self.spreads)
        if not all(map(math.isfinite, numbers)):
            return "the teacher's outputs are not finite"
        most = self.entropy + self.kl_uniform
        stated = f"(entropy {self.entropy:.4g} of {most:.4g} nats)"
        if self.entropy < ONE_HOT_ENTROPY:
            return f"the teacher puts every sample on a single prototype {stated}"
        each = self.n // self.processes or math.inf
        if self.information < MIN_INFORMATION and each > 1:
            how = ", uniform over the prototypes" if self.kl_uniform < UNIFORM_KL else ""
            return f"the teacher gives every sample the same output{how} {stated}"
        if self.spreads[-1] < MIN_SPREAD and each > 1:
            return f"the teacher gives every sample the same feature (relative spread {self.spreads[-1]:.2g})"
        if self.ranks[-1] < MIN_EFFECTIVE_RANK and each > 2:
            return f"the teacher's features vary in one direction only (effective rank {self.ranks[-1]:.4g})"
        return None

    def as_json(self) -> dict[str, Any]:
        """Return the statistics as JSON, with None for values that are not finite."""

        def plain(value: float) -> float | None:
            return value if math.isfinite(value) else None

        return {
            "entropy": plain(self.entropy),
            "kl_uniform": plain(self.kl_uniform),
            "information": plain(self.information),
            "ranks": [plain(rank) for rank in self.ranks],
            "spreads": [plain(spread) for spread in self.spreads],
            "grad_norms": {name: plain(norm) for name, norm in self.grad_norms.items()},
            "n": self.n,
        }


@torch.no_grad()
def measure_collapse(
    tokens: Sequence[Float[Tensor, "n _dim"]],
    outputs: Float[Tensor, "n k"],
    grad_norms: Mapping[str, Float[Tensor, ""]] | None = None,
) -> CollapseReport:
    """Compute the statistics of a teacher on some samples, averaged over the processes.

    Args:
        tokens: features after each block, the backbone's output last.
        outputs: the teacher's distribution over prototypes for each sample.
        grad_norms: gradient norms by part of the student.
    """
    names, device = list(grad_norms or {}), outputs.device
    outputs, *copied = _copy_to_cpu([outputs, *tokens, *(grad_norms or {}).values()])
    tokens, norms = copied[: len(tokens)], copied[len(tokens) :]
    entropy, marginal = _entropy(outputs).mean(), _entropy(outputs.mean(0))
    spectra = [_rank_and_spread(token) for token in tokens]
    found = [entropy, marginal - entropy, *(rank for rank, _ in spectra), *(spread for _, spread in spectra)]
    stacked = torch.stack([value.double() for value in [*found, *norms]])
    processes = 1
    if dist.is_available() and dist.is_initialized():
        processes = dist.get_world_size()
        stacked = stacked.to(device)
        dist.all_reduce(stacked)
        stacked = stacked / processes
    values = stacked.tolist()
    depth = len(tokens)
    return CollapseReport(
        entropy=values[0],
        kl_uniform=math.log(outputs.shape[1]) - values[0],
        information=values[1],
        ranks=tuple(values[2 : 2 + depth]),
        spreads=tuple(values[2 + depth : 2 + 2 * depth]),
        grad_norms=dict(zip(names, values[2 + 2 * depth :], strict=True)),
        n=len(outputs) * processes,
        processes=processes,
    )


@torch.no_grad()
def class_tokens(
    backbone: nn.Module, images: Float[Tensor, "n c h w"], pooling: Pooling = "class"
) -> list[Float[Tensor, "n _dim"]]:
    """Return the class token of each image after each block, and the feature that the head gets last.

    Without a class token it is the mean over the tokens, and with mean pooling that over the patch tokens. For a
    backbone whose blocks are unknown, only its output is returned.
    """
    features = backbone(images) if pooling == "class" else encode(backbone, images, pooling)[0]
    try:
        model = find_vit(backbone)
    except InputError:
        return [features]
    found = []
    x, views = enter(model, images)
    for view in views:
        x = view.run(x)
        averaged = x[:, model.prefix :].mean(1) if pooling == "mean" else x.mean(1)
        found.append(x[:, 0] if model.class_token and pooling == "class" else averaged)
    return [*found, features]


def _copy_to_cpu(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copy tensors to the CPU, all of one dtype at once: every copy waits for an accelerator."""
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return list(tensors)
    copied: dict[int, Tensor] = {}
    for dtype in {tensor.dtype for tensor in tensors}:
        own = {index: tensor for index, tensor in enumerate(tensors) if tensor.dtype == dtype}
        parts = torch.cat([tensor.flatten() for tensor in own.values()]).cpu().split([*map(Tensor.numel, own.values())])
        copied |= {index: part.view(own[index].shape) for index, part in zip(own, parts, strict=True)}
    return [copied[index] for index in range(len(tensors))]


def effective_rank(features: Float[Tensor, "n d"]) -> float:
    """Return exp(entropy of s / sum(s)), with s the singular values of the centred features (Roy and Vetterli 2007).

    It is 1 if the features vary in one direction (by definition also if they do not vary), and at most min(n - 1, d).

    Example:
        >>> round(effective_rank(torch.eye(4)), 4)  # centred: three equal directions
        3.0
    """
    return float(_rank_and_spread(features)[0])


def spread(features: Float[Tensor, "n d"]) -> float:
    """Return the root mean square of the centred features, divided by that of the features."""
    return float(_rank_and_spread(features)[1])


def _rank_and_spread(features: Float[Tensor, "n d"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    features = features.detach().cpu().double()  # they are few, and a GPU's SVD is slower
    if not features.isfinite().all():
        return torch.tensor(math.nan), torch.tensor(math.nan)
    centred = features - features.mean(0)
    norm = torch.linalg.vector_norm(features)
    relative = torch.linalg.vector_norm(centred) / norm.clamp_min(torch.finfo(torch.float64).tiny)
    values = torch.linalg.svdvals(centred)
    # Centring leaves a null direction, whose singular value is rounding noise.
    values = torch.where(values > 1e-12 * norm, values, 0.0)
    total = values.sum()
    if not total > 0:
        return torch.tensor(1.0), relative
    return _entropy(values / total).exp(), relative


def _entropy(p: Float[Tensor, "*n k"]) -> Float[Tensor, "*n"]:
    """Return the entropy in nats, in float64: small differences of entropies over 65,536 prototypes must be exact."""
    return torch.special.entr(p.cpu().double()).sum(-1)
