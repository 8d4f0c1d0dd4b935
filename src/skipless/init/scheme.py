"""SkiplessInit: the paper's initialisation scheme as one frozen value (section 5)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from jaxtyping import Float

from skipless.choices import Factors, Gates, Grouped, LogitScale, MLPInit, Noise, Positions
from skipless.errors import InputError, did_you_mean
from skipless.frozen import added
from skipless.init.validate import check_choice, check_context_heads, check_diagonals, check_start, check_target

if TYPE_CHECKING:
    from torch import Generator, Tensor, device as Device
    from torch.nn import Module
else:  # torch is imported only when weights are drawn
    Device = Generator = Module = Tensor = Any

Activation = Callable[[Tensor], Tensor]
Factored = tuple[Float[Tensor, "i k"], Float[Tensor, "j l"]]  # a pair of factors: (w_q, w_k) or (w_v, w_o)

DIAGONALS = (0.95, 0.15)
"""Mean attention diagonals of the first and the last block. The first lets tokens through nearly as they are. The last
is low, because a class token hears of an image only by mixing (docs/depth.md has what else was tried)."""

COSINE = 0.5
"""Cosine that two orthogonal tokens have after the last of the MLPs whose linear share is solved from the depth."""


@dataclass(frozen=True)
class SkiplessInit:
    """How a skipless transformer is initialised: alpha, beta, c, and choices that the paper leaves open.

    Attributes:
        alpha: scale of the noise in W_Q W_K^T = alpha Z + beta I (Eq. 11).
        beta: scale of the identity there, which makes attention diagonally dominant.
        c: scale of W_V and of W_O; every singular value of their product is c^2 (section 5.1).
        factors: how alpha Z + beta I is split into heads, see `query_key`.
        noise: distribution of Z, `"normal"` (the paper) or `"uniform"` (the first author's public code).
        logit_scale: softmax(Q K^T) in the paper has no 1 / sqrt(d_h), but every library has one. `"kept"` leaves it, as
            the first author's code does. `"compensated"` multiplies W_Q by sqrt(d_h), so that the logits at
            initialisation are those of the formula.
        mlp: `"orthogonal"` is the paper's initialisation, and `"mirrored"` is ours, `mirrored_mlp`: a rotation and a
            share of the activation's even part. A gated MLP is then mirrored, too (`init/mirrored_gated.py`), or where
            it has biases, its gates start open (`init/gated.py`). `"kept"` leaves the library's own, for ablations.
        mlp_linearity: with `"mirrored"`, the share of the rotation, from 0 to 1. None has it solved from the depth, so
            that two orthogonal tokens would have a cosine of `COSINE` after the last MLP. A gated MLP without biases
            has no rotation, but an odd function of which up to 0.85 is linear; None takes 0.84.
        attention_diagonal: mean diagonal of each head's attention matrix in the first block, on normal tokens or on
            those of the images that `initialize_` is given. alpha Z + beta I is then scaled head by head; None leaves
            it.
        last_diagonal: the same in the last block, towards which those between fall (or rise) geometrically; None has
            one diagonal in all blocks.
        context_heads: share of the heads of every block that look around, in directions of their own, while the others
            keep the token (`init/context_heads.py`). All blocks are then alike: heads that keep the token have
            `attention_diagonal`, the others `last_diagonal`.
        positions: `"kept"` leaves the library's position embeddings and prefix tokens, as the paper does. Ours start
            them at the size of the patch embeddings: `"orthogonal"` (`orthogonal_positions`), or `"smooth"`
            (`smooth_positions`).
        position_scale: their size relative to that of the patch embeddings.
        gates: with an `"orthogonal"` gated MLP, whether the gate's map and the other input map are drawn apart, as the
            paper's reading has it, or start `"equal"`, W_up = W_gate. Apart, MLP(x) is bilinear in two independent
            images of a token: it doubles small differences in every block, and a language model of 12 blocks trains
            worse (LOG.md, 2026-11-29).
        grouped: in grouped-query attention r heads share values, and W_V W_O has the rank key heads x d_h at most.
            Where that is below d no scaled rotation fits. `"repeated"` then takes a rotation of as many directions and
            loses the others: W_O is the same for the r heads of a group, 1 / r of what it is with a value head each.

    The paper's scheme supposes isotropic tokens. `for_model` chooses what keeps tokens apart at any width and depth.

    The right values depend on the width. With (2, 0.6), the paper's values for ViT-Base, the attention's mean diagonal
    is 0.76 there, and 0.11 at d = 64 with 4 heads. `inspect_init` prints the mean diagonal of a model.

    Raises:
        InputError: for values that are not finite, c <= 0, or names that do not exist.

    Example:
        >>> SkiplessInit.preset("vit_base") == SkiplessInit(alpha=2.0, beta=0.6, c=3.0)
        True
    """

    alpha: float = 2.0
    beta: float = 0.6
    c: float = 3.0
    factors: Factors = "per_head"
    noise: Noise = "normal"
    logit_scale: LogitScale = "kept"
    mlp: MLPInit = "orthogonal"
    mlp_linearity: float | None = added(None)
    attention_diagonal: float | None = added(None)
    last_diagonal: float | None = added(None)
    positions: Positions = added("kept")
    position_scale: float = added(1.0)
    gates: Gates = added("independent")
    grouped: Grouped = added("refused")
    context_heads: float = added(0.0)

    def __post_init__(self) -> None:
        check_target(self.alpha, self.beta, self.factors, self.noise)
        check_choice("logit_scale", self.logit_scale, get_args(LogitScale))
        check_choice("mlp", self.mlp, get_args(MLPInit))
        check_choice("positions", self.positions, get_args(Positions))
        check_choice("gates", self.gates, get_args(Gates))
        check_choice("grouped", self.grouped, get_args(Grouped))
        if self.gates == "equal" and self.mlp != "orthogonal":
            raise InputError(f"gates='equal' is for mlp='orthogonal', not mlp={self.mlp!r}")
        check_start(self.mlp, self.mlp_linearity, self.positions, self.position_scale)
        check_diagonals(self.attention_diagonal, self.last_diagonal)
        check_context_heads(self.context_heads, self.mlp, self.attention_diagonal, self.last_diagonal)
        if not (math.isfinite(self.c) and self.c > 0):
            raise InputError(f"c={self.c} must be a positive number: W_V W_O has singular values c^2 (section 5.1)")

    @classmethod
    def preset(cls, name: str) -> "SkiplessInit":
        """The paper's own values: `"vit_base"`, `"dino_vit_small"` or `"language"`."""
        if name not in PRESETS:
            raise InputError(
                f"no preset {name!r}; {did_you_mean(name, PRESETS)}the paper's are {', '.join(map(repr, PRESETS))}"
            )
        return PRESETS[name]

    @classmethod
    def for_any(cls) -> "SkiplessInit":
        """The scheme beyond the paper; `initialize_` solves what depends on width, heads, tokens and depth.

        It is for a model that embeds positions and whose MLP can start near a rotation; `for_model` looks.

        Example:
            >>> SkiplessInit.for_any().positions
            'orthogonal'
        """
        return cls(
            alpha=0.0,
            beta=1.0,
            mlp="mirrored",
            attention_diagonal=DIAGONALS[0],
            last_diagonal=DIAGONALS[1],
            positions="orthogonal",
        )

    @classmethod
    def for_model(cls, model: Module) -> "SkiplessInit":
        """The scheme that suits a model's width, heads, number of tokens, depth and activation, beyond the paper.

        - `alpha = 0`: noise in W_Q W_K^T keeps the diagonal from its target once tokens have grown alike.
        - `attention_diagonal` and `last_diagonal`: 0.95 and 0.15, to which `beta` is scaled.
        - `mlp`: mirrored, with the linear share that `solve_linearity` gives for the depth. For a gated MLP without
          biases `mlp_linearity` stays None: its share cannot follow the depth, and need not, since all tokens share no
          part of its output.
        - `positions`: orthogonal, of the size of the patch embeddings, where the model embeds positions.

        Every value is a number that can be written down and changed with `dataclasses.replace`.

        Raises:
            InputError: if no adapter knows the model.

        Example:
            >>> from skipless.models import create_model
            >>> init = SkiplessInit.for_model(create_model("vit_small_patch16_224", depth=36))
            >>> init.mlp, round(init.mlp_linearity, 3), init.positions
            ('mirrored', 0.931, 'orthogonal')
        """
        from skipless.models.starting.suited import suited_init

        return suited_init(model)

    def query_key(
        self, dim: int, heads: int, head_dim: int, key_heads: int, generator: Generator | None = None
    ) -> Factored:
        """`(w_q, w_k)` of one block, in float64 (section 5.2)."""
        return self.draw_query_key(dim, heads, head_dim, key_heads, generator)()

    def draw_query_key(
        self,
        dim: int,
        heads: int,
        head_dim: int,
        key_heads: int,
        generator: Generator | None = None,
        device: Device | None = None,
    ) -> Callable[[], Factored]:
        """Draw the random matrices of `query_key` now, to be factorised later, on a device if one is given."""
        from skipless.init.mimetic import draw_query_key

        factorise = draw_query_key(
            dim,
            heads,
            self.alpha,
            self.beta,
            head_dim=head_dim,
            key_heads=key_heads,
            factors=self.factors,
            noise=self.noise,
            generator=generator,
            device=device,
        )
        if self.logit_scale == "kept":
            return factorise

        def compensated() -> Factored:
            w_q, w_k = factorise()
            return w_q * math.sqrt(head_dim), w_k

        return compensated

    def value_output(self, dim: int, inner: int, generator: Generator | None = None) -> Factored:
        """`(w_v, w_o)` of one block, in float64 (section 5.1)."""
        return self.draw_value_output(dim, inner, generator)()

    def draw_value_output(
        self, dim: int, inner: int, generator: Generator | None = None, device: Device | None = None
    ) -> Callable[[], Factored]:
        """Draw the random matrix of `value_output` now, to be factorised later, on a device if one is given."""
        from skipless.init.orthonormal import draw_value_output

        return draw_value_output(dim, self.c, inner=inner, generator=generator, device=device)

    def head_diagonals(self, depth: int, heads: int) -> tuple[float, ...] | tuple[tuple[float, ...], ...]:
        """The mean attention diagonal of every block, and of every head where there are two kinds.

        Example:
            >>> init = SkiplessInit(mlp="mirrored", attention_diagonal=0.9, last_diagonal=0.2, context_heads=0.5)
            >>> init.head_diagonals(2, 4)
            ((0.9, 0.9, 0.2, 0.2), (0.9, 0.9, 0.2, 0.2))
        """
        from skipless.init.context_heads import context_count

        if not self.context_heads:
            return self.diagonals(depth)
        assert self.attention_diagonal is not None
        assert self.last_diagonal is not None
        around = context_count(heads, self.context_heads)
        return ((self.attention_diagonal,) * (heads - around) + (self.last_diagonal,) * around,) * depth

    def diagonals(self, depth: int) -> tuple[float, ...]:
        """The mean attention diagonal of every block, from the first to the last; nothing if none is asked for.

        Example:
            >>> [round(value, 2) for value in SkiplessInit(attention_diagonal=0.8, last_diagonal=0.2).diagonals(3)]
            [0.8, 0.4, 0.2]
        """
        first = self.attention_diagonal
        if first is None:
            return ()
        ratio = 1.0 if self.last_diagonal is None else self.last_diagonal / first
        return tuple(first * ratio ** (block / max(depth - 1, 1)) for block in range(depth))

    def linearity(self, activation: Activation, depth: int) -> float:
        """The linear share of a mirrored MLP in a model of so many blocks: `mlp_linearity`, or what suits the depth."""
        from skipless.init.correlation_map import solve_linearity

        return solve_linearity(activation, depth, COSINE) if self.mlp_linearity is None else self.mlp_linearity

    def mlp_map(self, fan_in: int, fan_out: int, generator: Generator | None = None) -> Float[Tensor, "i o"]:
        """One linear map of the MLP, in float64 (section 6.1)."""
        return self.draw_mlp_map(fan_in, fan_out, generator)()

    def draw_mlp_map(
        self, fan_in: int, fan_out: int, generator: Generator | None = None, device: Device | None = None
    ) -> Callable[[], Float[Tensor, "i o"]]:
        """Draw the random matrix of `mlp_map` now, to be orthonormalised later, on a device if one is given."""
        from skipless.init.mlp import draw_scaled_uniform_orthogonal

        return draw_scaled_uniform_orthogonal(fan_in, fan_out, generator=generator, device=device)


PRESETS: dict[str, SkiplessInit] = {
    "vit_base": SkiplessInit(alpha=2.0, beta=0.6, c=3.0),  # section 6.1
    "dino_vit_small": SkiplessInit(alpha=1.8, beta=1.0, c=3.0),  # section 6.2
    "language": SkiplessInit(alpha=0.0, beta=0.5),  # section A.8, which does not state c
}
"""The paper's own values by name, for ViT-Base (section 6.1), DINO's ViT-Small (6.2), and its language model (A.8)."""
