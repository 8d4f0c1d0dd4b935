"""Eqs. 10 and 13 in closed form for any number of heads: attention and its Jacobian as a few matrix products."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from skipless.conditioning.operators.autodiff import frozen_copy, linearize, math_attention
from skipless.models.blocks import BlockView

# A module that computes something other than Eq. 4 differs by far more, one that casts its softmax to float32 by less.
AGREEMENT_RTOL = 1e-6


@dataclass(frozen=True, eq=False)
class AttentionPrimal:
    """The intermediate values of an attention at given tokens, from which its Jacobian's products are computed.

    For tokens X with rows x_i and for each head (Eq. 4 with biases, a logit scale s, and LayerScale folded into W_O):

        Q = X W_Q + b_Q,  K = X W_K + b_K,  V = X W_V + b_V,  A = softmax(s Q K^T),  O = A V,  Y = sum_h O W_O

    and a change dX of the tokens gives (Eqs. 10 and 13)

        dY = sum_h [ A (dX W_V) W_O + (A * dM - diag(r) A) V W_O ],  dM = s (dX W_Q K^T + Q W_K^T dX^T),
        r = rowsum(A * dM)

    The first term is the dominant one of Proposition 2, the second is the perturbation. No d x d matrix is formed: W_V
    W_O of a head is applied as two factors of width d_h. Batch and heads share one axis, `g`.

    Attributes:
        batch: number of token sets; each has a Jacobian of its own.
        heads: number of query heads.
        key_heads: number of key and value heads; `q`, `k`, `v` and `o` are expanded to `heads`.
        a: attention matrices.
        q, k: queries and keys, each times the logit scale.
        v: values.
        o: `a @ v`.
        w_in: W_Q, W_K and W_V, concatenated.
        w_out: W_O, with its columns multiplied by LayerScale.
    """

    batch: int
    heads: int
    key_heads: int
    a: Float[Tensor, "g n n"]
    q: Float[Tensor, "g n c"]
    k: Float[Tensor, "g n c"]
    v: Float[Tensor, "g n c"]
    o: Float[Tensor, "g n c"]
    w_in: Float[Tensor, "d i"]
    w_out: Float[Tensor, "k d"]

    @classmethod
    @torch.no_grad()
    def at(cls, view: BlockView, x: Float[Tensor, "b n d"]) -> "AttentionPrimal":
        """The attention of a block at tokens `x`, in their dtype; weights are copied."""
        maps = (view.query, view.key, view.value)
        w_in = torch.cat([linear.w for linear in maps], dim=1).to(x)
        w_out = view.output.w.to(x) * view.attn_scale(torch.ones_like(view.output.w[0])).to(x)
        zero = x.new_zeros(1)
        q, k, v = (x @ linear.w.to(x) + (zero if linear.b is None else linear.b.to(x)) for linear in maps)
        q = _split_heads(q, view.heads)
        k, v = (_repeat_kv(_split_heads(part, view.key_heads), len(q)) for part in (k, v))
        a = (view.logit_scale * q @ k.mT).softmax(-1)
        # Denormal numbers would slow every product down, and are far below the rounding of a row that sums to 1.
        a[a < torch.finfo(a.dtype).tiny / torch.finfo(a.dtype).eps] = 0
        scaled_q, scaled_k = view.logit_scale * q, view.logit_scale * k
        return cls(len(x), view.heads, view.key_heads, a, scaled_q, scaled_k, v, a @ v, w_in, w_out)

    def jvp(
        self, dx: Float[Tensor, "b n d"], *, dominant: bool = True, perturbation: bool = True
    ) -> Float[Tensor, "b n d"]:
        """Jacobian-vector product K dx, or one of its two terms."""
        dq, dk, dv = self._split_qkv(dx @ self.w_in)
        if perturbation:
            weighted = torch.bmm(dq, self.k.mT).baddbmm_(self.q, dk.mT).mul_(self.a)
            do = torch.bmm(weighted, self.v).addcmul_(weighted.sum(-1, keepdim=True), self.o, value=-1)
            do = do.baddbmm_(self.a, dv) if dominant else do
        else:
            do = torch.bmm(self.a, dv)
        return _merge_heads(do, self.batch) @ self.w_out

    def vjp(
        self, u: Float[Tensor, "b n d"], *, dominant: bool = True, perturbation: bool = True
    ) -> Float[Tensor, "b n d"]:
        """Vector-Jacobian product K^T u, or one of its two terms."""
        g = _split_heads(u @ self.w_out.mT, self.heads)
        if perturbation:
            # rowsum(A * dA) = rowsum(G * O), since dA = G V^T and O = A V
            dm = torch.bmm(g, self.v.mT).sub_((g * self.o).sum(-1, keepdim=True)).mul_(self.a)
            dq, dk = torch.bmm(dm, self.k), torch.bmm(dm.mT, self.q)
        else:
            dq, dk = torch.zeros_like(g), torch.zeros_like(g)
        dv = torch.bmm(self.a.mT, g) if dominant else torch.zeros_like(g)
        return self._merge_qkv(dq, dk, dv) @ self.w_in.mT

    def dense(self, *, dominant: bool = True, perturbation: bool = True) -> Float[Tensor, "b nd nd"]:
        """K of every token set as a matrix, or one of its two terms.

        The d x d block that maps token j to token i is, with each head's W_O, W_V, W_Q and W_K,

            sum_h A_ij W_O^T [ W_V^T + s (v_j - o_i)^T (q_i W_K^T) ],
            and for i = j also  sum_h s W_O^T [ sum_l A_il (v_l - o_i)^T k_l ] W_Q^T

        So a block row is one matrix product with an inner dimension of 2 x heads. This is far less work than n d
        products with unit vectors.
        """
        n, d = self.a.shape[-1], self.w_in.shape[0]
        out = self.a.new_empty(self.batch, n, d, n, d)
        for index in range(self.batch):
            part = slice(index * self.heads, (index + 1) * self.heads)
            _fill_dense_(self, part, out[index], dominant, perturbation)
        return out.reshape(self.batch, n * d, n * d)

    def head_weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """W_Q, W_K and W_V of every query head, `(h, d, c)`."""
        return self._split_qkv(self.w_in[None])

    def _split_qkv(self, y: Float[Tensor, "b n i"]) -> tuple[Tensor, Tensor, Tensor]:
        width = self.key_heads * self.q.shape[-1]
        dq, dk, dv = y.split((y.shape[-1] - 2 * width, width, width), dim=-1)
        dq = _split_heads(dq, self.heads)
        dk, dv = (_repeat_kv(_split_heads(part, self.key_heads), len(dq)) for part in (dk, dv))
        return dq, dk, dv

    def _merge_qkv(self, dq: Tensor, dk: Tensor, dv: Tensor) -> Float[Tensor, "b n i"]:
        if self.key_heads != self.heads:
            dk, dv = (part.unflatten(0, (self.batch * self.key_heads, -1)).sum(1) for part in (dk, dv))
        return torch.cat([_merge_heads(part, self.batch) for part in (dq, dk, dv)], dim=-1)


def closed_form(view: BlockView, x: Float[Tensor, "b n d"]) -> AttentionPrimal | None:
    """The attention's closed form at `x`; None if its module computes something other than Eq. 4.

    Masks, rotary embeddings, gates, and norms of queries, keys or outputs are outside Eq. 4, and a view does not show
    all of them. So the closed form is compared with the module itself, by a product with a random vector in float64.
    """
    if not isinstance(view.query_norm, nn.Identity) or not isinstance(view.key_norm, nn.Identity):
        return None
    width = view.key_heads * view.head_dim
    if view.w_k.shape[1] != width or view.w_v.shape[1] != width or view.w_o.shape[0] != view.heads * view.head_dim:
        return None
    wide = x[:1].double()
    u = torch.randn(wide.shape, dtype=torch.double, generator=torch.Generator().manual_seed(0)).to(x.device)
    _, vjp = linearize(frozen_copy(view.bound_attn, view.attn_scale).double(), wide)
    expected = vjp(u)
    with math_attention(x.device), torch.no_grad():
        found = AttentionPrimal.at(view, wide).vjp(u)
        return AttentionPrimal.at(view, x) if (found - expected).norm() <= AGREEMENT_RTOL * expected.norm() else None


def _fill_dense_(primal: AttentionPrimal, part: slice, out: Tensor, dominant: bool, perturbation: bool) -> None:
    """Write K of one token set into `out`, (n, d, n, d)."""
    a, q, k, v, o = (tensor[part] for tensor in (primal.a, primal.q, primal.k, primal.v, primal.o))
    heads, n, _ = a.shape
    d = primal.w_in.shape[0]
    w_q, w_k, w_v = primal.head_weights()
    w_o = primal.w_out.unflatten(0, (heads, -1))
    right = a.new_zeros(d, 2 * heads, d)
    right[:, :heads] = (w_v @ w_o).permute(2, 0, 1) if dominant else 0
    left = a.new_zeros(d, n, 2 * heads)
    v_out, o_out, q_in = (v @ w_o).permute(2, 1, 0), (o @ w_o).permute(2, 1, 0), (q @ w_k.mT).transpose(0, 1)
    for i in range(n):
        row = a[:, i].mT
        left[..., :heads] = row
        if perturbation:
            left[..., heads:] = row * (v_out - o_out[:, i : i + 1])
            right[:, heads:] = q_in[i]
        torch.bmm(left, right, out=out[i])
        if perturbation:
            mean_k = a[:, i : i + 1] @ k
            covariance = (v * a[:, i, :, None]).mT @ k - o[:, i, :, None] * mean_k
            out[i, :, i] += (w_o.mT @ covariance @ w_q.mT).sum(0)


def _split_heads(y: Float[Tensor, "b n k"], heads: int) -> Float[Tensor, "g n c"]:
    return y.unflatten(-1, (heads, -1)).transpose(1, 2).flatten(0, 1)


def _merge_heads(y: Float[Tensor, "g n c"], batch: int) -> Float[Tensor, "b n k"]:
    return y.unflatten(0, (batch, -1)).transpose(1, 2).flatten(2)


def _repeat_kv(y: Float[Tensor, "p n c"], count: int) -> Float[Tensor, "g n c"]:
    """Repeat each key or value head for the query heads of its group (grouped-query attention)."""
    return y if len(y) == count else y.repeat_interleave(count // len(y), dim=0)
