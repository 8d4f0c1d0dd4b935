"""The studies of `skipless eval`, by name; none is imported before it is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from skipless.choices import BoxName, SegmentationName
from skipless.options import Option
from skipless.studies.config import (
    ClassifierConfig,
    DiscoveryConfig,
    NeighbourConfig,
    PictureConfig,
    ProbeConfig,
)


@dataclass(frozen=True, kw_only=True)
class _Own:
    """Data that may be the run's own.

    Attributes:
        data: digits, fashion, or a folder with train/CLASS and val/CLASS.
    """

    data: Annotated[str | None, Option("the run's own", group="data")] = None


@dataclass(frozen=True, kw_only=True)
class _Masks:
    """A folder of images with masks.

    Attributes:
        data: the folder.
        dataset: what lies in it.
        sample: use so many training images, drawn by --seed.
    """

    data: Annotated[str | None, Option("required", group="data")] = None
    dataset: Annotated[SegmentationName | None, Option("found out", group="data")] = None
    sample: Annotated[int | None, Option("all", group="data")] = None


@dataclass(frozen=True, kw_only=True)
class _Boxes:
    """A folder of images with boxes.

    Attributes:
        data: the folder.
        dataset: what lies in it.
        sample: use so many images, drawn by --seed.
    """

    data: Annotated[str | None, Option("required", group="data")] = None
    dataset: Annotated[BoxName | None, Option("found out", group="data")] = None
    sample: Annotated[int | None, Option("all", group="data")] = None


@dataclass(frozen=True, kw_only=True)
class _Pictures:
    """A folder of images.

    Attributes:
        data: the folder.
        sample: show so many images, the first by name.
        versus: other models, beside this one in the picture.
    """

    data: Annotated[str | None, Option("required", group="data")] = None
    sample: Annotated[int, Option(group="data")] = 8
    versus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Study:
    """A study: what it can be asked for, and where it is made.

    Attributes:
        title: what it measures, in a line.
        config: dataclass of how; its fields are options.
        data: dataclass of on what; likewise.
        compare: `module:function` that takes a `Comparison` and the config, and gives text.
        fixed: fields of the config that the study's name decides, and those that change nothing in it.
        untrained: whether a run's untrained model is measured beside it.
        examples: command lines that work as they stand.
    """

    title: str
    config: type
    data: type
    compare: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    untrained: bool = True
    examples: tuple[str, ...] = ()


_COMPARISON = "skipless.studies.comparison"

STUDIES: Mapping[str, Study] = {
    "linear-probe": Study(
        "segmentation by linear heads on frozen features (Table 2)",
        ProbeConfig,
        _Masks,
        f"{_COMPARISON}:compare_probes",
        examples=(
            "skipless eval runs/d1 linear-probe --data voc2012/",
            "skipless eval vit_small_patch16_224 linear-probe --pretrained --data ade20k/ --protocol dinov2",
        ),
    ),
    "tokencut": Study(
        "object discovery by TokenCut (Figure 3)",
        DiscoveryConfig,
        _Boxes,
        f"{_COMPARISON}:compare_discoveries",
        {"method": "tokencut", "k": DiscoveryConfig.k},
        examples=(
            "skipless eval runs/d1 tokencut --data voc2012/",
            "skipless eval vit_small_patch16_224 tokencut --pretrained --data voc2012/",
        ),
    ),
    "lost": Study(
        "object discovery by LOST",
        DiscoveryConfig,
        _Boxes,
        f"{_COMPARISON}:compare_discoveries",
        {"method": "lost", "tau": DiscoveryConfig.tau},
        examples=(
            "skipless eval runs/d1 lost --data voc2012/",
            "skipless eval runs/d1 lost --data coco20k/ --blocks -1 --kinds k",
        ),
    ),
    "knn": Study(
        "classification by nearest neighbours",
        NeighbourConfig,
        _Own,
        f"{_COMPARISON}:compare_neighbours",
        examples=(
            "skipless eval runs/s1 knn",
            "skipless eval runs/d1 knn --data imagenet/ --ks 10 20",
        ),
    ),
    "linear-classifier": Study(
        "classification by linear heads on frozen features",
        ClassifierConfig,
        _Own,
        f"{_COMPARISON}:compare_classifiers",
        examples=(
            "skipless eval runs/s1 linear-classifier",
            "skipless eval runs/d1 linear-classifier --data imagenet/ --select holdout",
        ),
    ),
    "pca": Study(
        "features as colours (Figures 4, 7 and 8)",
        PictureConfig,
        _Pictures,
        f"{_COMPARISON}:compare_pictures",
        untrained=False,
        examples=(
            "skipless eval runs/d1 pca --data photos/",
            "skipless eval runs/d1 pca --data photos/ --versus runs/d2",
        ),
    ),
}
