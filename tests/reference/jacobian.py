"""Sections 2, 4 and A.3 as slowly and literally as they can be written: loops over heads, jacrev, float64, dense."""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def attention(x: Tensor, w: dict[str, Tensor], heads: int) -> Tensor:
    """Eq. 4 at one token set (n, d): a loop over heads, each with its own slice of W_Q, W_K and W_V, biases if given.

    `w` has w_q, w_k, w_v (d, heads * d_h) and w_o (heads * d_h, d), used as `x @ w`, and may have b_q, b_k, b_v, b_o
    and gamma.
    """
    head_dim = w["w_q"].shape[1] // heads
    outputs = []
    for head in range(heads):
        part = slice(head * head_dim, (head + 1) * head_dim)
        q, k, v = (x @ w[f"w_{c}"][:, part] + bias(w, f"b_{c}", part) for c in "qkv")
        outputs.append(softmax(q @ k.T / math.sqrt(head_dim)) @ v)
    y = torch.cat(outputs, dim=1) @ w["w_o"] + bias(w, "b_o", slice(None))
    return y * w["gamma"] if "gamma" in w else y


def bias(w: dict[str, Tensor], name: str, part: slice) -> Tensor:
    return w[name][part] if name in w else torch.zeros(()).double()


def softmax(logits: Tensor) -> Tensor:
    exponentials = torch.exp(logits - logits.max(dim=1, keepdim=True).values)
    return exponentials / exponentials.sum(dim=1, keepdim=True)


def dense(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The Jacobian of a map of tokens, as a matrix over tokens flattened row by row."""
    return torch.func.jacrev(f)(x).reshape(x.numel(), x.numel()).detach()


def looped(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The same, a backward pass a row: for modules with fused attention, which jacrev does not take in batches."""
    return torch.autograd.functional.jacobian(f, x).reshape(x.numel(), x.numel())  # pyright: ignore


def dominant(x: Tensor, w: dict[str, Tensor], heads: int) -> Tensor:
    """B of Eq. 13, the sum over heads of (W_V W_O)^T (x) A, entry by entry of the Kronecker product."""
    n, d = x.shape
    head_dim = w["w_q"].shape[1] // heads
    gamma = w.get("gamma", torch.ones(d).double())
    out = torch.zeros(n, d, n, d, dtype=torch.double)
    for head in range(heads):
        part = slice(head * head_dim, (head + 1) * head_dim)
        q, k = (x @ w[f"w_{c}"][:, part] + bias(w, f"b_{c}", part) for c in "qk")
        a = softmax(q @ k.T / math.sqrt(head_dim))
        value = w["w_v"][:, part] @ w["w_o"][part] * gamma
        for i in range(n):
            for j in range(n):
                out[i, :, j, :] += a[i, j] * value.T
    return out.reshape(n * d, n * d)


def perturbation(x: Tensor, w: dict[str, Tensor], heads: int) -> Tensor:
    """E of Eq. 13: the values held fixed, A' by jacrev of the attention matrix."""
    n, d = x.shape
    head_dim = w["w_q"].shape[1] // heads
    gamma = w.get("gamma", torch.ones(d).double())
    out = torch.zeros(n * d, n * d, dtype=torch.double)
    for head in range(heads):
        part = slice(head * head_dim, (head + 1) * head_dim)

        def matrix(tokens: Tensor, part: slice = part) -> Tensor:
            q, k = (tokens @ w[f"w_{c}"][:, part] + bias(w, f"b_{c}", part) for c in "qk")
            return softmax(q @ k.T / math.sqrt(head_dim))

        a_prime = torch.func.jacrev(matrix)(x)  # (n, n, n, d)
        value = x @ w["w_v"][:, part] @ w["w_o"][part] * gamma
        out += torch.einsum("ilmb,la->iamb", a_prime, value).reshape(n * d, n * d)
    return out


def timm_weights(block) -> dict[str, Tensor]:
    """The matrices of a timm block's attention, read from its state dict: qkv stacked by rows, (out, in)."""
    state = {name: tensor.detach().double() for name, tensor in block.state_dict().items()}
    w_q, w_k, w_v = (part.T for part in state["attn.qkv.weight"].chunk(3))
    w = {"w_q": w_q, "w_k": w_k, "w_v": w_v, "w_o": state["attn.proj.weight"].T}
    if "attn.qkv.bias" in state:
        w |= dict(zip(("b_q", "b_k", "b_v"), state["attn.qkv.bias"].chunk(3), strict=True))
    if "attn.proj.bias" in state:
        w["b_o"] = state["attn.proj.bias"]
    if "ls1.gamma" in state:
        w["gamma"] = state["ls1.gamma"]
    return w


def by_parameters(f: Callable[[dict[str, Tensor]], Tensor], weights: dict[str, Tensor]) -> Tensor:
    """The Jacobian of a map of named weights, a backward pass a row: columns in their order."""
    found = torch.autograd.functional.jacobian(
        lambda *values: f(dict(zip(weights, values, strict=True))), tuple(weights.values())
    )
    return torch.cat([part.reshape(len(part), -1) for part in found], dim=1)
