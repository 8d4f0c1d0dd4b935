"""ModelConfig: which library's model, with its skips or without, and how it starts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from skipless.choices import Positions
from skipless.display.values import counted
from skipless.errors import InputError
from skipless.frozen import added
from skipless.init.scheme import SkiplessInit
from skipless.models.attention_config import AttentionConfig

if TYPE_CHECKING:
    from torch.nn import Module

    from skipless.data import ImageData
else:  # a recipe is described without torch, which is imported when it is run
    ImageData = Module = Any


@dataclass(frozen=True)
class ModelConfig:
    """A library's model, with its skips or without, and how it starts.

    Attributes:
        name: the library's name of the residual model.
        skip: keep the skip connections.
        init: the paper's scheme, or one beyond it; None leaves the library's own initialisation.
        kwargs: for the library's factory; image size, channels and classes come from the data.
        positions: position embeddings of the size of the patch embeddings for a model without `init`, so that a
            residual model may start with those that `init` gives one without skips; `"kept"` leaves the library's.
        library: whose model it is; see `skipless.models.libraries`.
        attention: what stands for the softmax.
        skip_gain: what the skips of the last block multiply their tokens by, x = a x + f(x); those before it rise to 1
            (`decayed_gains`). At 0.7 and less the last map of each branch starts at 0. 1 is the residual model.

    Raises:
        InputError: for a gain that is not above 0, above 1, or of a model without skips.
    """

    name: str = "vit_base_patch16_224"
    skip: bool = False
    init: SkiplessInit | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    library: str = added("timm")
    positions: Positions = added("kept")
    attention: AttentionConfig = added(AttentionConfig())
    skip_gain: float = added(1.0)

    def __post_init__(self) -> None:
        if not 0 < self.skip_gain <= 1:
            raise InputError(f"skip_gain {self.skip_gain}: give a number above 0, up to 1")
        if self.skip_gain != 1 and not self.skip:
            raise InputError(f"skip_gain {self.skip_gain} is of models with skips, and this one has none: give --skip")

    def build(self, data: ImageData, seed: int, *, blank: bool = False) -> Module:
        """The model for some data, its weights a function of the seed.

        Args:
            data: the images.
            seed: of the weights.
            blank: all weights will be overwritten, so none is drawn or solved beyond the library's own.

        Raises:
            InputError: if the library has no such model, or refuses the keywords, or the images are smaller than a
                patch, or there is no such library.
        """
        return self.build_for(data.image_size, data.channels, len(data.classes), seed, blank=blank)

    def build_for(self, image_size: int, channels: int, classes: int, seed: int, *, blank: bool = False) -> Module:
        """The model for images of a size in pixels; see `build`."""
        from skipless.models.libraries import model_builder

        build = model_builder(self.library)
        return build(
            self.name,
            image_size,
            channels,
            classes,
            skip=self.skip,
            init=None if blank else self.init,
            positions=self.positions,
            seed=seed,
            kwargs=self.kwargs,
            **self._beyond(blank),
        )

    def _beyond(self, blank: bool) -> dict[str, Any]:
        """What builders are told of models that are more than a row of Table 1."""
        more: dict[str, Any] = {} if self.attention.is_softmax else {"attention": self.attention}
        more |= {} if self.skip_gain == 1 else {"skip_gain": self.skip_gain}
        return {**more, "blank": True} if blank and more else more

    def build_language(self, vocabulary: int, context: int, seed: int, *, blank: bool = False) -> Module:
        """The causal model for a vocabulary, and for a context in tokens.

        The library's builder is asked for `context` as the image size, 0 channels, and the vocabulary as classes.
        """
        return self.build_for(context, 0, vocabulary, seed, blank=blank)

    def check_covers(self, image_size: int, data: str) -> None:
        """Refuse images of which the model's patches would leave rows and columns out: timm drops these silently.

        Args:
            image_size: side in pixels.
            data: what the images are called, for the message.

        Raises:
            InputError: that says how many pixels would never be seen.
        """
        from skipless.models.libraries.builders import patch_size

        patch = patch_size(self.name, self.kwargs) if self.library == "timm" else None
        sized_otherwise = "img_size" in self.kwargs or self.kwargs.get("dynamic_img_pad")
        if patch is not None and not sized_otherwise and image_size >= patch and image_size % patch:
            raise InputError(
                f"{data!r} has images of {image_size} pixels, of which patches of {patch} never see the last "
                f"{image_size % patch}: the model is meant for other images; give its scale its own data, or "
                f"image_size={image_size - image_size % patch} in Python"
            )

    @property
    def title(self) -> str:
        """The model in a few words.

        Example:
            >>> ModelConfig(kwargs={"depth": 6, "embed_dim": 64, "patch_size": 8}).title
            'ViT of 6 blocks, width 64, patch 8'
        """
        sizes, said = self.kwargs, self.name
        if {"depth", "embed_dim", "patch_size"} <= sizes.keys():
            said = f"ViT of {counted(sizes['depth'], 'block')}, width {sizes['embed_dim']}, patch {sizes['patch_size']}"
        return f"{said}{beyond_in_words(self.attention.title, self.skip_gain)}"


def beyond_in_words(attention: str, skip_gain: float) -> str:
    """What a model has in place of softmax and plain skips, behind its title; nothing if it has both.

    Example:
        >>> beyond_in_words("shaped", 0.6)
        ', shaped attention, skips that fall to 0.6'
    """
    core = "" if attention == "softmax" else f", {attention} attention"
    return core if skip_gain == 1 else f"{core}, skips that fall to {skip_gain:g}"
