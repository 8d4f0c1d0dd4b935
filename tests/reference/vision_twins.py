"""A transformer block written down from its formulas, head by head, and read off each library's own weights."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

Norm = tuple[Tensor, Tensor | None, float]  # weight, bias, eps


def layer_norm(x: Tensor, norm: Norm | None) -> Tensor:
    if norm is None:
        return x
    weight, bias, eps = norm
    centred = x - x.mean(-1, keepdim=True)
    y = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * weight
    return y if bias is None else y + bias


def activated(x: Tensor, kind: str) -> Tensor:
    if kind == "gelu":
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    return x * torch.sigmoid(x) if kind == "silu" else x.clamp_min(0)


def turned(x: Tensor, factors: Tensor, pairing: Literal["neighbours", "halves"]) -> Tensor:
    """Each pair of entries of `x`, (n, d_h), as one complex number, times its factor, (n, d_h / 2)."""
    half = x.shape[-1] // 2
    real, imaginary = (x[:, 0::2], x[:, 1::2]) if pairing == "neighbours" else (x[:, :half], x[:, half:])
    z = torch.complex(real, imaginary) * factors
    if pairing == "neighbours":
        return torch.stack([z.real, z.imag], -1).flatten(-2)
    return torch.cat([z.real, z.imag], -1)


@dataclass
class NaiveBlock:
    """Weights as `x @ w`; biases may be missing."""

    heads: int
    q: tuple[Tensor, Tensor | None]
    k: tuple[Tensor, Tensor | None]
    v: tuple[Tensor, Tensor | None]
    o: tuple[Tensor, Tensor | None]
    mlp_in: list[tuple[Tensor, Tensor | None]]  # the gate first, where there are two
    mlp_out: tuple[Tensor, Tensor | None]
    kind: str
    norm1: Norm
    norm2: Norm
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    inner_norm: Norm | None = None
    mlp_norm: Norm | None = None
    gamma1: Tensor | float = 1.0
    gamma2: Tensor | float = 1.0
    factors: list[Tensor] = field(default_factory=list)  # exp(i angle) of each head, for the patches
    pairing: Literal["neighbours", "halves"] = "neighbours"
    bias: Tensor | None = None  # (h, n, n)
    post_norm: bool = False

    def maps(self, x: Tensor) -> Tensor:
        """Attention matrices of one image's tokens, (h, n, n)."""
        return torch.stack([self._map(x, head) for head in range(self.heads)])

    def _map(self, x: Tensor, head: int) -> Tensor:
        size = self.q[0].shape[1] // self.heads
        part = slice(head * size, (head + 1) * size)
        q, k = layer_norm(_apply(x, self.q)[:, part], self.q_norm), layer_norm(_apply(x, self.k)[:, part], self.k_norm)
        if self.factors:
            own = self.factors[head]
            prefix = len(x) - len(own)
            q, k = (torch.cat([y[:prefix], turned(y[prefix:], own, self.pairing)]) for y in (q, k))
        logits = q @ k.T / size**0.5
        return (logits if self.bias is None else logits + self.bias[head]).softmax(-1)

    def attention(self, x: Tensor) -> Tensor:
        v = _apply(x, self.v)
        size = v.shape[1] // self.heads
        each = [a @ v[:, head * size : (head + 1) * size] for head, a in enumerate(self.maps(x))]
        return _apply(layer_norm(torch.cat(each, -1), self.inner_norm), self.o)

    def mlp(self, x: Tensor) -> Tensor:
        hidden = activated(_apply(x, self.mlp_in[0]), self.kind)
        for other in self.mlp_in[1:]:
            hidden = hidden * _apply(x, other)
        return _apply(layer_norm(hidden, self.mlp_norm), self.mlp_out)

    def __call__(self, x: Tensor, skips: tuple[str, ...]) -> Tensor:
        return torch.stack([self._one(tokens, skips) for tokens in x])

    def _one(self, x: Tensor, skips: tuple[str, ...]) -> Tensor:
        if self.post_norm:
            y = layer_norm(self.attention(x) + ("attn" in skips) * x, self.norm1)
            return layer_norm(self.mlp(y) + ("mlp" in skips) * y, self.norm2)
        y = self.gamma1 * self.attention(layer_norm(x, self.norm1)) + ("attn" in skips) * x
        return self.gamma2 * self.mlp(layer_norm(y, self.norm2)) + ("mlp" in skips) * y


def _apply(x: Tensor, linear: tuple[Tensor, Tensor | None]) -> Tensor:
    w, b = linear
    return x @ w if b is None else x @ w + b


def read(block: nn.Module, **context: Any) -> NaiveBlock:
    """Read a block by its parameters' names, each as its library documents it."""
    kind = type(block).__module__ + type(block).__mro__[1 if "skipless" in type(block).__module__ else 0].__name__
    with torch.no_grad():
        if "EncoderBlock" in kind or "EncoderLayer" in kind:
            return _of_torch(block, **context)
        return _of_timm(block, **context)


def _norm(block: nn.Module, name: str) -> Norm | None:
    module: Any = block.get_submodule(name) if _has(block, name) else None
    return None if not isinstance(module, nn.LayerNorm) else (module.weight, module.bias, module.eps)


def _has(block: nn.Module, name: str) -> bool:
    return name in dict(block.named_modules())


def _linear(linear: nn.Module) -> tuple[Tensor, Tensor | None]:
    return linear.weight.T, linear.bias  # pyright: ignore


def _of_torch(block: Any, **context: Any) -> NaiveBlock:
    mha = block.self_attention if hasattr(block, "self_attention") else block.self_attn
    d = mha.embed_dim
    fused, biases = mha.in_proj_weight, mha.in_proj_bias
    q, k, v = (
        (fused[i * d : (i + 1) * d].T, None if biases is None else biases[i * d : (i + 1) * d]) for i in range(3)
    )
    vision = hasattr(block, "self_attention")
    first, second = (block.mlp[0], block.mlp[3]) if vision else (block.linear1, block.linear2)
    norms = ("ln_1", "ln_2") if vision else ("norm1", "norm2")
    kind = "gelu" if vision or block.activation is nn.functional.gelu else "relu"
    return NaiveBlock(
        mha.num_heads, q, k, v, _linear(mha.out_proj), [_linear(first)], _linear(second), kind,
        *(_norm(block, name) for name in norms), post_norm=not vision and not block.norm_first, **context,
    )  # fmt: skip


def _of_timm(block: Any, **context: Any) -> NaiveBlock:
    attn, mlp = block.attn, block.mlp
    if attn.qkv is None if hasattr(attn, "q_proj") else False:
        q, k, v = _linear(attn.q_proj), _linear(attn.k_proj), _linear(attn.v_proj)
    else:
        d = attn.qkv.weight.shape[0] // 3
        whole = attn.qkv.bias
        own = {0: getattr(attn, "q_bias", None), 1: None, 2: getattr(attn, "v_bias", None)}
        q, k, v = (
            (attn.qkv.weight[i * d : (i + 1) * d].T, own[i] if whole is None else whole[i * d : (i + 1) * d])
            for i in range(3)
        )
    if hasattr(mlp, "fc1_g"):
        kind, inputs = "silu", [_linear(mlp.fc1_g), _linear(mlp.fc1_x)]
    elif type(mlp).__name__ == "GluMlp":
        half = mlp.fc1.weight.shape[0] // 2
        kind, inputs = "silu", [(mlp.fc1.weight[i].T, mlp.fc1.bias[i]) for i in (slice(0, half), slice(half, None))]
    else:
        kind, inputs = "gelu", [_linear(mlp.fc1)]
    gammas = {}
    for place, name in (("gamma1", "gamma_1"), ("gamma2", "gamma_2")):
        gamma = getattr(block, name, None)
        gammas[place] = 1.0 if gamma is None else gamma
    return NaiveBlock(
        attn.num_heads, q, k, v, _linear(attn.proj), inputs, _linear(mlp.fc2), kind,
        _norm(block, "norm1"), _norm(block, "norm2"), _norm(block, "attn.q_norm"), _norm(block, "attn.k_norm"),
        _norm(block, "attn.norm"), _norm(block, "mlp.norm"), **gammas, **context,
    )  # fmt: skip


def context_of(model: Any, index: int) -> dict[str, Any]:
    """What the model's block of this index is given besides its tokens, as angles and biases."""
    if getattr(model, "rope", None) is not None:
        attn = model.blocks[index].attn
        own = factors_of(model)[index]
        heads = list(own) if own.ndim == 3 else [own] * attn.num_heads
        return {"factors": heads, "pairing": "halves" if attn.rotate_half else "neighbours"}
    bias = _beit_bias(model, index) if type(model).__name__ == "Beit" else None
    return {} if bias is None else {"bias": bias}


def factors_of(model: Any) -> list[Tensor]:
    """exp(i angle) of each block's patches, from the table of sines and cosines that the model keeps or makes."""
    rope = model.rope
    keeps = hasattr(rope, "feat_shape") and not model.dynamic_img_size
    table = rope.get_embed() if keeps else rope.get_embed(shape=(4, 4))
    sines, cosines = table.detach().double().chunk(2, -1)
    half = sines.shape[-1] // 2
    pick = slice(None, half) if model.blocks[0].attn.rotate_half else slice(None, None, 2)
    factors = torch.complex(cosines[..., pick], sines[..., pick])
    return list(factors) if model.rope_mixed else [factors] * len(model.blocks)


def _beit_bias(model: Any, index: int) -> Tensor | None:
    """By hand: distance of two patches in rows and columns, and three entries for the class token."""
    tables = [
        holder.relative_position_bias_table.detach()
        for holder in (model.rel_pos_bias, model.blocks[index].attn)
        if holder is not None and getattr(holder, "relative_position_bias_table", None) is not None
    ]
    if not tables:
        return None
    table = torch.stack(tables).sum(0)
    side, count = 4, len(table)
    place = torch.empty(side**2 + 1, side**2 + 1, dtype=torch.long)
    for a in range(side**2):
        for b in range(side**2):
            rows, columns = a // side - b // side, a % side - b % side
            place[a + 1, b + 1] = (rows + side - 1) * (2 * side - 1) + columns + side - 1
    place[0, :], place[:, 0], place[0, 0] = count - 3, count - 2, count - 1
    return table[place].permute(2, 0, 1)
