"""The blocks of Hugging Face's families as formulas of their state dict, in float64; nothing of the library's is used.

Norms with RMS and angles of rotary positions are rounded to float32 on the way, as the library rounds them.
"""

import math
from typing import Any

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def block(kind: str, w: Weights, config: Any, x: Tensor, *, attn_skip: bool, mlp_skip: bool) -> Tensor:
    """One block at tokens `x`, by its own part of the state dict."""
    return {"llama": _llama, "gpt2": _gpt2, "bert": _bert, "vit": _vit, "dino": _dino}[kind](
        w, config, x, attn_skip, mlp_skip
    )


def _linear(w: Weights, name: str, x: Tensor) -> Tensor:
    y = torch.einsum("...i,oi->...o", x, w[f"{name}.weight"])
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def _norm(w: Weights, name: str, x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def _rms(w: Weights, name: str, x: Tensor, eps: float) -> Tensor:
    x = x.float()
    return (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)).double() * w[f"{name}.weight"]


def _heads(x: Tensor, width: int) -> list[Tensor]:
    return [x[..., start : start + width] for start in range(0, x.shape[-1], width)]


def _turned(x: Tensor, angles: Tensor) -> Tensor:
    """Entries i and i + d_h / 2 as one complex number, times e^(i angle)."""
    half = x.shape[-1] // 2
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.complex(angles.cos().double(), angles.sin().double())
    return torch.cat((turned.real, turned.imag), -1)


def _attend(
    queries: list[Tensor], keys: list[Tensor], values: list[Tensor], scale: float, seen: Tensor | None = None
) -> Tensor:
    """Heads one after another; heads in a row share a key where there are fewer keys."""
    shared = len(queries) // len(keys)
    out = []
    for head, q in enumerate(queries):
        logits = scale * torch.einsum("bik,bjk->bij", q, keys[head // shared])
        weights = (logits if seen is None else logits.masked_fill(~seen, -math.inf)).exp()
        out.append(torch.einsum("bij,bjk->bik", weights / weights.sum(-1, keepdim=True), values[head // shared]))
    return torch.cat(out, -1)


def _silu(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


def _gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def _gelu_tanh(x: Tensor) -> Tensor:
    return x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def _seen(count: int, window: int | None) -> Tensor:
    rows, columns = torch.arange(count)[:, None], torch.arange(count)
    return (columns <= rows) & (columns > rows - (window or count))


def _llama(w: Weights, config: Any, x: Tensor, attn_skip: bool, mlp_skip: bool) -> Tensor:
    eps, count = config.rms_norm_eps, x.shape[1]
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    normed = _rms(w, "input_layernorm", x, eps)
    q, k, v = (_heads(_linear(w, f"self_attn.{part}_proj", normed), width) for part in "qkv")
    if "self_attn.q_norm.weight" in w:
        q = [_rms(w, "self_attn.q_norm", head, eps) for head in q]
        k = [_rms(w, "self_attn.k_norm", head, eps) for head in k]
    base = config.rope_parameters["rope_theta"]
    angles = torch.arange(count)[:, None].float() * (1.0 / (base ** (torch.arange(0, width, 2).float() / width)))
    q, k = ([_turned(head, angles) for head in heads] for heads in (q, k))
    window = config.sliding_window if config.model_type == "mistral" else None
    y = _linear(w, "self_attn.o_proj", _attend(q, k, v, width**-0.5, _seen(count, window)))
    x = x + y if attn_skip else y
    normed = _rms(w, "post_attention_layernorm", x, eps)
    gates = _silu(_linear(w, "mlp.gate_proj", normed))
    y = _linear(w, "mlp.down_proj", gates * _linear(w, "mlp.up_proj", normed))
    return x + y if mlp_skip else y


def _gpt2(w: Weights, config: Any, x: Tensor, attn_skip: bool, mlp_skip: bool) -> Tensor:
    eps, d, width = config.layer_norm_epsilon, config.n_embd, config.n_embd // config.n_head
    fused = _norm(w, "ln_1", x, eps) @ w["attn.c_attn.weight"] + w["attn.c_attn.bias"]
    q, k, v = (_heads(fused[..., start * d : (start + 1) * d], width) for start in range(3))
    y = _attend(q, k, v, width**-0.5, _seen(x.shape[1], None)) @ w["attn.c_proj.weight"] + w["attn.c_proj.bias"]
    x = x + y if attn_skip else y
    hidden = _gelu_tanh(_norm(w, "ln_2", x, eps) @ w["mlp.c_fc.weight"] + w["mlp.c_fc.bias"])
    y = hidden @ w["mlp.c_proj.weight"] + w["mlp.c_proj.bias"]
    return x + y if mlp_skip else y


def _bert(w: Weights, config: Any, x: Tensor, attn_skip: bool, mlp_skip: bool) -> Tensor:
    eps, width = config.layer_norm_eps, config.hidden_size // config.num_attention_heads
    q, k, v = (_heads(_linear(w, f"attention.self.{part}", x), width) for part in ("query", "key", "value"))
    y = _linear(w, "attention.output.dense", _attend(q, k, v, width**-0.5))
    x = _norm(w, "attention.output.LayerNorm", x + y if attn_skip else y, eps)
    y = _linear(w, "output.dense", _gelu(_linear(w, "intermediate.dense", x)))
    return _norm(w, "output.LayerNorm", x + y if mlp_skip else y, eps)


def _vit(w: Weights, config: Any, x: Tensor, attn_skip: bool, mlp_skip: bool) -> Tensor:
    eps, width = config.layer_norm_eps, config.hidden_size // config.num_attention_heads
    normed = _norm(w, "layernorm_before", x, eps)
    q, k, v = (_heads(_linear(w, f"attention.{part}_proj", normed), width) for part in "qkv")
    y = _linear(w, "attention.o_proj", _attend(q, k, v, width**-0.5))
    x = x + y if attn_skip else y
    y = _linear(w, "mlp.fc2", _gelu(_linear(w, "mlp.fc1", _norm(w, "layernorm_after", x, eps))))
    return x + y if mlp_skip else y


def _dino(w: Weights, config: Any, x: Tensor, attn_skip: bool, mlp_skip: bool) -> Tensor:
    eps, width = config.layer_norm_eps, config.hidden_size // config.num_attention_heads
    normed = _norm(w, "norm1", x, eps)
    q, k, v = (_heads(_linear(w, f"attention.{part}_proj", normed), width) for part in "qkv")
    if config.model_type == "dinov3_vit":
        q, k = ([_turned_patches(config, head, width) for head in heads] for heads in (q, k))
    y = _linear(w, "attention.o_proj", _attend(q, k, v, width**-0.5)) * w.get("layer_scale1.lambda1", 1.0)
    x = x + y if attn_skip else y
    y = _dino_mlp(w, _norm(w, "norm2", x, eps)) * w.get("layer_scale2.lambda1", 1.0)
    return x + y if mlp_skip else y


def _dino_mlp(w: Weights, x: Tensor) -> Tensor:
    if "mlp.gate_proj.weight" in w:
        act = _silu if w["mlp.gate_proj.weight"].shape[0] != 24 else _gelu  # DINOv2's SwiGLU, DINOv3's gated GELU
        return _linear(w, "mlp.down_proj", act(_linear(w, "mlp.gate_proj", x)) * _linear(w, "mlp.up_proj", x))
    names = ("mlp.fc1", "mlp.fc2") if "mlp.fc1.weight" in w else ("mlp.up_proj", "mlp.down_proj")
    return _linear(w, names[1], _gelu(_linear(w, names[0], x)))


def _turned_patches(config: Any, x: Tensor, width: int) -> Tensor:
    """Angles 2 pi (y, x) f of each patch's centre, y and x in [-1, 1]; class token and registers are not turned."""
    side = config.image_size // config.patch_size
    first = 1 + config.num_register_tokens
    centres = 2 * (torch.arange(0.5, side) / side) - 1
    places = torch.stack(torch.meshgrid(centres, centres, indexing="ij"), -1).flatten(0, 1)
    frequencies = 1 / config.rope_theta ** torch.arange(0, 1, 4 / width)
    angles = (2 * math.pi * places[:, :, None] * frequencies.double()).flatten(1)
    return torch.cat((x[:, :first], _turned(x[:, first:], angles)), 1)
