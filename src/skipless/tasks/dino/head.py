"""DINO's projection head: an MLP, a normalised bottleneck, and prototypes of fixed length (Caron et al. 2021, 3.1)."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from skipless.errors import InputError


class WeightNormLinear(nn.Module):
    """A linear map whose rows are g v / |v|: prototypes with length g and direction v (weight normalisation).

    Args:
        in_dim: length of a row.
        out_dim: number of rows.
        fixed: keep every g at 1.
        generator: source of randomness for v.

    Attributes:
        weight_v: the directions v, not normalised.
        weight_g: the lengths g, initially 1. It is a matrix with one column, so that it decays as matrices do, as in
            the published code.
    """

    def __init__(self, in_dim: int, out_dim: int, *, fixed: bool = True, generator: Generator | None = None) -> None:
        super().__init__()
        bound = in_dim**-0.5  # as in torch's nn.Linear; the length of v decides how far a step turns it
        self.weight_v = nn.Parameter(torch.empty(out_dim, in_dim).uniform_(-bound, bound, generator=generator))
        self.weight_g = nn.Parameter(torch.ones(out_dim, 1), requires_grad=not fixed)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b k"]:
        """Project onto every row."""
        with torch.autocast(x.device.type, enabled=False):  # a norm in half precision over- or underflows
            weight = self.weight_g * F.normalize(self.weight_v, dim=-1)
        return F.linear(x, weight)


class DINOHead(nn.Module):
    """Maps a backbone's feature to the logits of K prototypes: an MLP with GELU, without batch norm.

    The bottleneck is L2-normalised in float32 even under autocast, since its norm overflows in fp16.

    Args:
        in_dim: width of the backbone's feature.
        out_dim: number K of prototypes.
        hidden_dim: width of the hidden layers.
        bottleneck_dim: width of the normalised bottleneck.
        layers: number of linear layers of the MLP; 1 has no hidden layer.
        norm_last_layer: keep the prototypes' length at 1, which stabilises training but costs some accuracy.
        generator: source of randomness, on the CPU.

    Raises:
        InputError: if a size is below 1.

    Example:
        >>> head = DINOHead(384, 1024)
        >>> logits = head(torch.randn(2, 384))
        >>> logits.shape, bool(logits.abs().max() <= 1)  # cosines
        (torch.Size([2, 1024]), True)
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        layers: int = 3,
        norm_last_layer: bool = True,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        if min(in_dim, out_dim, hidden_dim, bottleneck_dim, layers) < 1:
            raise InputError(
                f"DINOHead({in_dim}, {out_dim}, hidden_dim={hidden_dim}, bottleneck_dim={bottleneck_dim}, "
                f"layers={layers}): give at least 1 everywhere"
            )
        widths = [in_dim, *[hidden_dim] * (layers - 1), bottleneck_dim]
        modules: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            modules += [_linear(fan_in, fan_out, generator), nn.GELU()]
        self.mlp = nn.Sequential(*modules[:-1])
        self.last_layer = WeightNormLinear(bottleneck_dim, out_dim, fixed=norm_last_layer, generator=generator)

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """Return logits; they are cosines if the length of the prototypes is fixed."""
        return self.last_layer(self.bottleneck(x))

    def bottleneck(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b c"]:
        """Return the normalised features that are compared with the prototypes."""
        x = self.mlp(x)
        with torch.autocast(x.device.type, enabled=False):
            return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)


def _linear(fan_in: int, fan_out: int, generator: Generator | None) -> nn.Linear:
    linear = nn.Linear(fan_in, fan_out, device="meta").to_empty(
        device="cpu"
    )  # draws nothing from torch's own generator
    nn.init.trunc_normal_(linear.weight, std=0.02, generator=generator)
    nn.init.zeros_(linear.bias)
    return linear
