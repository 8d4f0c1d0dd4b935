"""BlockView: one description of every library's transformer block, in the paper's orientation.

An adapter (`skipless.models.adapters`) answers three questions about a block. Where are W_Q, W_K, W_V and W_O, and how
many heads share them? Where are the linear maps of its MLP? What is its forward with chosen skips left out? All other
code is written once, against this view. No other module transposes weights.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from skipless.display import Record, Table
from skipless.errors import InputError
from skipless.models.calls import PLAIN, BlockContext, Bound, first_tensor
from skipless.nn import AttentionCore

SubBlock = Literal["attn", "mlp"]


@dataclass(frozen=True, eq=False, repr=False)
class LinearMap(Record):
    """One linear map of a block, read and written as `x @ w`, whatever weight a library keeps it in.

    Attributes:
        weight: the parameter that holds the map, (out, in) as `nn.Linear` stores it, or (in, out) if `transposed`.
        bias: the bias parameter, if there is one.
        rows: the outputs of `weight` and `bias` that are this map's; several maps may be fused (qkv, packed gates).
        transposed: whether the weight is (in, out), as GPT-2's `Conv1D` stores it.
        bias_rows: the outputs of `bias`, where they are not `rows`: it may be this map's alone, beside a fused weight.
    """

    weight: Tensor
    bias: Tensor | None
    rows: slice
    transposed: bool = False
    bias_rows: slice | None = None

    def _summary(self) -> str:
        rows, columns = self.w.shape
        bias = "no bias" if self.bias is None else "a bias"
        what, of = ("columns", self.weight.shape[1]) if self.transposed else ("rows", len(self.weight))
        return f"{rows} x {columns}, {bias}, {what} {self.rows.start} to {self.rows.stop} of a weight of {of}"

    @classmethod
    def parts(cls, linear: nn.Linear, count: int = 1) -> tuple["LinearMap", ...]:
        """The `count` maps of equal size that one `nn.Linear` fuses, top to bottom."""
        size = linear.out_features // count
        return tuple(cls(linear.weight, linear.bias, slice(i * size, (i + 1) * size)) for i in range(count))

    @property
    def stored(self) -> Tensor:
        """This map's part of the weight, as the library stores it; a view, without gradient history."""
        weight = self.weight.detach()
        return weight[:, self.rows] if self.transposed else weight[self.rows]

    @property
    def w(self) -> Float[Tensor, "i o"]:
        """The map in the paper's orientation; a view, without gradient history."""
        return self.stored if self.transposed else self.stored.mT

    @property
    def b(self) -> Float[Tensor, " o"] | None:
        """The bias that is added to `x @ w`; a view, without gradient history."""
        rows = self.rows if self.bias_rows is None else self.bias_rows
        return None if self.bias is None else self.bias.detach()[rows]

    def check_stored(self) -> None:
        """Refuse a weight that is computed whenever it is read: what is written into it would be lost without a word.

        Raises:
            InputError: if it is no parameter.
        """
        for one in (self.weight, self.bias):
            if one is not None and not isinstance(one, nn.Parameter):
                raise InputError(
                    f"a weight {tuple(one.shape)} is computed by a parametrization, so nothing can be written into it: "
                    "remove_spectral_conditioning_(model), or torch's remove_parametrizations, first"
                )

    @torch.no_grad()
    def write_(self, w: Float[Tensor, "i o"]) -> None:
        """Write `w` into the weight, in the weight's own dtype and on its device, and set the bias to 0.

        Raises:
            InputError: as `check_stored`.
        """
        self.check_stored()
        self.w.copy_(w)
        self.fill_bias_(0)

    @torch.no_grad()
    def fill_bias_(self, value: float) -> None:
        """Set every bias to one value; a map without biases stays as it is."""
        if self.b is not None:
            self.b.fill_(value)


@dataclass(frozen=True, eq=False, repr=False)
class BlockView(Record):
    """One transformer block in the paper's terms.

    Attributes:
        name: its path in the model, `blocks.0`.
        block: the module itself.
        dim: token width d.
        heads: number of query heads.
        key_heads: number of key heads; fewer with grouped-query attention.
        head_dim: d_h.
        logit_scale: factor of the logits before the softmax; d_h^-0.5 in every library.
        attn, mlp: the two sub-blocks without norm, LayerScale and skip; both map tokens `(b, n, d)` to tokens.
        attn_norm, mlp_norm: the norm before each of them.
        attn_scale, mlp_scale: LayerScale after each of them; `nn.Identity` if there is none.
        query, key, value, output: W_Q, W_K, W_V, W_O.
        query_norm, key_norm: norms of each head's queries and keys (qk-norm); `nn.Identity` if there is none.
        mlp_in: the map from d to hidden; a gated MLP has two, in the library's order.
        mlp_out: the map from hidden to d.
        activation: between them.
        gate: which of two input maps goes through the activation, and then multiplies the other; None with one map.
        norms: every normalisation layer inside the block.
        layer_scales: names of the LayerScale parameters inside the block.
        skips: the sub-blocks that still have their skip connection.
        position_biases: names of the parameters inside the block that are added to logits by relative position.
        post_norm: whether each norm follows its sub-block and the skip's addition. Without skips such a block is the
            pre-norm one shifted by one norm: `attn_norm` is then the identity, since tokens come normed, `mlp_norm` the
            norm after the attention, and the block ends with a norm of its own.
        sequence_first: whether the block takes tokens as `(n, b, d)`; `attn` and `mlp` take `(b, n, d)` all the same.
        skip_gains: what the skips of attention and MLP multiply their tokens by (`set_skip_gains_`), where there are
            any.
        context: what the block is given besides its tokens, where a model gives it more; see `in_context`.
    """

    name: str
    block: nn.Module
    dim: int
    heads: int
    key_heads: int
    head_dim: int
    logit_scale: float
    attn: nn.Module
    mlp: nn.Module
    attn_norm: nn.Module
    mlp_norm: nn.Module
    attn_scale: nn.Module
    mlp_scale: nn.Module
    query: LinearMap
    key: LinearMap
    value: LinearMap
    output: LinearMap
    query_norm: nn.Module
    key_norm: nn.Module
    mlp_in: tuple[LinearMap, ...]
    mlp_out: LinearMap
    activation: nn.Module
    gate: int | None
    norms: tuple[nn.Module, ...]
    layer_scales: tuple[str, ...]
    skips: tuple[SubBlock, ...]
    position_biases: tuple[str, ...] = ()
    post_norm: bool = False
    sequence_first: bool = False
    skip_gains: tuple[float, float] = (1.0, 1.0)
    context: BlockContext = PLAIN

    def join(self, x: Float[Tensor, "*b d"], y: Float[Tensor, "*b d"], sub_block: SubBlock) -> Float[Tensor, "*b d"]:
        """What leaves a sub-block that gives y for tokens x, before any norm behind it: a sum where it has a skip."""
        if sub_block not in self.skips:
            return y
        gain = self.gain(sub_block)
        return x + y if gain == 1 else gain * x + y

    def gain(self, sub_block: SubBlock) -> float:
        """What the skip of a sub-block multiplies its tokens by: 1 as a rule, 0 where there is no skip."""
        return self.skip_gains[sub_block == "mlp"] if sub_block in self.skips else 0.0

    @property
    def is_decayed(self) -> bool:
        """Whether a skip carries its tokens times another number than 1."""
        return any(self.gain(name) != 1 for name in self.skips)

    @property
    def core(self) -> AttentionCore | None:
        """What stands for the softmax, if `replace_attention_` has put anything there."""
        return next((part for part in self.block.modules() if isinstance(part, AttentionCore)), None)

    def run(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """The whole block, in its context: tokens to tokens."""
        if not self.sequence_first:
            return first_tensor(self.block(x, **self.context.block))
        return first_tensor(self.block(x.transpose(0, 1), **self.context.block)).transpose(0, 1)

    def attend(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """The attention alone, in its context, on tokens that have been through `attn_norm`."""
        return first_tensor(self.attn(x, **self.context.attn))

    def in_context(self, context: BlockContext) -> "BlockView":
        """The same block, called as a model calls it: with rotary positions, masks and the like."""
        return replace(self, context=context)

    @property
    def bound_attn(self) -> nn.Module:
        """The attention as a module of tokens alone; itself if it needs nothing else."""
        return self.attn if self.context is PLAIN else Bound(self.attn, self.context.attn)

    def _summary(self) -> str:
        skips = "+".join(self.skips) or "no"
        return f"{self.name}, {skips} skips, d = {self.dim}, {self.heads} heads of {self.head_dim}"

    def tables(self) -> tuple[Table, ...]:
        """A row for each linear map."""
        inputs = [f"MLP in {i}" if len(self.mlp_in) > 1 else "MLP in" for i in range(len(self.mlp_in))]
        names = ("W_Q", "W_K", "W_V", "W_O", *inputs, "MLP out")
        rows = [
            (name, f"{one.w.shape[0]} x {one.w.shape[1]}", "no" if one.bias is None else "yes")
            for name, one in zip(names, self.maps, strict=True)
        ]
        return (Table(("map", "in x out", "bias"), rows, self._summary(), align="lrl"),)

    @property
    def maps(self) -> tuple[LinearMap, ...]:
        """Every linear map of the block."""
        return (self.query, self.key, self.value, self.output, *self.mlp_in, self.mlp_out)

    @property
    def w_q(self) -> Float[Tensor, "d hq"]:
        """W_Q of all heads side by side, used as `x @ w_q`."""
        return self.query.w

    @property
    def w_k(self) -> Float[Tensor, "d hk"]:
        """W_K of all key heads side by side."""
        return self.key.w

    @property
    def w_v(self) -> Float[Tensor, "d k"]:
        """W_V of all heads side by side."""
        return self.value.w

    @property
    def w_o(self) -> Float[Tensor, "k d"]:
        """W_O, used as `x @ w_o`."""
        return self.output.w
