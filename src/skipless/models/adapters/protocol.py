"""What an adapter answers."""

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

from torch import nn

from skipless.models.blocks import BlockView, SubBlock
from skipless.models.vit_view import ViTView

LayerScaleChoice = Literal["remove", "keep"]


@runtime_checkable
class Adapter(Protocol):
    """One library's blocks. A module with these names is one.

    Attributes:
        SUPPORTED: what it knows, for errors: `"timm's plain VisionTransformer (...)"`.
    """

    SUPPORTED: str

    def blocks(self, model: nn.Module) -> list[tuple[str, nn.Module]]:
        """Every block of the library's transformers in the model, with its path, first to last.

        `model` may wrap a transformer, or be one block or a sequence of blocks. A model without any gives none.

        Raises:
            InputError: if one of the library's transformers has a block that the adapter does not know: a model is
                converted whole or not at all.
        """
        ...

    def view(self, name: str, block: nn.Module) -> BlockView:
        """Describe a block in the paper's terms.

        Raises:
            InputError: if its attention or its MLP is of an unknown class.
        """
        ...

    def check_removable(self, name: str, block: nn.Module, sub_blocks: tuple[SubBlock, ...]) -> None:
        """Refuse skips that cannot be removed.

        Raises:
            InputError: with the reason: a third skip, drop path.
        """
        ...

    def remove_skips_(
        self, block: nn.Module, sub_blocks: tuple[SubBlock, ...], layer_scale: LayerScaleChoice
    ) -> nn.Module:
        """Remove the skips of the named sub-blocks from a block that `check_removable` accepts."""
        ...

    def note_removed_(self, model: nn.Module, views: Sequence[BlockView]) -> None:
        """Write down in the model, where the library keeps such things, that blocks have lost skips."""
        ...

    def vits(self, model: nn.Module) -> list[ViTView]:
        """Every vision transformer of the library's in the model: how each turns images into tokens.

        Raises:
            InputError: if one of them embeds patches in a way that the adapter does not know.
        """
        ...
