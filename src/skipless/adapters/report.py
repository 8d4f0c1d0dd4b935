"""sine_report: how far each sine adapter is from LoRA, layer by layer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from skipless.adapters.attach import chosen, layers_of
from skipless.adapters.layer import SineLinear
from skipless.display import Record, Table
from skipless.display.axes import legend, level, lines_by_name
from skipless.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False)
class SineLayer(Record):
    """One layer of a sine adapter.

    Ranks are of the whole matrix, in float64, and 0 for one that is 0: the stable rank is ||M||_F^2 / ||M||_2^2, the
    effective rank exp(entropy of s / sum(s)), s the singular values (Roy and Vetterli 2007).

    Attributes:
        name: of the layer, in the base.
        shape: of its weight, (out, in).
        rank: r, of B A.
        frequency: omega.
        scaling: g.
        bits: of an index, where A and B are quantised.
        phase_std: the standard deviation of omega B A over its entries, in radians. Far below 1 the sine is linear.
        stable_rank: of sin(omega B A).
        effective_rank: of sin(omega B A).
        product_stable_rank: of B A.
        product_effective_rank: of B A, at most r.
        lora_alpha: alpha.
        first_order_alpha: alpha' = alpha omega / g. LoRA with it, and the same A and B, is the sine to first order.
        departure: ||sine - LoRA at alpha'||_F / ||sine||_F; 0 where the sine is 0.
    """

    name: str
    shape: tuple[int, int]
    rank: int
    frequency: float
    scaling: float
    bits: int | None
    phase_std: float
    stable_rank: float
    effective_rank: float
    product_stable_rank: float
    product_effective_rank: float
    lora_alpha: float
    first_order_alpha: float
    departure: float

    def _summary(self) -> str:
        ranks = f"effective rank {self.product_effective_rank:.3g} -> {self.effective_rank:.3g}"
        return f"{self.name}: std of omega B A {self.phase_std:.3g}, {ranks}, alpha' {self.first_order_alpha:.4g}"


@dataclass(frozen=True, repr=False)
class SineReport(Record):
    """One `SineLayer` for each layer of a sine adapter.

    Attributes:
        adapter: its name.
        layers: in the model's order.
    """

    adapter: str
    layers: tuple[SineLayer, ...]

    @property
    def alpha_pattern(self) -> dict[str, float]:
        """alpha' of each layer, for the control that a claim of the sine needs: `LoraConfig(alpha_pattern=...)`."""
        return {layer.name: layer.first_order_alpha for layer in self.layers}

    def _summary(self) -> str:
        count = len(self.layers)
        stds = [layer.phase_std for layer in self.layers]
        return f"adapter {self.adapter}, {count} layers, std of omega B A {min(stds):.3g} to {max(stds):.3g}"

    def tables(self) -> tuple[Table]:
        """A row for each layer."""
        head = ("layer", "out x in", "r", "bits", "std of wBA", "stable rank", "effective rank", "alpha'", "departure")
        caption = (
            f"adapter {self.adapter}: ranks of B A -> of sin(w B A); alpha' = alpha w / g; departure of the sine from "
            "LoRA at alpha', relative"
        )
        return (Table(head, [_row(layer) for layer in self.layers], caption, align="llrrrllrr"),)

    def _draw(self, axes: "Axes") -> None:
        names = [layer.name for layer in self.layers]
        series = {
            "of sin(w B A)": [layer.effective_rank or None for layer in self.layers],
            "of B A": [layer.product_effective_rank or None for layer in self.layers],
        }
        axes.set_yscale("log")
        lines_by_name(axes, names, series, "effective rank", "layer")
        level(axes, max(layer.rank for layer in self.layers), "r")
        legend(axes)


@torch.no_grad()
def sine_report(model: nn.Module, adapter: str | None = None) -> SineReport:
    """Measure each layer of a sine adapter: how nonlinear the sine is, what it does to ranks, which LoRA it is near.

    While std(omega B A) << 1 the adapter is LoRA at alpha' = alpha omega / g, at 7 times alpha for 768 inputs and
    omega = 200. So a comparison with LoRA needs one at alpha', `LoraConfig(alpha_pattern=report.alpha_pattern)`.

    Args:
        model: has a sine adapter. An SVD of a weight's size is done for each layer.
        adapter: its name; by default the active one.

    Raises:
        InputError: if there is no such adapter, several are active and none is named, or it has no sine.

    Example:
        >>> from peft import LoraConfig, get_peft_model
        >>> from skipless.adapters import sine_
        >>> config = LoraConfig(r=2, target_modules=["0"])
        >>> model = sine_(get_peft_model(nn.Sequential(nn.Linear(16, 8)), config), frequency=20.0)
        >>> report = sine_report(model)
        >>> report.alpha_pattern, report.layers[0].phase_std  # B is 0 at first; alpha is 8 by default
        ({'0': 40.0}, 0.0)
    """
    names = chosen(model, adapter)
    if len(names) != 1:
        raise InputError(f"adapters {names} are active: name one, adapter=...")
    layers = layers_of(model, names[0])
    if not all(isinstance(layer, SineLinear) and names[0] in layer.lora_sine for layer in layers.values()):
        raise InputError(f"adapter {names[0]!r} is plain LoRA: call sine_ first")
    return SineReport(names[0], tuple(_measure(name, layer, names[0]) for name, layer in layers.items()))


def _measure(name: str, layer: Any, adapter: str) -> SineLayer:
    sine = layer.lora_sine[adapter]
    b, a = (factor[adapter].weight.detach().double() for factor in (layer.lora_B, layer.lora_A))
    phase = sine.frequency * (b @ a)
    activated = phase.sin()
    size = activated.norm()
    stable, effective = ranks_of(torch.linalg.svdvals(activated))
    # Of B A from its factors: r singular values, without rounding's others.
    small = torch.linalg.qr(b).R @ torch.linalg.qr(a.mT).R.mT
    product_stable, product_effective = ranks_of(torch.linalg.svdvals(small))
    codebook = sine.codebook_a
    return SineLayer(
        name=name.removeprefix("base_model.model."),
        shape=(layer.out_features, layer.in_features),
        rank=layer.r[adapter],
        frequency=sine.frequency,
        scaling=sine.scaling,
        bits=None if codebook is None else len(codebook).bit_length() - 1,
        phase_std=float(phase.std(correction=0)),
        stable_rank=stable,
        effective_rank=effective,
        product_stable_rank=product_stable,
        product_effective_rank=product_effective,
        lora_alpha=layer.lora_alpha[adapter],
        first_order_alpha=layer.lora_alpha[adapter] * sine.frequency / sine.scaling,
        departure=float((activated - phase).norm() / size) if size > 0 else 0.0,
    )


def ranks_of(s: Float[Tensor, " k"]) -> tuple[float, float]:
    """The stable and the effective rank of a matrix with these singular values, largest first; 0 of one that is 0.

    Example:
        >>> ranks_of(torch.tensor([2.0, 0.0]))
        (1.0, 1.0)
    """
    if not s[0] > 0:
        return 0.0, 0.0
    share = s / s.sum()
    return float((s / s[0]).square().sum()), float(torch.special.entr(share).sum().exp())


def _row(layer: SineLayer) -> tuple[str, ...]:
    return (
        layer.name,
        f"{layer.shape[0]} x {layer.shape[1]}",
        str(layer.rank),
        "-" if layer.bits is None else str(layer.bits),
        f"{layer.phase_std:.3g}",
        f"{layer.product_stable_rank:.3g} -> {layer.stable_rank:.3g}",
        f"{layer.product_effective_rank:.3g} -> {layer.effective_rank:.3g}",
        f"{layer.first_order_alpha:.4g}",
        f"{layer.departure:.2%}",
    )
