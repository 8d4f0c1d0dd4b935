"""What a model gives its blocks besides tokens (rotary positions, masks), and blocks that are called with it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils import _pytree as pytree


@dataclass(frozen=True, eq=False)
class BlockContext:
    """What a block and its attention are called with, for token sets of one length.

    Attributes:
        block: keyword arguments of the block, besides its tokens.
        attn: keyword arguments of its attention.
        rotate: turns the queries or keys of every head by their positions, `(b, h, n, d_h)`; None without RoPE.
        bias: what is added to the scaled logits, `(h or 1, n, n)`: relative positions, and -inf where a token is not
            seen; None if nothing is.
    """

    block: Mapping[str, Any] = field(default_factory=dict)
    attn: Mapping[str, Any] = field(default_factory=dict)
    rotate: Callable[[Float[Tensor, "b h n k"]], Float[Tensor, "b h n k"]] | None = None
    bias: Float[Tensor, "h n n"] | None = None

    @property
    def in_words(self) -> str:
        """What attention is given besides tokens; nothing if nothing is."""
        parts = [] if self.rotate is None else ["rotary positions"]
        if self.bias is not None:
            later = torch.ones_like(self.bias, dtype=torch.bool).triu(1)
            causal = self.bias.shape[-1] > 1 and bool(self.bias[later].isneginf().all())
            parts.append("a causal mask" if causal else "a bias by position")
        return " and ".join(parts)


PLAIN = BlockContext()
"""Of blocks that are called with tokens alone and return tokens alone, as is their attention."""


class Bound(nn.Module):
    """A module with the keyword arguments that it is called with; tensors among them move with it.

    Args:
        module: returns tokens, or a tuple that begins with them.
        arguments: its keyword arguments.
    """

    def __init__(self, module: nn.Module, arguments: Mapping[str, Any]) -> None:
        super().__init__()
        self.module = module
        leaves, self._spec = pytree.tree_flatten(dict(arguments))
        self._others = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self._places = [index for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        for index in self._places:
            self.register_buffer(f"argument_{index}", leaves[index], persistent=False)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Tokens to tokens."""
        leaves = list(self._others)
        for index in self._places:
            leaves[index] = getattr(self, f"argument_{index}")
        return first_tensor(self.module(x, **pytree.tree_unflatten(leaves, self._spec)))


def first_tensor(output: Any) -> Tensor:
    """The output's tokens; blocks of some libraries return a tuple."""
    return output[0] if isinstance(output, tuple) else output
