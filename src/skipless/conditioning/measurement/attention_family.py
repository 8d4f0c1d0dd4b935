"""Attention of several kinds at initialisation: kappa of A and of the attention's Jacobian, and a bound, measured."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from skipless.conditioning.operators.autodiff import math_attention
from skipless.display import Record, Table
from skipless.errors import InputError
from skipless.models import block_views, replace_attention_
from skipless.models.blocks import BlockView
from skipless.models.starting.attention_diagonal import attention
from skipless.nn import AttentionCore, PolynomialAttention


@dataclass(frozen=True, repr=False)
class CoreConditioning(Record):
    """One kind of attention in one block.

    Attributes:
        name: what it was called.
        n: number of tokens.
        kappa_attention: median over heads and token sets of kappa(A); infinite where A lacks full rank.
        rank: median numerical rank of A.
        kappa_jacobian: kappa of K, the attention's Jacobian by its input tokens, of the first token set; it is formed.
        diagonal: mean A_ii.
    """

    name: str
    n: int
    kappa_attention: float
    rank: int
    kappa_jacobian: float
    diagonal: float

    def _summary(self) -> str:
        return f"{self.name}: kappa(A) {self.kappa_attention:.3g}, kappa(K) {self.kappa_jacobian:.3g}, {self.n} tokens"


@dataclass(frozen=True, repr=False)
class AttentionFamily(Record):
    """Kinds of attention beside each other, in one block of one model.

    Attributes:
        cores: each kind, the model's own softmax first.
    """

    cores: tuple[CoreConditioning, ...]

    def _summary(self) -> str:
        return f"{len(self.cores)} kinds of attention at {self.cores[0].n} tokens"

    def tables(self) -> tuple[Table, ...]:
        """A row for each kind."""
        rows = [
            (one.name, f"{one.diagonal:.3g}", f"{one.kappa_attention:.3g}", f"{one.rank}", f"{one.kappa_jacobian:.3g}")
            for one in self.cores
        ]
        head = ("attention", "mean A_ii", "kappa(A)", "rank of A", "kappa(K)")
        return (Table(head, rows, f"{self.cores[0].n} tokens", align="lrrrr"),)


@torch.no_grad()
def compare_attention(
    model: nn.Module,
    cores: Mapping[str, AttentionCore],
    x: Float[Tensor, "b n d"],
    *,
    block: int = 0,
) -> AttentionFamily:
    """Measure kinds of attention with the weights that a model has, at tokens that enter its attention.

    The model is copied and stays as it is. A core with `scale="solved"` is solved on these tokens.

    Args:
        model: has blocks that an adapter knows, and softmax attention.
        cores: each kind, by a name of yours.
        x: tokens behind the norm before the attention; kappa(K) is of the first set.
        block: which block's attention.

    Raises:
        InputError: if a core cannot stand in the model, or tokens are none of it.

    Example:
        >>> from skipless.models import create_model
        >>> from skipless.nn import OrthogonalAttention
        >>> model = create_model("vit_tiny_patch16_224", depth=1, embed_dim=24, num_heads=2, seed=0)
        >>> x = torch.randn(1, 9, 24, generator=torch.Generator().manual_seed(0))
        >>> found = compare_attention(model, {"orthogonal": OrthogonalAttention()}, x)
        >>> [one.name for one in found.cores], round(found.cores[1].kappa_attention, 3)
        (['softmax', 'orthogonal'], 1.0)
    """
    if x.dim() != 3 or x.shape[-1] != block_views(model)[block].dim:
        raise InputError(f"x is {tuple(x.shape)}: give tokens (b, n, d) with d = {block_views(model)[block].dim}")
    found = [_measure("softmax", block_views(copy.deepcopy(model).double())[block], x.double())]
    for name, core in cores.items():
        changed = replace_attention_(copy.deepcopy(model), core).double()
        view = block_views(changed)[block]
        _solve_(view, x.double())
        found.append(_measure(name, view, x.double()))
    return AttentionFamily(tuple(found))


def _solve_(view: BlockView, x: Tensor) -> None:
    if isinstance(view.core, PolynomialAttention) and view.core.scale == "solved":
        view.core.solving = True
        view.attend(x)
        view.core.solving = False


def _measure(name: str, view: BlockView, x: Tensor) -> CoreConditioning:
    a = attention(view, x)
    s = torch.linalg.svdvals(a)
    ranks = (s > s[..., :1] * s.shape[-1] * torch.finfo(s.dtype).eps).sum(-1)
    kappa = torch.where(ranks == s.shape[-1], s[..., 0] / s[..., -1], torch.inf)
    jacobian = torch.linalg.svdvals(_jacobian(view, x[0]))
    full = jacobian[-1] > jacobian[0] * len(jacobian) * torch.finfo(jacobian.dtype).eps
    return CoreConditioning(
        name=name,
        n=x.shape[1],
        kappa_attention=kappa.median().item(),
        rank=int(ranks.median().item()),
        kappa_jacobian=(jacobian[0] / jacobian[-1]).item() if full else float("inf"),
        diagonal=a.diagonal(dim1=-2, dim2=-1).mean().item(),
    )


def _jacobian(view: BlockView, x: Float[Tensor, "n d"]) -> Float[Tensor, "nd nd"]:
    """K as a matrix: the derivative of the attention's output by its tokens."""
    with math_attention(x.device), torch.enable_grad():
        found = torch.func.jacrev(lambda tokens: view.attend(tokens[None])[0])(x)
    return found.reshape(x.numel(), x.numel()).detach()


@dataclass(frozen=True, repr=False)
class ParameterBound(Record):
    """Both sides of the bound that spectral conditioning and conditioned initialisation start from, for one head.

    kappa(J) <= kappa(X)^3 kappa(Lambda) kappa(W_V) (kappa(W_Q) + kappa(W_K)) + kappa(X) kappa(A), with J the derivative
    of the head's output by W_Q, W_K, W_V, and Lambda the softmax's derivative. Lambda 1 = 0, so that its kappa is
    infinite and the bound says nothing; here it is read on the complement of 1, where it is finite.

    Attributes:
        head: which head.
        measured: kappa(J), on the singular values that are above rounding.
        bound: the right side.
        x, softmax_derivative, attention, w_q, w_k, w_v: its condition numbers. That of the softmax's derivative, and
            with it the bound, is infinite where a row of the softmax is saturated to rounding.
    """

    head: int
    measured: float
    bound: float
    x: float
    softmax_derivative: float
    attention: float
    w_q: float
    w_k: float
    w_v: float

    def _summary(self) -> str:
        return f"head {self.head}: kappa(J) {self.measured:.3g}, bound {self.bound:.3g}"


@torch.no_grad()
def parameter_bound(view: BlockView, x: Float[Tensor, "n d"], head: int = 0) -> ParameterBound:
    """Measure both sides of the bound on kappa of a head's derivative by W_Q, W_K, W_V, in float64.

    The derivative is formed as a matrix, n d_h x 3 d d_h: this is for small sizes. Biases are left out.

    Args:
        view: of a block with softmax attention, without rotary positions.
        x: tokens behind the norm.
        head: which head.

    Raises:
        InputError: if the block has another core or grouped heads, or there is no such head.

    Example:
        >>> from skipless.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=1, embed_dim=12, num_heads=2, seed=0)
        >>> x = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
        >>> found = parameter_bound(block_views(model)[0], x)
        >>> found.measured <= found.bound
        True
    """
    if view.core is not None or view.heads != view.key_heads or not 0 <= head < view.heads:
        raise InputError(f"{view.name}: the bound is of softmax attention with a key head for each head; head={head}")
    columns = slice(head * view.head_dim, (head + 1) * view.head_dim)
    wide = x.double()
    weights = tuple(w.double()[:, columns] for w in (view.w_q, view.w_k, view.w_v))

    def output(w_q: Tensor, w_k: Tensor, w_v: Tensor) -> Tensor:
        return (view.logit_scale * (wide @ w_q) @ (wide @ w_k).mT).softmax(-1) @ (wide @ w_v)

    with torch.enable_grad():
        parts = torch.func.jacrev(output, argnums=(0, 1, 2))(*weights)
    jacobian = torch.cat([part.flatten(2).flatten(0, 1) for part in parts], 1)
    a = (view.logit_scale * (wide @ weights[0]) @ (wide @ weights[1]).mT).softmax(-1)
    slopes = torch.linalg.eigvalsh(torch.diag_embed(a) - a[:, :, None] * a[:, None])[:, 1:]  # the first is that of 1
    of = {"x": _kappa(wide), "attention": _kappa(a), "softmax_derivative": _ratio(slopes)}
    w_q, w_k, w_v = (_kappa(w) for w in weights)
    bound = of["x"] ** 3 * of["softmax_derivative"] * w_v * (w_q + w_k) + of["x"] * of["attention"]
    return ParameterBound(head=head, measured=_kappa(jacobian), bound=bound, w_q=w_q, w_k=w_k, w_v=w_v, **of)


def _ratio(slopes: Tensor) -> float:
    """Largest over smallest; infinite where a row of the softmax is saturated, and the smallest is rounding."""
    saturated = slopes.min() <= slopes.max() * slopes.shape[-1] * torch.finfo(slopes.dtype).eps
    return float("inf") if saturated else (slopes.max() / slopes.min()).item()


def _kappa(m: Tensor) -> float:
    s = torch.linalg.svdvals(m)
    s = s[s > s[0] * max(m.shape) * torch.finfo(s.dtype).eps]
    return (s[0] / s[-1]).item()
