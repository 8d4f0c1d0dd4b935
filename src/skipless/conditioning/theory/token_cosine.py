"""How alike tokens become with depth: C-maps of attention and MLP composed, beside what a model measures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from skipless.display import Record, Table
from skipless.display.axes import legend, lines_by_name
from skipless.errors import InputError
from skipless.init import CorrelationMap
from skipless.init.correlation_map import odd_slope
from skipless.init.mirrored_gated import odd_product
from skipless.models import block_views, inspect_tokens
from skipless.models.blocks import BlockView
from skipless.models.eval_mode import evaluating
from skipless.models.starting.attention_diagonal import attention
from skipless.models.starting.first_tokens import Given, first_tokens
from skipless.precision import full_precision

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_IMAGES = 16  # whose attention matrices are kept


@dataclass(frozen=True, repr=False)
class TokenCosine(Record):
    """Mean cosine between an image's tokens after each block, as predicted and as measured.

    Attributes:
        blocks: names of the blocks.
        entering: cosine of the tokens that enter the first block.
        predicted: after each block, by C-maps of attention and MLP.
        measured: after each block, in the model.
        diagonal: mean A_ii of each block.
    """

    blocks: tuple[str, ...]
    entering: float
    predicted: tuple[float, ...]
    measured: tuple[float, ...]
    diagonal: tuple[float, ...]

    @property
    def error(self) -> float:
        """The largest difference between the two."""
        return max(abs(p - m) for p, m in zip(self.predicted, self.measured, strict=True))

    def _summary(self) -> str:
        last = f"{self.predicted[-1]:.2f} predicted, {self.measured[-1]:.2f} measured"
        return f"cosine after {len(self.blocks)} blocks {last}; largest difference {self.error:.2f}"

    def tables(self) -> tuple[Table, ...]:
        """A row for each block."""
        values = zip(self.blocks, self.predicted, self.measured, self.diagonal, strict=True)
        rows = [(name, *(f"{value:.3f}" for value in numbers)) for name, *numbers in values]
        return (Table(("block", "predicted", "measured", "diagonal"), rows, self._summary()),)

    def _draw(self, axes: "Axes") -> None:
        lines_by_name(axes, self.blocks, {"measured": self.measured, "predicted": self.predicted}, "token cosine")
        axes.set_ylim(0, 1.02)
        legend(axes)


def attention_correlation(
    cosines: Float[Tensor, "*b n n"], attention: Float[Tensor, "*b h n n"]
) -> Float[Tensor, "*b n n"]:
    """The C-map of attention: cosines between the tokens of Y = A X W, from those between the tokens of X.

    For tokens of one length with the Gram matrix K, and heads whose W_V W_O are orthogonal to each other and together a
    rotation, the Gram matrix of Y is the mean over heads of A K A^T in the limit of great width.

    Args:
        cosines: between the tokens of each image before, K.
        attention: of every head.

    Example:
        >>> apart, uniform = torch.eye(5), torch.full((1, 5, 5), 0.2)
        >>> attention_correlation(apart, torch.eye(5)[None])[0, 1].item()
        0.0
        >>> round(attention_correlation(apart, uniform)[0, 1].item(), 6)
        1.0
    """
    gram = (attention @ cosines.unsqueeze(-3) @ attention.mT).mean(-3)
    length = gram.diagonal(dim1=-2, dim2=-1).clamp_min(torch.finfo(gram.dtype).tiny).sqrt()
    return (gram / (length.unsqueeze(-1) * length.unsqueeze(-2))).clamp(-1, 1)


def mean_cosine(cosines: Float[Tensor, "*b n n"]) -> float:
    """Mean over pairs of different tokens, and over images."""
    n = cosines.shape[-1]
    own = cosines.diagonal(dim1=-2, dim2=-1).sum(-1)
    return ((cosines.sum((-2, -1)) - own) / (n * (n - 1))).mean().item() if n > 1 else 1.0


def compose_cosines(
    cosines: Float[Tensor, "*b n n"],
    attention: Sequence[Float[Tensor, "*b h n n"]],
    mlp: Sequence[CorrelationMap],
) -> tuple[float, ...]:
    """Mean cosine after each block of a model without skips, from its attention matrices and the C-maps of its MLPs."""
    found = []
    for matrices, c_map in zip(attention, mlp, strict=True):
        cosines = c_map(attention_correlation(cosines, matrices))
        found.append(mean_cosine(cosines))
    return tuple(found)


def mlp_correlation(view: BlockView) -> CorrelationMap:
    """The C-map of a block's MLP as it is initialised: mirrored, gated, both, or between two random maps."""
    if view.gate is not None and (scale := _gate_scale(view)):
        return _one_map(view, scale)
    if view.gate is not None:
        gate = view.mlp_in[view.gate]
        bias = 0.0 if gate.b is None else gate.b.double().mean().item()
        spread = gate.w.double().square().sum(0).mean().sqrt().item()
        into, out_of = view.mlp_in[1 - view.gate].w.double(), view.mlp_out.w.double()
        through = (into @ out_of).square().sum()  # of x with constant gates, beside gates that are independent
        apart = into.square().sum(0) @ out_of.square().sum(1)
        c_map = CorrelationMap.of(lambda z: view.activation(bias + spread * z))
        return c_map.gated((through / apart).item() if apart else 1.0)
    own = CorrelationMap.of(view.activation)
    w_1, w_2 = view.mlp_in[0].w.double(), view.mlp_out.w.double()
    pairs = w_1.shape[1] // 2
    if w_1.shape[1] % 2 or not _opposite(w_1[:, :pairs], w_1[:, pairs:]):
        return own
    odd = (w_2[:pairs] - w_2[pairs:]) / 2
    share = odd.square().sum().item() * odd_slope(view.activation) ** 2 * pairs / view.dim**2
    return own.with_linearity(min(share, 1.0))


def _gate_scale(view: BlockView) -> float:
    """s where the gates' map is s times the other input map; 0 where it is not, or the gates have biases."""
    assert view.gate is not None
    gate, up = view.mlp_in[view.gate], view.mlp_in[1 - view.gate].w.double()
    if gate.b is not None and gate.b.any():
        return 0.0
    scale = (gate.w.double() * up).sum() / up.square().sum()
    return scale.item() if torch.allclose(gate.w.double(), scale * up, rtol=1e-2, atol=1e-4) else 0.0


def _one_map(view: BlockView, scale: float) -> CorrelationMap:
    """The C-map of a gated MLP whose gates and values come of one map: of u f(s u), or of its odd part in pairs."""
    up, down = view.mlp_in[1 - (view.gate or 0)].w.double(), view.mlp_out.w.double()
    pairs = up.shape[1] // 2
    if _opposite(up[:, :pairs], up[:, pairs : 2 * pairs]) and _opposite(down[:pairs], down[pairs : 2 * pairs]):
        return CorrelationMap.of(odd_product(view.activation, scale))
    return CorrelationMap.of(lambda u: u * view.activation(scale * u))


def _parted(view: BlockView) -> bool:
    """Whether a head's values leave out some of a token's entries, as `init/context_heads.py` starts them."""
    by_head = view.w_v.unflatten(1, (view.key_heads, -1))
    return bool((by_head == 0).all(dim=2).any())


def _opposite(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, -other, rtol=1e-2, atol=1e-4)


@torch.no_grad()
@full_precision()
def predict_token_cosine(model: nn.Module, images: Given) -> TokenCosine:
    """Predict how alike the tokens of images become in a skipless model at initialisation, and measure it.

    The prediction takes from the model the cosines between the tokens that enter its first block, its attention
    matrices, and its MLPs' weights as far as they tell the C-map. It holds in the limit of great width.

    Args:
        model: without skips, at initialisation; trained weights have no C-map.
        images: normalised as for the model, or token ids of a language model; the first 16 are used.

    Raises:
        InputError: if no adapter knows the model, it has skips, its heads are of two kinds, or it does not take the
            images.

    Example:
        >>> from skipless import SkiplessInit, create_model
        >>> model = create_model("vit_small_patch16_224", init=SkiplessInit(0.0, 1.0), depth=4, img_size=64, seed=0)
        >>> found = predict_token_cosine(model, torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
        >>> found.error < 0.05
        True
    """
    views = block_views(model)
    if any(_parted(view) for view in views):
        raise InputError(
            "the heads of this model are of two kinds (context_heads), which read directions of their own: C-maps are "
            "composed for heads that read all of a token"
        )
    if any(view.skips for view in views):
        raise InputError("C-maps are composed for a model without skips: call remove_skips_ first")
    with evaluating(model):
        x, views = first_tokens(model, views, images[:_IMAGES])
        report = inspect_tokens(model, images[:_IMAGES])
        unit = nn.functional.normalize(x.double(), dim=-1)
        matrices = []
        for view in views:
            matrices.append(attention(view, view.attn_norm(x)))
            x = view.run(x)
    return TokenCosine(
        blocks=tuple(view.name for view in views),
        entering=report.entering,
        predicted=compose_cosines(unit @ unit.mT, matrices, [mlp_correlation(view) for view in views]),
        measured=tuple(block.cosine for block in report.blocks),
        diagonal=tuple(block.diagonal for block in report.blocks),
    )
