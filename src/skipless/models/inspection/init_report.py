"""inspect_init: measures the initialisation of a model's weights, and flags what departs from the scheme.

A wrong initialisation raises no error; the model just trains worse. These numbers reveal it. A transposed MLP matrix
has gains of 0.25 and 4. A Z that all heads share gives heads with the same W_Q W_K^T. A `c` on one side only gives a
wrong scale of W_V W_O. A block that was missed shows all of these.
"""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from skipless.display import Record, Table
from skipless.display.axes import legend, level, lines_by_name
from skipless.display.values import counted
from skipless.errors import InputError
from skipless.init import SkiplessInit
from skipless.models.blocks import BlockView, LinearMap
from skipless.models.inspection.token_report import TokenReport, inspect_tokens
from skipless.models.starting.attention_diagonal import mean_diagonals
from skipless.models.starting.first_tokens import TOKENS, in_own_context, one_of, text_length
from skipless.models.surgery import block_views

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The paper's settings for images give mean diagonals of 0.76 (ViT-Base) and 0.98 (ViT-Small). ViT-Base's (2, 0.6) in a
# model of width 64 gives 0.11; one half separates the two cases. The paper's setting for language, 0.21, is flagged.
DIAGONAL_FLOOR = 0.5
# The products of two independent heads have a cosine of about d_h / d, at most 0.5; heads that share one Z, of 1.
HEAD_OVERLAP_CEILING = 0.9
# Allows for rounding in bf16 weights; the mistakes above are off by a factor of 2 and more.
TOLERANCE = 0.05
# Norm and trace of one head's W_Q W_K^T vary with the draw of Z: by a tenth at d = 32, less at every larger width.
DRAW_TOLERANCE = 0.2


@dataclass(frozen=True, repr=False)
class BlockInit(Record):
    """Measurements of one block's weights.

    Attributes:
        name: the block's path in the model.
        skips: the skip connections it has.
        kappa_vo: kappa(W_V W_O) over the first min(d, key heads x d_h) singular values; 1 in the scheme.
        scale_vo: geometric mean of those singular values; c^2 in the scheme.
        trace: for each head, tr(W_Q W_K^T) / d: the part of beta that truncation to d_h directions keeps.
        diagonal: for each head, the mean of the attention matrix's diagonal for layer-normed Gaussian tokens.
        norm: for each head, the Frobenius norm of W_Q W_K^T.
        head_overlap: the largest cosine between two heads' W_Q W_K^T; 0 with one head.
        mlp_gain: for each linear map of the MLP, input maps first, the mean-square gain of `x @ W` over x; 1 for SUO.
        mlp_kappa: for each of them, kappa(W); 1 for SUO.
        flags: departures from the scheme, in words.
    """

    name: str
    skips: tuple[str, ...]
    kappa_vo: float
    scale_vo: float
    trace: tuple[float, ...]
    diagonal: tuple[float, ...]
    norm: tuple[float, ...]
    head_overlap: float
    mlp_gain: tuple[float, ...]
    mlp_kappa: tuple[float, ...]
    flags: tuple[str, ...]

    def _summary(self) -> str:
        skips = "+".join(self.skips) or "no"
        found = f"! {'; '.join(self.flags)}" if self.flags else "nothing departs from the scheme"
        return f"{self.name}, {skips} skips, kappa(W_V W_O) {_format(self.kappa_vo)}, {found}"

    def tables(self) -> tuple[Table, ...]:
        """A table of the block's numbers, and one of its heads'."""
        maps = [f"MLP map {i}" for i in range(len(self.mlp_gain))]
        rows = [("W_V W_O", _format(self.scale_vo), _format(self.kappa_vo))]
        rows += zip(maps, map(_format, self.mlp_gain), map(_format, self.mlp_kappa), strict=True)
        values = zip(self.trace, self.diagonal, self.norm, strict=True)
        heads = [(str(head), *map(_format, of_head)) for head, of_head in enumerate(values)]
        overlap = f"{self.name}; largest cosine between two heads {_format(self.head_overlap)}"
        return (
            Table(("product", "scale or gain", "kappa"), rows, self.name, [f"! {flag}" for flag in self.flags]),
            Table(("head", "tr/d", "diagonal", "norm"), heads, overlap),
        )

    def _draw(self, axes: "Axes") -> None:
        lines_by_name(axes, [str(head) for head in range(len(self.diagonal))], {"": self.diagonal}, "mean A_ii", "head")
        level(axes, DIAGONAL_FLOOR, "diffuse below")
        axes.set_ylim(0, 1.02)


@dataclass(frozen=True, repr=False)
class InitReport(Record):
    """One `BlockInit` for each block; as text, a table with a line for each block, and all flags below it.

    What every block departs in stands there once.
    """

    blocks: tuple[BlockInit, ...]
    tokens: int
    seed: int
    on_images: TokenReport | None = None
    seen: str = ""

    @property
    def token_cosine(self) -> tuple[float, ...]:
        """After each block, the mean cosine between two tokens of an image; nothing without images."""
        return () if self.on_images is None else tuple(block.cosine for block in self.on_images.blocks)

    @property
    def attention_diagonal(self) -> tuple[float, ...]:
        """For each block, the mean A_ii on images; without images, on normal tokens."""
        if self.on_images is not None:
            return tuple(block.diagonal for block in self.on_images.blocks)
        return tuple(sum(block.diagonal) / len(block.diagonal) for block in self.blocks)

    @property
    def flags(self) -> tuple[str, ...]:
        """All departures from the scheme, each with its block's name."""
        return tuple(f"{block.name}: {flag}" for block in self.blocks for flag in block.flags)

    def _summary(self) -> str:
        skips = " or ".join(dict.fromkeys("+".join(block.skips) or "no" for block in self.blocks))
        found = counted(len(self.flags), "departure") if self.flags else "nothing departs from the scheme"
        return f"{counted(len(self.blocks), 'block')}, {skips} skips, {found}; {self.tokens} tokens, seed {self.seed}"

    def tables(self) -> tuple[Table, ...]:
        """A table of weights, with a row for each block; with images, a second one of what becomes of their tokens."""
        verdict = [f"! {flag}" for flag in self._summed_up()] or ["nothing departs from the scheme"]
        seen = f", with {self.seen}" if self.seen else ""
        about = f"diagonals: {self.tokens} layer-normed Gaussian tokens, seed {self.seed}{seen}"
        weights = Table(_HEAD, [_row(block) for block in self.blocks], about, verdict)
        return (weights,) if self.on_images is None else (weights, *self.on_images.tables())

    def _summed_up(self) -> list[str]:
        """The flags, those that all of several blocks have first, and once."""
        shared = [flag for flag in self.blocks[0].flags if all(flag in block.flags for block in self.blocks)]
        shared = shared if len(self.blocks) > 1 else []
        own = [f"{block.name}: {flag}" for block in self.blocks for flag in block.flags if flag not in shared]
        return [*(f"every block: {flag}" for flag in shared), *own]

    def _draw(self, axes: "Axes") -> None:
        names = [block.name for block in self.blocks]
        heads = [sum(block.diagonal) / len(block.diagonal) for block in self.blocks]
        gains = [max(block.mlp_gain, key=lambda gain: abs(math.log(gain or 1e-9))) for block in self.blocks]
        kappas = [block.kappa_vo for block in self.blocks]
        series = {"kappa(W_V W_O)": kappas, "MLP gain, the worst map": gains, "attention diagonal, mean": heads}
        axes.set_yscale("log")
        lines_by_name(axes, names, series, "1 in the scheme (diagonal: near 1)")
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, 0.1), max(high, 10.0))  # a logarithmic axis within one decade has no round numbers
        level(axes, 1.0, "scheme")
        legend(axes)


_HEAD = ("block", "skips", "k(WvWo)", "scale", "tr/d by head", "diagonal by head", "MLP gain")


def _row(block: BlockInit) -> tuple[str, ...]:
    """A block's row of the table."""
    return (
        block.name,
        "+".join(block.skips) or "none",
        _format(block.kappa_vo),
        _format(block.scale_vo),
        " ".join(map(_format, block.trace)),
        " ".join(map(_format, block.diagonal)),
        " ".join(map(_format, block.mlp_gain)),
    )


@torch.no_grad()
def inspect_init(
    model: nn.Module,
    init: SkiplessInit | None = None,
    *,
    images: Float[Tensor, "b c h w"] | None = None,
    inputs: Int[Tensor, "b n"] | None = None,
    tokens: int | None = None,
    seed: int = 0,
) -> InitReport:
    """Measure every block's initialisation, and flag what departs from the scheme (section 5).

    It is meant for a model before training, and without its skips: the scheme stands in for them, so a skip that is
    kept is a departure. The MLP's is none where the scheme leaves the MLP as it is, `mlp="kept"`. The attention
    diagonal is that of `tokens` layer-normed N(0, I) tokens (section A.4.1), with the model's biases, qk-norm and
    1 / sqrt(d_h).

    Args:
        model: a model with blocks that an adapter knows.
        init: the scheme that the model should follow. Without it, nothing is flagged that depends on alpha, beta or c.
        images: normalised images. With them the report also has what becomes of their tokens from block to block: the
            theory supposes isotropic ones, and in a real forward pass tokens grow alike (`TokenReport`).
        inputs: the same for a language model: token ids.
        tokens: n, the number of tokens of the attention matrix; 197 by default, or a language model's longest input, up
            to 1,024. Rotary positions and causal masks are the model's own. A vision transformer with rotary positions
            has as many tokens as it makes of its own image, whatever is asked for.
        seed: seed of the tokens.

    Raises:
        InputError: if no adapter knows the model, or a weight is not finite or on the meta device.

    Example:
        >>> from skipless.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", init=SkiplessInit(1.8, 1.0, 3.0), depth=1, seed=0)
        >>> inspect_init(model, SkiplessInit(1.8, 1.0, 3.0)).flags
        ()
        >>> inspect_init(model, SkiplessInit(1.8, 1.0, c=1.0)).flags
        ('blocks.0: singular values of W_V W_O are 9, not c^2 = 1',)
    """
    if isinstance(init, Tensor):
        raise InputError("inspect_init takes images by name: inspect_init(model, images=batch)")
    views = block_views(model)
    for view in views:
        for name, parameter in view.block.named_parameters():
            if parameter.is_meta or not parameter.isfinite().all():
                what = "on the meta device: materialise the model first" if parameter.is_meta else "not finite"
                raise InputError(f"{view.name}.{name} is {what}; there is nothing to inspect")
    wanted = (text_length(model) or TOKENS) if tokens is None else tokens
    views, tokens = in_own_context(model, views, wanted)
    blocks = tuple(_measure(view, init, tokens, seed) for view in views)
    if len({block.skips for block in blocks}) > 1:
        most = max((block.skips for block in blocks), key=[block.skips for block in blocks].count)
        blocks = tuple(
            block
            if block.skips == most
            else replace(block, flags=(*block.flags, "its skips are not the other blocks'"))
            for block in blocks
        )
    given = one_of(images, inputs)
    on_given = None if given is None else inspect_tokens(model, given)
    return InitReport(blocks, tokens, seed, on_given, views[0].context.in_words)


def _measure(view: BlockView, init: SkiplessInit | None, tokens: int, seed: int) -> BlockInit:
    rank = min(view.dim, view.key_heads * view.head_dim)
    s = torch.linalg.svdvals(_value_output(view))[:rank]
    products = _head_products(view)
    maps = [linear.w.double() for linear in (*view.mlp_in, view.mlp_out)]
    spectra = [torch.linalg.svdvals(w) for w in maps]
    measured = BlockInit(
        name=view.name,
        skips=view.skips,
        kappa_vo=(s[0] / s[-1]).item(),
        scale_vo=s.log().mean().exp().item(),
        trace=tuple((products.diagonal(dim1=1, dim2=2).sum(1) / view.dim).tolist()),
        diagonal=tuple(_diagonals(view, tokens, seed).tolist()),
        norm=tuple(products.flatten(1).norm(dim=1).tolist()),
        head_overlap=_overlap(products),
        # E|x W|^2 = |W|_F^2 for white x. Per output unit, and divided by the mean square of an input unit, which is 1.
        mlp_gain=tuple((w.square().sum() / w.shape[1]).item() for w in maps),
        mlp_kappa=tuple((s[0] / s[-1]).item() for s in spectra),
        flags=(),
    )
    return replace(measured, flags=tuple(_flags(measured, view, init)))


def _value_output(view: BlockView) -> Float[Tensor, "d d"]:
    """W_V W_O of all heads, with the values that each head sees."""
    values = view.w_v.double().unflatten(1, (view.key_heads, view.head_dim))
    return values.repeat_interleave(view.heads // view.key_heads, dim=1).flatten(1) @ view.w_o.double()


def _head_products(view: BlockView) -> Float[Tensor, "h d d"]:
    """W_Q W_K^T of every head."""
    w_q = view.w_q.double().unflatten(1, (view.heads, view.head_dim)).transpose(0, 1)
    w_k = view.w_k.double().unflatten(1, (view.key_heads, view.head_dim)).transpose(0, 1)
    return w_q @ w_k.repeat_interleave(view.heads // view.key_heads, dim=0).mT


def _diagonals(view: BlockView, tokens: int, seed: int) -> Float[Tensor, " h"]:
    """Mean A_ii of every head, for layer-normed Gaussian tokens."""
    x = torch.randn(tokens, view.dim, generator=torch.Generator().manual_seed(seed))
    return mean_diagonals(view, layer_norm(x, (view.dim,)).to(view.w_q)[None])


def _overlap(products: Float[Tensor, "h d d"]) -> float:
    """The largest cosine between two heads' products."""
    flat = nn.functional.normalize(products.flatten(1), dim=1)
    return (flat @ flat.mT).fill_diagonal_(0).max().item()


def _flags(block: BlockInit, view: BlockView, init: SkiplessInit | None) -> list[str]:
    """Departures of a block from the scheme, worst first."""
    flags = _skip_flags(block, init)
    if not block.kappa_vo <= 1 + TOLERANCE:  # written so that NaN is flagged: all singular values may be 0
        flags.append(f"kappa(W_V W_O) is {_format(block.kappa_vo)}, not 1: not a scaled rotation")
    elif init is not None and not _is_close(block.scale_vo, init.c**2, TOLERANCE):
        flags.append(f"singular values of W_V W_O are {_format(block.scale_vo)}, not c^2 = {_format(init.c**2)}")
    rank = view.key_heads * view.head_dim
    if view.key_heads != view.heads and rank < view.dim:
        flags.append(f"W_V W_O has rank {rank}, not d = {view.dim}: heads share values, and other directions are lost")
    if init is not None and init.factors != "sliced" and init.attention_diagonal is None:
        flags += _query_key_flags(block, view, init)
    scaled = init is not None and init.attention_diagonal is not None  # as diffuse as the scheme wants it, elsewhere
    diffuse = [head for head, value in enumerate(block.diagonal) if value < DIAGONAL_FLOOR]
    if diffuse and not scaled:
        drawn = block.kappa_vo <= 1 + TOLERANCE  # by the scheme, as far as W_V W_O tells
        suit = f"alpha and beta do not suit d = {view.dim}, d_h = {view.head_dim}"
        flags.append(
            f"attention of {len(diffuse)} of {view.heads} heads starts diffuse (mean diagonal "
            f"{_format(min(block.diagonal))}): {suit if drawn else 'the scheme is not drawn, call initialize_'}"
        )
    if view.head_dim < view.dim and block.head_overlap > HEAD_OVERLAP_CEILING:
        flags.append(f"two heads have the same W_Q W_K^T (cosine {_format(block.head_overlap)}): Z is shared")
    flags += _mlp_flags(block, view, init)
    own = () if init is None else _biased_maps(view, init)
    biases = [linear.b for linear in view.maps if linear not in own]
    if any(bias is not None and bias.any() for bias in biases):
        flags.append("a bias is not 0")
    if not isinstance(view.query_norm, nn.Identity):
        flags.append("qk-norm rescales queries and keys: alpha and beta act through their ratio alone")
    for norm in view.norms:
        weight, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
        size = weight[0] if scaled and norm is view.query_norm and weight is not None else 1.0  # by `calibrate_`
        if (weight is not None and not weight.eq(size).all()) or (bias is not None and bias.any()):
            flags.append(f"a {type(norm).__name__} is not the identity")
    flags += [f"{name} is not 0" for name in view.position_biases if view.block.get_parameter(name).any()]
    flags += [f"{name} is LayerScale" for name in view.layer_scales]
    return flags


def _mlp_flags(block: BlockInit, view: BlockView, init: SkiplessInit | None) -> list[str]:
    """Departures of the MLP's maps."""
    flags = []
    if init is None or init.mlp == "orthogonal":
        for place, gain, kappa in zip(_mlp_map_names(view), block.mlp_gain, block.mlp_kappa, strict=True):
            if not (_is_close(gain, 1, TOLERANCE) and _is_close(kappa, 1, TOLERANCE)):
                flags.append(f"MLP {place} map has gain {_format(gain)} and kappa {_format(kappa)}, not 1 and 1")
    if init is not None and init.mlp == "mirrored":
        flags += _mirrored_flags(view)
    return flags


def _skip_flags(block: BlockInit, init: SkiplessInit | None) -> list[str]:
    """Skips that the scheme stands in for, and that are there all the same."""
    kept = [name for name in block.skips if name == "attn" or init is None or init.mlp == "orthogonal"]
    return [f"its skip{'s are' if len(kept) > 1 else ' is'} there ({' and '.join(kept)})"] if kept else []


def _mirrored_flags(view: BlockView) -> list[str]:
    """Hidden units that are not in pairs of opposite sign."""
    if view.gate is not None and view.mlp_in[view.gate].bias is not None:
        return []  # its gates start open
    w = view.mlp_in[0 if view.gate is None else 1 - view.gate].w
    pairs, odd = divmod(w.shape[1], 2)
    parted = not (w[:, :pairs] + w[:, pairs : 2 * pairs]).norm() <= TOLERANCE * w.norm()
    if parted or (odd and view.gate is None):
        return ["its MLP is not mirrored: W_1 is not [A, -A]"]
    if view.gate is None:
        return []
    gate = view.mlp_in[view.gate].w
    alike = nn.functional.cosine_similarity(gate.double().flatten(), w.double().flatten(), dim=0)
    return [] if alike >= 1 - TOLERANCE else ["its gates' map is no multiple of the other input map"]


def _biased_maps(view: BlockView, init: SkiplessInit) -> tuple[LinearMap, ...]:
    """Maps whose biases the scheme sets: of open gates, and of queries that are measured from a mean token."""
    gates = (view.mlp_in[view.gate],) if init.mlp == "mirrored" and view.gate is not None else ()
    return gates if init.attention_diagonal is None else (*gates, view.query)


def _query_key_flags(block: BlockInit, view: BlockView, init: SkiplessInit) -> list[str]:
    """Compare norm and trace of every head's product with those of one fresh draw, on which they barely depend."""
    generator = torch.Generator().manual_seed(0)
    w_q, w_k = init.query_key(view.dim, view.heads // view.key_heads, view.head_dim, 1, generator)
    product = w_q[:, : view.head_dim] @ w_k.mT
    norm, trace = product.norm().item(), product.trace().item() / view.dim
    off = [head for head, value in enumerate(block.norm) if not _is_close(value, norm, DRAW_TOLERANCE)]
    flags = []
    if off:
        flags.append(
            f"|W_Q W_K^T| is {_format(block.norm[off[0]])} in {len(off)} of {view.heads} heads, not {_format(norm)}: "
            f"not alpha = {init.alpha:g}, beta = {init.beta:g}"
        )
    if not abs(sum(block.trace) / view.heads - trace) <= DRAW_TOLERANCE * (norm / view.dim**0.5):
        flags.append(
            f"tr(W_Q W_K^T) / d is {_format(sum(block.trace) / view.heads)}, not {_format(trace)}: not alpha = "
            f"{init.alpha:g}, beta = {init.beta:g}"
        )
    return flags


def _is_close(value: float, expected: float, tolerance: float) -> bool:
    """Whether a value is within a relative tolerance of what is expected; NaN is not."""
    return abs(value / expected - 1) <= tolerance


def _mlp_map_names(view: BlockView) -> tuple[str, ...]:
    inputs = ("input",) if len(view.mlp_in) == 1 else ("first input", "second input")
    return (*inputs, "output")


def _format(value: float) -> str:
    return f"{value:.3g}"
