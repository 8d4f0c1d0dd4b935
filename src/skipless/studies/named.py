"""The studies of `skipless eval`, by name. A study's code is imported when it runs, so this module needs no torch."""

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
class _RunData:
    """Classified images, by default those that the run was trained on.

    Attributes:
        data: `digits`, `fashion`, or a folder with train/CLASS and val/CLASS.
    """

    data: Annotated[str | None, Option("the run's own", group="data")] = None


@dataclass(frozen=True, kw_only=True)
class _MaskData:
    """A folder of images with segmentation masks.

    Attributes:
        data: folder of the data set.
        dataset: name of the data set, for a folder that holds several.
        sample: number of training images to use, drawn with --seed.
    """

    data: Annotated[str | None, Option("required", group="data")] = None
    dataset: Annotated[SegmentationName | None, Option("found out", group="data")] = None
    sample: Annotated[int | None, Option("all", group="data")] = None


@dataclass(frozen=True, kw_only=True)
class _BoxData:
    """A folder of images with bounding boxes.

    Attributes:
        data: folder of the data set.
        dataset: name of the data set, for a folder that holds several.
        sample: number of images to use, drawn with --seed.
    """

    data: Annotated[str | None, Option("required", group="data")] = None
    dataset: Annotated[BoxName | None, Option("found out", group="data")] = None
    sample: Annotated[int | None, Option("all", group="data")] = None


@dataclass(frozen=True, kw_only=True)
class _PictureData:
    """A folder of images.

    Attributes:
        data: folder of images; subfolders are searched, too.
        sample: number of images to draw, the first ones by file name.
        versus: other models (run folders, timm names or weight files) to draw beside this one.
    """

    data: Annotated[str | None, Option("required", group="data")] = None
    sample: Annotated[int, Option(group="data")] = 8
    versus: Annotated[tuple[str, ...], Option("none")] = ()


@dataclass(frozen=True)
class Study:
    """A study of `skipless eval`: its options, and the function that runs it.

    Attributes:
        title: one line that says what the study measures.
        config: dataclass of the study's settings; each field is a command-line option.
        data: dataclass that selects the data; each field is a command-line option, too.
        compare: `module:function` that takes a `Comparison` and the config, and yields what is told
            of each model and of all of them.
        fixed: config fields that are no options of this study, with their values: the study's name decides them, or
            they have no effect in it.
        untrained: whether a run's untrained model is measured beside the trained one.
        examples: example command lines for the help text.
    """

    title: str
    config: type
    data: type
    compare: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    untrained: bool = True
    examples: tuple[str, ...] = ()


_COMPARISON = "skipless.studies.comparison.compare"

STUDIES: Mapping[str, Study] = {
    "linear-probe": Study(
        "segmentation by linear heads on frozen features (Table 2)",
        ProbeConfig,
        _MaskData,
        f"{_COMPARISON}:compare_probes",
        examples=(
            "skipless eval runs/d1 linear-probe --data voc2012/",
            "skipless eval vit_small_patch16_224 linear-probe --pretrained --data ade20k/ --protocol dinov2",
        ),
    ),
    "tokencut": Study(
        "object discovery by TokenCut (Figure 3)",
        DiscoveryConfig,
        _BoxData,
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
        _BoxData,
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
        _RunData,
        f"{_COMPARISON}:compare_neighbours",
        examples=(
            "skipless eval runs/s1 knn",
            "skipless eval runs/d1 knn --data imagenet/ --ks 10 20",
        ),
    ),
    "linear-classifier": Study(
        "classification by linear heads on frozen features",
        ClassifierConfig,
        _RunData,
        f"{_COMPARISON}:compare_classifiers",
        examples=(
            "skipless eval runs/s1 linear-classifier",
            "skipless eval runs/d1 linear-classifier --data imagenet/ --select holdout",
        ),
    ),
    "pca": Study(
        "features as colours (Figures 4, 7 and 8)",
        PictureConfig,
        _PictureData,
        f"{_COMPARISON}:compare_pictures",
        untrained=False,
        examples=(
            "skipless eval runs/d1 pca --data photos/",
            "skipless eval runs/d1 pca --data photos/ --versus runs/d2",
        ),
    ),
}
