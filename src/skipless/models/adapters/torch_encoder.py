"""The adapter for PyTorch's `nn.TransformerEncoderLayer`, in an `nn.TransformerEncoder`, another model, or alone.

Norms come before the sub-blocks (`norm_first`) or after the sums, which is the default. Without skips a post-norm layer
is norm(MLP(norm(attention(x)))): the pre-norm layer shifted by one norm. `nn.TransformerEncoder` copies one layer, so
all layers start with equal weights; `initialize_` draws each anew.

In evaluation the library's layer calls one fused function that has the sums inside. The forward here never does, so
that training and evaluation compute the same.
"""

from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from skipless.errors import InputError
from skipless.models.adapters.parts import become_, check_dropout, joined, kept_skips, norm_modules, skip_gains
from skipless.models.adapters.protocol import LayerScaleChoice
from skipless.models.adapters.torch_mha import check_mha, mha_maps
from skipless.models.blocks import BlockView, LinearMap, SubBlock
from skipless.models.vit_view import ViTView

SUPPORTED = "nn.TransformerEncoderLayer"


class SkiplessEncoderLayer(nn.TransformerEncoderLayer):
    """PyTorch's layer in which each sub-block's skip connection can be left out; made by `remove_skips_`."""

    attn_skip: float
    mlp_skip: float

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """The library's forward without its fused path; `attn_skip` and `mlp_skip` switch the two sums on or off."""
        x = self.norm1(src) if self.norm_first else src
        x = self._sa_block(x, src_mask, src_key_padding_mask, is_causal=is_causal)
        x = joined(src, x, self.attn_skip)
        if not self.norm_first:
            x = self.norm1(x)
        y = self._ff_block(self.norm2(x) if self.norm_first else x)
        y = joined(x, y, self.mlp_skip)
        return y if self.norm_first else self.norm2(y)


class FeedForward(nn.Module):
    """The MLP of a layer, which keeps its parts side by side and has no module for it."""

    def __init__(self, layer: nn.TransformerEncoderLayer) -> None:
        super().__init__()
        self.linear1, self.linear2, self.dropout = layer.linear1, layer.linear2, layer.dropout
        self.activation = activation_of(layer)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Tokens to tokens, without the dropout behind."""
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


class _Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def activation_of(layer: nn.TransformerEncoderLayer) -> nn.Module:
    """The activation as a module; the library keeps a function."""
    function: Any = layer.activation
    if isinstance(function, nn.Module):
        return function
    modules = {functional.relu: nn.ReLU, functional.gelu: nn.GELU}
    return modules[function]() if function in modules else _Function(function)


_KNOWN = (nn.TransformerEncoderLayer, SkiplessEncoderLayer)


def blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every encoder layer in the model, with its path, first to last.

    Raises:
        InputError: if one is of a subclass, or there are decoder layers.
    """
    found = []
    for name, module in model.named_modules():
        if isinstance(module, nn.TransformerDecoderLayer):
            raise InputError(
                f"no adapter for the `{type(module).__name__}` at {name}: between attention and MLP it attends to "
                f"another sequence, by a third skip that the paper has not; supported: {SUPPORTED}"
            )
        if isinstance(module, nn.TransformerEncoderLayer):
            if type(module) not in _KNOWN:
                raise InputError(
                    f"no adapter for the block `{type(module).__name__}` at {name}: it may have a forward of its own; "
                    f"supported: {SUPPORTED}"
                )
            found.append((name, module))
    return found


def view(name: str, block: Any) -> BlockView:
    """Describe a layer in the paper's terms.

    Raises:
        InputError: if its attention has more than the tokens to attend to.
    """
    first = block.norm_first
    mlp = FeedForward(block)
    return BlockView(
        name=name,
        block=block,
        **mha_maps(check_mha(name, block.self_attn)),
        mlp=mlp,
        attn_norm=block.norm1 if first else nn.Identity(),
        mlp_norm=block.norm2 if first else block.norm1,
        attn_scale=nn.Identity(),
        mlp_scale=nn.Identity(),
        mlp_in=LinearMap.parts(block.linear1),
        mlp_out=LinearMap.parts(block.linear2)[0],
        activation=mlp.activation,
        gate=None,
        norms=norm_modules(block.norm1, block.norm2),
        layer_scales=(),
        skips=kept_skips(block),
        skip_gains=skip_gains(block),
        post_norm=not first,
        sequence_first=not block.self_attn.batch_first,
    )


def check_removable(name: str, block: Any, sub_blocks: tuple[SubBlock, ...]) -> None:
    """Refuse dropout behind sub-blocks whose skip is to be removed; 0.1 is the library's default.

    Raises:
        InputError: if a named sub-block has it.
    """
    check_dropout(name, {"attn": block.dropout1, "mlp": block.dropout2}, sub_blocks)


def remove_skips_(block: nn.Module, sub_blocks: tuple[SubBlock, ...], layer_scale: LayerScaleChoice) -> nn.Module:
    """Remove the skips of the named sub-blocks; call `check_removable` first."""
    return become_(block, SkiplessEncoderLayer, sub_blocks)


def note_removed_(model: nn.Module, views: Sequence[BlockView]) -> None:
    """Nothing: PyTorch keeps neither the names of its layers' classes nor a configuration."""


def vits(model: nn.Module) -> list[ViTView]:
    """None: these layers are of sequences, and whoever builds a vision transformer of them embeds images alone."""
    return []
