"""The inputs of each sub-block in a forward pass, the attention maps there, and the distribution of the tokens."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from skipless.conditioning.operators.autodiff import math_attention
from skipless.conditioning.operators.block_stack import forward_with_hooks
from skipless.conditioning.operators.given import check_given, is_text
from skipless.conditioning.operators.validate import check_weights
from skipless.conditioning.spectra.dense import matrix_spectrum
from skipless.conditioning.spectra.estimates import Spectrum
from skipless.display import Record, Table
from skipless.display.axes import legend, ruled
from skipless.display.drawing import COLOURS
from skipless.errors import InputError
from skipless.models import block_views
from skipless.models.adapters.known import adapters
from skipless.models.blocks import BlockView, SubBlock
from skipless.models.calls import BlockContext, first_tensor
from skipless.models.eval_mode import evaluating
from skipless.models.starting.attention_diagonal import attention_matrices
from skipless.models.starting.first_tokens import Given
from skipless.models.text_view import enter_text, find_text
from skipless.models.vit_view import enter, project
from skipless.precision import full_precision

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# If a module computes something other than its view describes, the outputs differ by far more than rounding.
AGREEMENT_RTOL = 1e-3
HISTOGRAM_EDGE = 5.0  # the histogram covers -5 to 5, five standard deviations of a layer-normed token


@dataclass(frozen=True, eq=False)
class BlockInputs:
    """The input tokens of one block's two sub-blocks.

    Attributes:
        index: position of the block in the model, from 0.
        view: the block.
        attn_raw, mlp_raw: the tokens before the sub-block's norm.
        attn, mlp: the tokens after the norm, which the sub-block receives.
    """

    index: int
    view: BlockView
    attn_raw: Float[Tensor, "b n d"]
    attn: Float[Tensor, "b n d"]
    mlp_raw: Float[Tensor, "b n d"]
    mlp: Float[Tensor, "b n d"]


@dataclass(frozen=True, repr=False)
class TokenDistribution(Record):
    """The entries of all tokens after one pre-norm, beside those of N(0, I) (Figure 6).

    Attributes:
        block: name of the block.
        sub_block: the sub-block that the norm belongs to.
        tokens: number of tokens, over all images.
        dim: number of entries of a token.
        mean, std: over all entries.
        excess_kurtosis: over all entries; 0 for a Gaussian.
        isotropy: tr(C)^2 / (d tr(C^2)) of the tokens' covariance C, the participation ratio over d: 1 if C is a
            multiple of the identity, 1 / d if the tokens lie on a line.
        gaussian_isotropy: the isotropy of as many N(0, I) tokens on average, about 1 / (1 + (d + 1) / (n - 1)).
        covariance: spectrum of the centred tokens / sqrt(n - 1); its `kappa_gram` is kappa(C). C is singular as a rule,
            because LayerNorm without affine part removes one direction, and n centred tokens span n - 1: see `rank`.
        edges: edges of the histogram's bins; entries beyond them count in the outermost bins.
        density: share of the entries in each bin, divided by the bin's width.
    """

    block: str
    sub_block: SubBlock
    tokens: int
    dim: int
    mean: float
    std: float
    excess_kurtosis: float
    isotropy: float
    gaussian_isotropy: float
    covariance: Spectrum
    edges: tuple[float, ...]
    density: tuple[float, ...]

    def _summary(self) -> str:
        moments = f"mean {self.mean:.3g}, std {self.std:.3g}, excess kurtosis {self.excess_kurtosis:.3g}"
        return (
            f"{self.block}.{self.sub_block}, {self.tokens} tokens x {self.dim}, {moments}, isotropy {self.isotropy:.3g}"
        )

    def tables(self) -> tuple[Table, ...]:
        """The moments, beside those of N(0, I)."""
        rows = [
            ("mean", f"{self.mean:.4g}", "0"),
            ("standard deviation", f"{self.std:.4g}", "1"),
            ("excess kurtosis", f"{self.excess_kurtosis:.4g}", "0"),
            ("isotropy", f"{self.isotropy:.4g}", f"{self.gaussian_isotropy:.4g}"),
            ("kappa of the covariance", str(self.covariance.kappa_gram), ""),
        ]
        caption = f"{self.block}.{self.sub_block}, after the norm: {self.tokens} tokens of {self.dim} entries"
        return (Table(("entries", "here", "N(0, I)"), rows, caption, align="lrr"),)

    def _draw(self, axes: "Axes") -> None:
        middles = [(low + high) / 2 for low, high in zip(self.edges, self.edges[1:], strict=False)]
        normal = [math.exp(-0.5 * x**2) / math.sqrt(2 * math.pi) for x in middles]
        axes.stairs(
            self.density,
            self.edges,
            fill=True,
            color=COLOURS["init"],
            alpha=0.5,
            label=f"{self.block}.{self.sub_block}",
        )
        axes.plot(middles, normal, color=COLOURS["muted"], linewidth=1, label="N(0, 1)")
        axes.set_xlabel("entry of a token", loc="right", labelpad=2)
        axes.set_ylabel("density")
        ruled(axes)
        legend(axes)

    def as_json(self) -> dict[str, Any]:
        """Plain values that `json` writes."""
        return {**vars(self), "covariance": self.covariance.as_json()}


@full_precision()
def block_inputs(model: nn.Module, images: Given, blocks: Sequence[int] | None = None) -> tuple[BlockInputs, ...]:
    """Capture the inputs of the sub-blocks of some blocks in one forward pass of the model.

    The pass runs in eval mode, without autocast and gradients. The model is left unchanged.

    Args:
        model: a model with blocks that an adapter knows.
        images: normalised as the model expects them; of a language model, token ids `(b, n)`.
        blocks: positions of blocks; negative ones count from the end; all by default.

    Raises:
        InputError: if no adapter knows the model, a position is out of range, there are no images, or images or
            weights are not finite, in half precision, on the meta device, or refused by the model, or token ids are
            not the model's.

    Example:
        >>> from skipless.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=3, img_size=32, embed_dim=24, num_heads=2, seed=0)
        >>> found = block_inputs(model, torch.randn(2, 3, 32, 32), [-1])[0]
        >>> found.view.name, tuple(found.attn.shape)
        ('blocks.2', (2, 5, 24))
    """
    chosen = select_blocks(model, blocks)
    check_weights(model, "")
    check_given(model, images)
    captured: dict[tuple[int, str], Tensor] = {}
    given: dict[int, dict[Any, Any]] = {}

    def capture(index: int, place: str, sequence_first: bool) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            tokens = first_tensor(args[0] if args else next(iter(kwargs.values()))).detach()
            captured.setdefault((index, place), (tokens.transpose(0, 1) if sequence_first else tokens).clone())
            if place == "block":
                given.setdefault(index, {**dict(enumerate(args[1:], start=1)), **kwargs})

        return hook

    handles = [
        getattr(view, module).register_forward_pre_hook(capture(index, place, view.sequence_first), with_kwargs=True)
        for index, view in chosen
        for module, place in _HOOKED
    ]
    forward_with_hooks(model, images, handles)
    views = _in_context(model, images, chosen, given)
    with evaluating(model), math_attention(images.device), torch.no_grad():
        return tuple(_inputs(index, view, captured) for index, view in views)


_HOOKED = (("block", "block"), ("attn_norm", "attn_raw"), ("attn", "attn"), ("mlp_norm", "mlp_raw"), ("mlp", "mlp"))


def _inputs(index: int, view: BlockView, captured: Mapping[tuple[int, str], Tensor]) -> BlockInputs:
    """What the hooks of a block saw; what it does not call as a module is computed from what comes before."""
    seen = {place: captured.get((index, place)) for _, place in _HOOKED}
    attn_raw = seen["block"] if seen["attn_raw"] is None else seen["attn_raw"]
    if attn_raw is None or seen["mlp_raw"] is None:
        raise InputError("the model does not call its sub-blocks as modules; of a compiled one give `model._orig_mod`")
    attn = view.attn_norm(attn_raw) if seen["attn"] is None else seen["attn"]
    mlp = view.mlp_norm(seen["mlp_raw"]) if seen["mlp"] is None else seen["mlp"]
    return BlockInputs(index, view, attn_raw, attn, seen["mlp_raw"], mlp)


def _in_context(
    model: nn.Module, images: Given, chosen: Sequence[tuple[int, BlockView]], given: Mapping[int, Mapping[Any, Any]]
) -> list[tuple[int, BlockView]]:
    """The blocks as the model has called them.

    Raises:
        InputError: if it calls them with more than tokens, and no adapter says with what.
    """
    placed = _contexts(model, images)
    for index, view in chosen:
        named = [str(name) for name, value in given.get(index, {}).items() if value is not None and value is not False]
        if named and view.block not in placed:
            raise InputError(
                f"{view.name} is called with more than tokens ({', '.join(named)}), and no adapter says what its "
                "attention makes of that: measure the model without"
            )
    return [(index, view.in_context(placed.get(view.block, view.context))) for index, view in chosen]


def _contexts(model: nn.Module, images: Given) -> dict[nn.Module, BlockContext]:
    """What an adapter says that each block is called with."""
    with evaluating(model), torch.no_grad():
        if is_text(images):
            return {view.block: view.context for view in enter_text(find_text(model), images)[1]}
        vits = (vit for adapter in adapters() for vit in adapter.vits(model) if vit.contextual)
        return {view.block: view.context for vit in vits for view in enter(vit, images)[1]}


def select_blocks(model: nn.Module, blocks: Sequence[int] | None) -> list[tuple[int, BlockView]]:
    """Position and view of the blocks at the given positions.

    Raises:
        InputError: if no adapter knows the model, or a position is out of range or named twice.
    """
    views = block_views(model)
    depth = len(views)
    wanted = range(depth) if blocks is None else blocks
    positions = sorted({index % depth for index in wanted})
    if not positions or len(positions) < len(wanted) or not all(-depth <= index < depth for index in wanted):
        raise InputError(f"blocks={blocks}: give positions from 0 to {depth - 1}, at least one, none twice")
    return [(index, views[index]) for index in positions]


@torch.no_grad()
@full_precision()
def attention_maps(view: BlockView, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b h n n"] | None:
    """A_l of every head at the attention's input `x`; None if the module computes something else.

    Fused attention does not return its maps. They are computed from the view's weights, biases, qk-norm, logit
    scale and context, and the resulting output is compared with the module's own.
    """
    group = view.heads // view.key_heads
    maps = attention_matrices(view, x)
    values = project(x, view.value).unflatten(-1, (view.key_heads, -1)).transpose(1, 2).repeat_interleave(group, dim=1)
    found = project((maps @ values).transpose(1, 2).flatten(2), view.output)
    with math_attention(x.device), torch.no_grad(), evaluating(view.attn):
        expected = view.attend(x)
    if found.shape != expected.shape or not (found - expected).norm() <= AGREEMENT_RTOL * expected.norm():
        return None
    return maps


@torch.no_grad()
def token_distribution(x: Float[Tensor, "b n d"], block: str, sub_block: SubBlock, bins: int = 50) -> TokenDistribution:
    """The distribution of the entries of tokens (Figure 6), in float64.

    Args:
        x: tokens after a pre-norm.
        block: name of the block.
        sub_block: the sub-block that the norm belongs to.
        bins: number of bins of the histogram.

    Raises:
        InputError: if there are fewer than two tokens, or all of them are the same.

    Example:
        >>> x = torch.randn(4, 100, 8, generator=torch.Generator().manual_seed(0))
        >>> found = token_distribution(x, "blocks.0", "attn")
        >>> abs(found.mean) < 0.1, abs(found.std - 1) < 0.1, found.isotropy > 0.9
        (True, True, True)
    """
    rows = x.flatten(0, 1).double()
    n, d = rows.shape
    entries = rows.flatten()
    std = entries.std(correction=0)
    if n < 2 or not std > 0:
        raise InputError(f"{n} tokens after the norm of {block}.{sub_block} have no spread: give other images, or more")
    centred = (rows - rows.mean(0)) / math.sqrt(n - 1)
    powers = torch.linalg.svdvals(centred).square()
    spread = powers.sum()
    edges = torch.linspace(-HISTOGRAM_EDGE, HISTOGRAM_EDGE, bins + 1, dtype=torch.double)
    inside = entries.cpu().clamp(-HISTOGRAM_EDGE, HISTOGRAM_EDGE)
    counts = torch.histogram(inside, edges).hist
    return TokenDistribution(
        block=block,
        sub_block=sub_block,
        tokens=n,
        dim=d,
        mean=entries.mean().item(),
        std=std.item(),
        excess_kurtosis=(((entries - entries.mean()) / std) ** 4).mean().item() - 3,
        isotropy=(spread**2 / (d * powers.square().sum())).item() if spread > 0 else 1 / d,
        gaussian_isotropy=1 / (1 + (d + 1) / (n - 1)),
        covariance=matrix_spectrum(centred.to(x.dtype)[None], name=f"centred tokens of {block}.{sub_block}")[0],
        edges=tuple(edges.tolist()),
        density=tuple((counts / (counts.sum() * edges.diff())).tolist()),
    )
