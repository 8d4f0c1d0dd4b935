"""The settings of each study. This module imports no torch, so that the command line can read it at once.

The attribute texts of these dataclasses are the help texts of `skipless eval SOURCE STUDY --help`.
"""

import re
from dataclasses import dataclass, field
from typing import Annotated, Literal

from skipless.choices import MULTISCALE, Kind, Norm, Pooling, Precision, Protocol, Select
from skipless.errors import InputError
from skipless.options import Option

DiscoveryMethod = Literal["tokencut", "lost"]
Blocks = Annotated[tuple[int, ...] | None, Option("every block")]


@dataclass(frozen=True)
class Top1Config:
    """What the accuracy of a run's own classifier depends on beside its data and its weights.

    Attributes:
        precision: precision of the forward pass, the run's own.
    """

    precision: Precision


@dataclass(frozen=True)
class PoolConfig:
    """How each image becomes one feature vector.

    Attributes:
        blocks: positions of the blocks to measure, counted from 0; negative positions count from the last block.
        pooling: `class` takes the class token, as DINO does; `mean` averages the patch tokens.
        norm: `final` applies the model's last norm to the output of every block, as DINO does; `none` applies no norm.
        batch_size: number of images in one forward pass.
        precision: precision of the backbone's forward pass.
    """

    blocks: Blocks = None
    pooling: Annotated[Pooling | None, Option("class, where there is a class token")] = None
    norm: Norm = "final"
    batch_size: int = 64
    precision: Precision = "fp32"


@dataclass(frozen=True)
class NeighbourConfig:
    """Settings of the k-NN study.

    Attributes:
        ks: numbers of neighbours to evaluate; DINO reports 10, 20, 100 and 200.
        temperature: temperature of the votes; a neighbour votes with exp(cosine similarity / temperature).
        pool: how each image becomes one feature vector.
    """

    ks: tuple[int, ...] = (10, 20)
    temperature: float = 0.07
    pool: PoolConfig = field(default_factory=PoolConfig)

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 1 or len(set(self.ks)) < len(self.ks):
            raise InputError(
                f"--ks {' '.join(map(str, self.ks))}: give different numbers of neighbours, each at least 1"
            )


@dataclass(frozen=True)
class ClassifierConfig:
    """Settings of the linear classification study.

    Attributes:
        epochs: number of passes over the training images.
        select: images that the learning rate is chosen on. `val` takes the validation images that are also reported,
            as papers do; `holdout` sets training images aside, which keeps the validation score unbiased.
        seed: seed of the heads' initial weights and of the image order.
        pool: how each image becomes one feature vector.
    """

    epochs: Annotated[int | None, Option("100")] = None
    select: Select = "val"
    seed: int = 0
    pool: PoolConfig = field(default_factory=PoolConfig)


@dataclass(frozen=True)
class ProbeConfig:
    """Settings of the linear segmentation probe.

    Attributes:
        protocol: training recipe of the heads. `paper` follows section 6.2.1, `dinov2` follows DINOv2, `patch` is a
            fast one for many blocks; `skipless.evaluators.probe.protocols` lists every number.
        blocks: positions of the blocks to probe, counted from 0; negative positions count from the last block.
        multiscale: blocks whose concatenated features get one more head, as in DINOv2; left out where the model has
            fewer blocks.
        kind: features to probe: the block's output tokens, or its queries, keys or values.
        norm: `final` applies the model's last norm to block outputs; `none` applies no norm. Without effect on q, k
            and v.
        select: images that the learning rate is chosen on. `val` takes the validation images that are also reported,
            as papers do; `holdout` sets training images aside, which keeps the validation score unbiased.
        size: side in pixels that images are resized to.
        epochs: number of passes over the training images.
        precision: precision of the backbone's forward pass.
        seed: seed of the heads' initial weights and of the image order.
    """

    protocol: Protocol = "paper"
    blocks: Blocks = None
    multiscale: tuple[int, ...] | None = MULTISCALE
    kind: Annotated[Kind, Option(aliases=("--kinds",))] = "tokens"
    norm: Norm = "final"
    select: Select = "val"
    size: Annotated[int | None, Option("the protocol's")] = None
    epochs: Annotated[int | None, Option("the protocol's")] = None
    precision: Precision = "fp32"
    seed: int = 0


@dataclass(frozen=True)
class DiscoveryConfig:
    """Settings of the object discovery studies.

    Attributes:
        method: `tokencut` or `lost`.
        blocks: positions of the blocks to search with, counted from 0; negative positions count from the last block.
            The paper reports the best block.
        kinds: features to search with: queries, keys, values or output tokens. The authors of TokenCut and LOST take
            the keys of the last block.
        norm: `final` applies the model's last norm to block outputs; `none` applies no norm. Without effect on q, k
            and v.
        size: length in pixels that the longer side of each image is resized to. Images are padded to whole patches.
        tau: TokenCut connects two tokens whose cosine similarity is above this threshold.
        k: number of lowest-degree tokens that LOST may expand its seed by.
        precision: precision of the backbone's forward pass.
    """

    method: DiscoveryMethod = "tokencut"
    blocks: Blocks = None
    kinds: tuple[Kind, ...] = ("k", "q", "v", "tokens")
    norm: Norm = "final"
    size: Annotated[int | None, Option("every image's own")] = None
    tau: float = 0.2
    k: int = 100
    precision: Precision = "fp32"


@dataclass(frozen=True)
class PictureConfig:
    """Settings of the PCA pictures.

    Attributes:
        blocks: positions of the blocks to draw, counted from 0; negative positions count from the last block. Figure 8
            shows every block, Figures 4 and 7 show the 11th of 12 (-2).
        kinds: features to draw: output tokens, queries, keys or values.
        norm: `final` applies the model's last norm to block outputs; `none` applies no norm. Without effect on q, k
            and v.
        size: side in pixels that images are resized to.
        scope: `set` fits the principal components to all images together, so that a colour means the same in each;
            `image` fits them to each image by itself.
        foreground: leave out the background. The first component splits the patches in two; the background is the side
            with the larger share of the images' border patches.
        precision: precision of the backbone's forward pass.
    """

    blocks: Blocks = None
    kinds: tuple[Kind, ...] = ("tokens",)
    norm: Norm = "final"
    size: Annotated[int | None, Option("the model's")] = None
    scope: Literal["set", "image"] = "set"
    foreground: bool = False
    precision: Precision = "fp32"


@dataclass(frozen=True)
class HeldOutConfig:
    """Settings of the study on held-out text.

    Attributes:
        context: tokens that the model sees at most.
        stride: tokens between the beginnings of two windows; fewer than the context give every token more before it,
            and take longer.
        held_out: tokens of the held-out text, up to the end of a document.
        prompt: text that the model continues for the sample.
        sample_tokens: length of the sample at most.
        temperature: divides the logits of the sample; 0 takes the most probable token.
        seed: of the sample.
    """

    context: Annotated[int | None, Option("the model's")] = None
    stride: Annotated[int | None, Option("the context")] = None
    held_out: Annotated[int | None, Option("all")] = None
    prompt: str = ""
    sample_tokens: int = 200
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what would fail, or mean nothing, after the text has been scored."""
        for name, value in (
            ("held_out", self.held_out),
            ("stride", self.stride),
            ("sample_tokens", self.sample_tokens),
        ):
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} {value}: give 1 or more")
        if not self.temperature >= 0:
            raise InputError(f"--temperature {self.temperature}: give 0 or more")


@dataclass(frozen=True)
class ZeroShotConfig:
    """Settings of the zero-shot tasks.

    Attributes:
        tasks: boolq, hellaswag, winogrande, piqa, social_iqa, with commas or blanks between; without any, the model is
            measured on held-out text.
        limit: take the first questions of each task only.
        context: tokens that the model sees at most.
        batch_size: answers that go through the model at once.
        begins: a beginning-of-text token before each question; auto leaves it to the model's tokenizer, and puts one
            before it for a run, as in training.
    """

    tasks: Annotated[tuple[str, ...], Option("none")] = ()
    limit: Annotated[int | None, Option("all")] = None
    context: Annotated[int | None, Option("the model's")] = None
    batch_size: int = 16
    begins: Literal["auto", "yes", "no"] = "auto"


@dataclass(frozen=True)
class QuantisationConfig:
    """Settings of the study of few bits.

    Attributes:
        precisions: bits of weights and activations, W8A6; W8 or A8 leaves the other as it is. Each 2 to 8.
        weights_per: what of a weight has a scale of its own.
        activations_per: what of an activation has one.
        weight_grid: whether the grid of a weight is symmetric about 0.
        activation_grid: likewise, of activations.
        static: find ranges of activations once, on training data; else each batch has its own.
        calibration: images, or windows of text, that static ranges are found on.
        ends: quantise embedding and head too.
        rotate: rotate the residual stream first, the control for models with skips.
        inputs: held-out images, or windows of text, that activations are measured on, drawn with --seed.
        batch_size: images, or windows of text, at a time; scales of whole tensors are those of a batch.
        k: number of neighbours, for a model without a classifier.
        held_out: tokens of held-out text to score.
        seed: of what is drawn.
    """

    precisions: tuple[str, ...] = ("W8A8", "W8A6", "W6A6", "W4A8", "W4A4")
    weights_per: Literal["channel", "tensor"] = "channel"
    activations_per: Literal["token", "tensor"] = "token"
    weight_grid: Literal["symmetric", "asymmetric"] = "symmetric"
    activation_grid: Literal["symmetric", "asymmetric"] = "symmetric"
    static: bool = False
    calibration: int = 128
    ends: bool = False
    rotate: Literal["none", "hadamard", "haar"] = "none"
    inputs: int = 256
    batch_size: int = 32
    k: int = 20
    held_out: Annotated[int | None, Option("all")] = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what would fail after a model has been scored."""
        for name in ("calibration", "inputs", "batch_size", "k", "held_out"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} {value}: give at least 1")
        named = tuple(name.upper() for name in self.precisions)
        for name in named:
            found = re.fullmatch(r"(?:W([2-8]))?(?:A([2-8]))?", name)
            if not name or found is None:
                raise InputError(f"--precisions {name}: give bits of weights and activations as W8A6, each 2 to 8")
        object.__setattr__(self, "precisions", tuple(dict.fromkeys(named)))
        if self.static and self.activations_per == "token":
            raise InputError("--static finds one range for all tokens: give --activations-per tensor with it")
