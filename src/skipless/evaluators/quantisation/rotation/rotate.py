"""rotate_: the residual stream turned by an orthogonal matrix that is folded into the weights.

What a practitioner does to a model with heavy-tailed activations (QuaRot, SpinQuant), and so the control for any claim
that a model without skips needs it less. The function that the model computes stays as it is.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float64
from torch import Generator, Tensor, nn

from skipless.errors import InputError
from skipless.evaluators.quantisation.rotation.orthogonal import Rotation, rotation_matrix
from skipless.evaluators.quantisation.rotation.stream import Stream, stream_of
from skipless.evaluators.quantisation.rounding.convert import is_quantised
from skipless.models.blocks import BlockView, LinearMap

Mix = Callable[[Float64[Tensor, "*b d"]], Float64[Tensor, "*b d"]]


@torch.no_grad()
def rotate_(model: nn.Module, kind: Rotation = "hadamard", *, generator: Generator | None = None) -> nn.Module:
    """Rotate the tokens between a model's blocks, in place, without changing what the model computes.

    Gains and biases of norms, and LayerScale, are first folded into the linear maps beside them. LayerNorm also centres
    its tokens: everything that writes to the stream is centred instead, once, and the norms become RMS norms, as in
    SliceGPT (2401.15024). The stream is then turned by one matrix Q: what writes to it (embeddings, positions, prefix
    tokens, W_O, the MLP's last map) by Q, what reads it (W_Q, W_K, W_V, the MLP's first maps, the head) by its inverse.
    All of it is computed in float64. Only the stream is turned: the inputs of W_O and of the MLP's last map are what
    they were.

    A model without skips can be rotated as well: tokens between its blocks are then turned, by the same formulas.

    Args:
        model: timm's plain `VisionTransformer`; or a causal Llama, Mistral, Qwen2 or Qwen3 of transformers. A head that
            shares its weight with the embedding gets one of its own. Norms of the vision transformer lose their
            parameters. Without a linear head, the last norm is followed by a linear map that turns features back.
        kind: Hadamard's matrix with drawn signs, or Haar's.
        generator: source of randomness.

    Returns:
        The model.

    Raises:
        InputError: for any other model, with what is missing; for a quantised one, and one whose maps are computed by a
            parametrization. The model is then unchanged.

    Example:
        >>> import timm
        >>> vit = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32).double().eval()
        >>> images = torch.randn(1, 3, 32, 32).double()
        >>> before = vit(images)
        >>> bool(torch.allclose(rotate_(vit)(images), before, rtol=0, atol=1e-9))
        True
    """
    if is_quantised(model):
        raise InputError("the model is quantised: call unquantise_ before rotate_")
    stream = stream_of(model)
    _check(stream)
    q = rotation_matrix(stream.dim, kind, generator=generator)

    def write(values: Tensor) -> Tensor:
        if stream.centred:
            values = values - values.mean(-1, keepdim=True)
        return values @ q.to(values.device)

    for view in stream.views:
        for norm, readers in ((view.attn_norm, _of_attention(view)), (view.mlp_norm, view.mlp_in)):
            _fold_norm_(norm, readers)
            for one in readers:
                one.w.copy_(q.to(one.w.device).mT @ one.w.double())
        for linear, scale in ((view.output, view.attn_scale), (view.mlp_out, view.mlp_scale)):
            _fold_scale_(linear, scale)
            one = linear.w
            one.copy_(write(one.double()))
            if linear.b is not None:
                linear.b.copy_(write(linear.b.double()))
    stream.turn_(write, q)
    return model


def _of_attention(view: BlockView) -> tuple[LinearMap, ...]:
    return view.query, view.key, view.value


def _check(stream: Stream) -> None:
    """Refuse what cannot be folded, before anything is changed."""
    for view in stream.views:
        for one in view.maps:
            one.check_stored()
        for norm, readers in ((view.attn_norm, _of_attention(view)), (view.mlp_norm, view.mlp_in)):
            bias = getattr(norm, "bias", None)
            if bias is not None and bool(bias.detach().any()) and any(one.bias is None for one in readers):
                raise InputError(
                    f"{view.name} has a norm whose bias cannot be folded into a linear map without one: build the "
                    "model with qkv_bias=True"
                )


def _fold_norm_(norm: nn.Module, readers: Sequence[LinearMap]) -> None:
    """Fold a norm's gain and bias into the maps that follow it: (x g + b) W + c = x (g W) + (b W + c)."""
    gain, bias = (getattr(norm, name, None) for name in ("weight", "bias"))
    for one in readers:
        w = one.w.double()
        if bias is not None and one.b is not None:
            one.b.add_(bias.double() @ w)
        if gain is not None:
            one.w.copy_(gain.double()[:, None] * w)


def _fold_scale_(linear: LinearMap, scale: nn.Module) -> None:
    gamma: Any = getattr(scale, "gamma", None)
    if gamma is None:
        return
    linear.w.copy_(linear.w.double() * gamma.double())
    if linear.b is not None:
        linear.b.copy_(linear.b.double() * gamma.double())
