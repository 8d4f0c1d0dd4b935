"""SineLowRank: linear maps whose weight is a sine of a low-rank product, from scratch (arXiv 2403.19243)."""

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from skipless.errors import InputError
from skipless.nn.sine import check_sine, sine_weight, wide

SineStart = Literal["random", "svd"]


class SineLowRank(nn.Module):
    """A parametrization of any linear map's weight for training from scratch: W = sin(omega U V^T) / g.

    `torch.nn.utils.parametrize.register_parametrization(linear, "weight", SineLowRank(8))` puts U (o x r) and V (i x r)
    in the place of W (o x i); in the state dict they are `parametrizations.weight.original0` and `original1`.
    `parametrize.cached()` makes W once a step where a weight is used several times, and
    `parametrize.remove_parametrizations(linear, "weight")` leaves a plain W. W is assigned by its nearest factors: the
    SVD of arcsin(g W) / omega, cut off at rank r.

    Args:
        rank: r, of U V^T. The rank of W is higher where omega U V^T is not small.
        frequency: omega. The paper gives no rule; 200 is what its authors use for adapters.
        scaling: g; by default sqrt(i), the authors'.
        start: what U and V are at first. `"random"` (default) draws both as PyTorch does weights of linear maps; the
            weight as it was is given up. Then omega U V^T has a standard deviation of omega / (3 sqrt(i)), 2.4 at
            i = 768. The paper's start is not public. `"svd"` is near the weight as it was, as assigning is.
        generator: source of randomness, torch's global generator of the weight's device by default.

    Raises:
        InputError: for a rank below 1, or above what the weight has; for a frequency or scaling that is not above 0;
            for another start; for a weight that is no matrix.

    Example:
        >>> from torch.nn.utils import parametrize
        >>> layer = parametrize.register_parametrization(nn.Linear(32, 16), "weight", SineLowRank(2))
        >>> int(torch.linalg.matrix_rank(layer.weight)), sum(one.numel() for one in layer.parametrizations.parameters())
        (16, 96)
    """

    def __init__(
        self,
        rank: int,
        frequency: float = 200.0,
        scaling: float | None = None,
        *,
        start: SineStart = "random",
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        if rank < 1:
            raise InputError(f"rank={rank}: give a rank of 1 or more")
        if start not in get_args(SineStart):
            raise InputError(f"start={start!r} is not one of 'random', 'svd'")
        check_sine(frequency, scaling)
        self.rank, self.frequency, self.scaling, self.start = rank, frequency, scaling, start
        self.generator = generator
        self._started = False

    def forward(self, u: Float[Tensor, "o r"], v: Float[Tensor, "i r"]) -> Float[Tensor, "o i"]:
        """The weight that is used, in the factors' dtype."""
        return sine_weight(u, v.mT, self.frequency, self._g(len(v))).to(u.dtype)

    @torch.no_grad()
    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """U and V in the place of a weight: drawn when registered, nearest to it afterwards."""
        if weight.ndim != 2 or self.rank > min(weight.shape):
            shape = tuple(weight.shape)
            raise InputError(f"rank={self.rank} for a weight of shape {shape}: it takes matrices of that rank or more")
        drawn, self._started = self.start == "random" and not self._started, True
        factors = self._draw(weight) if drawn else self._nearest(weight)
        self.generator = None  # it could not be copied, and with it no model
        return factors

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"rank={self.rank}, frequency={self.frequency}, scaling={self.scaling}, start={self.start!r}"

    def _g(self, inputs: int) -> float:
        return math.sqrt(inputs) if self.scaling is None else self.scaling

    def _draw(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        outputs, inputs = weight.shape
        u, v = weight.new_empty(outputs, self.rank), weight.new_empty(inputs, self.rank)
        for factor, fan_in in ((u, self.rank), (v, inputs)):
            factor.uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=self.generator)
        return u, v

    def _nearest(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        phase = torch.asin((self._g(weight.shape[1]) * wide(weight)).clamp(-1, 1)) / self.frequency
        u, s, vh = torch.linalg.svd(phase, full_matrices=False)
        root = s[: self.rank].sqrt()
        return (u[:, : self.rank] * root).to(weight), (vh[: self.rank].mT * root).to(weight)
