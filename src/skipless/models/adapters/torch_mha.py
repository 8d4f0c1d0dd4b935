"""`nn.MultiheadAttention` in the paper's terms: one weight for queries, keys and values, held by the attention."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from skipless.errors import InputError
from skipless.models.adapters.parts import library_class
from skipless.models.blocks import LinearMap


class SelfAttention(nn.Module):
    """Self-attention by an `nn.MultiheadAttention`, tokens to tokens, whichever axis it takes first."""

    def __init__(self, mha: nn.MultiheadAttention) -> None:
        super().__init__()
        self.mha = mha

    def forward(self, x: Float[Tensor, "b n d"], **masks: Any) -> Float[Tensor, "b n d"]:
        """Attend; `masks` are keywords of `nn.MultiheadAttention`."""
        if self.mha.batch_first:
            return self.mha(x, x, x, need_weights=False, **masks)[0]
        turned = x.transpose(0, 1)
        return self.mha(turned, turned, turned, need_weights=False, **masks)[0].transpose(0, 1)


def check_mha(name: str, mha: Any) -> nn.MultiheadAttention:
    """Refuse attention that is none of a sequence to itself by three square maps.

    Raises:
        InputError: that names what it has besides.
    """
    kind = library_class(mha)
    if getattr(kind, "unquantised", kind) is not nn.MultiheadAttention:
        raise InputError(
            f"no adapter for the attention `{type(mha).__name__}` of {name}; supported: nn.MultiheadAttention"
        )
    extras = {
        "kdim or vdim": mha.in_proj_weight is None,
        "bias_k and bias_v": mha.bias_k is not None,
        "add_zero_attn": mha.add_zero_attn,
    }
    for extra, is_there in extras.items():
        if is_there:
            raise InputError(
                f"the attention of {name} has {extra}: it attends to more than the tokens of one width, which the "
                "scheme has no rule for; build it without"
            )
    return mha  # pyright: ignore[reportReturnType]


def mha_maps(mha: nn.MultiheadAttention) -> dict[str, Any]:
    """The fields of a `BlockView` that attention answers."""
    size = mha.embed_dim
    rows = [slice(i * size, (i + 1) * size) for i in range(3)]
    query, key, value = (LinearMap(mha.in_proj_weight, mha.in_proj_bias, part) for part in rows)
    return {
        "dim": size,
        "heads": mha.num_heads,
        "key_heads": mha.num_heads,
        "head_dim": mha.head_dim,
        "logit_scale": mha.head_dim**-0.5,
        "attn": SelfAttention(mha),
        "query": query,
        "key": key,
        "value": value,
        "output": LinearMap.parts(mha.out_proj)[0],
        "query_norm": nn.Identity(),
        "key_norm": nn.Identity(),
    }
