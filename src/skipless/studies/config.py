"""What each study can be asked for. Nothing here needs torch."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from skipless.choices import MULTISCALE, Kind, Norm, Pooling, Precision, Protocol, Select
from skipless.errors import InputError
from skipless.options import Option

DiscoveryMethod = Literal["tokencut", "lost"]
Blocks = Annotated[tuple[int, ...] | None, Option("every block")]


@dataclass(frozen=True)
class PoolConfig:
    """What stands for an image.

    Attributes:
        blocks: from 0, negative ones from the last; None is every block.
        pooling: the class token, as DINO does, or the mean of the patches; None is the class token where there is one.
        norm: with the model's last norm on every block, as DINO does, or without.
        batch_size: images at a time.
        precision: of the backbone.
    """

    blocks: Blocks = None
    pooling: Annotated[Pooling | None, Option("class, where there is a class token")] = None
    norm: Norm = "final"
    batch_size: int = 64
    precision: Precision = "fp32"


@dataclass(frozen=True)
class NeighbourConfig:
    """Which vectors vote, and how.

    Attributes:
        ks: numbers of neighbours; 10, 20, 100 and 200 are DINO's.
        temperature: of the votes.
        pool: what stands for an image.
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
    """Which vectors are classified, and how.

    Attributes:
        epochs: passes over the training images; None is the protocol's 100.
        select: what the learning rate is chosen on: `val`, as papers do, or `holdout`, which is honest.
        seed: of heads and order.
        pool: what stands for an image.
    """

    epochs: Annotated[int | None, Option("100")] = None
    select: Select = "val"
    seed: int = 0
    pool: PoolConfig = field(default_factory=PoolConfig)


@dataclass(frozen=True)
class ProbeConfig:
    """Which features are probed, and how.

    Attributes:
        protocol: `paper`, `dinov2` or `patch`; see `skipless.evaluators.probe.protocols`.
        blocks: from 0, negative ones from the last; None is every block.
        multiscale: blocks whose features are also used side by side; None for none. By default the last four, where
            there are four.
        kind: of features.
        norm: for block outputs alone: with the model's last norm, or without.
        select: what the learning rate is chosen on, `val` as papers do, or `holdout`, which is honest.
        size: side that pictures are resized to, instead of the protocol's.
        epochs: length, instead of the protocol's.
        precision: of the backbone.
        seed: of heads and order.
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
    """How objects are looked for.

    Attributes:
        method: `tokencut` or `lost`.
        blocks: from 0, negative ones from the last; None is every block, as the paper reports the best.
        kinds: of features; TokenCut's and LOST's authors take the keys of the last block.
        norm: for block outputs alone: with the model's last norm, or without.
        size: the longer side becomes this many pixels; None, as the authors do, keeps every image's own size and
            pads it to whole patches.
        tau: TokenCut's threshold of similarity.
        k: LOST's number of seeds to expand over.
        precision: of the backbone.
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
    """What is drawn.

    Attributes:
        blocks: from 0, negative ones from the last; None is every block (Figure 8). Figures 4 and 7 show the 11th of
            12: -2.
        kinds: of features.
        norm: for block outputs alone: with the model's last norm, or without.
        size: side that images are resized to; None is what the model was built for.
        scope: components of the whole set of images, or of each by itself.
        foreground: leave out the side of the first component that lies on the border.
        precision: of the backbone.
    """

    blocks: Blocks = None
    kinds: tuple[Kind, ...] = ("tokens",)
    norm: Norm = "final"
    size: Annotated[int | None, Option("the model's")] = None
    scope: Literal["set", "image"] = "set"
    foreground: bool = False
    precision: Precision = "fp32"
