"""The scales of section 6.2: which data is evaluated on, how, and where it lies."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skipless.data.dense import BoxName, SegmentationName
from skipless.data.scenes import Layout, write_scenes
from skipless.errors import InputError
from skipless.experiments.dense.paper import BOXES, MASKS
from skipless.experiments.dense.recipe import DinoScale
from skipless.experiments.dense.what import DenseWhat, kind_of
from skipless.studies import DiscoveryConfig, ProbeConfig

Folders = Mapping[str, Path]


@dataclass(frozen=True)
class Masks:
    """A set to probe on: our name of it, the key of its folder, and how many training images are drawn."""

    name: SegmentationName
    folder: str
    sample: int | None = None


@dataclass(frozen=True)
class Boxes:
    """A set to look for objects in: our name of it, the key of its folder, and how many images are drawn."""

    name: BoxName
    folder: str
    sample: int | None = None


@dataclass(frozen=True)
class DenseScale:
    """What is evaluated at a scale, and how; what is pretrained is for the recipe `dino` to say.

    Attributes:
        name: of the recipe's scale.
        masks: sets of Tables 2 and 3, by the paper's name.
        boxes: sets of Figure 3 and Table 4, by the paper's name.
        probe: how features are probed; without a size at scale `scenes`, at that of the recipe's images.
        discovery: how objects are looked for.
        points: of Figure 2, evenly spread over the run's epochs.
        needs: option of the command and what is to be given there, by the key of a folder.
    """

    name: DinoScale
    masks: Mapping[str, Masks]
    boxes: Mapping[str, Boxes]
    probe: ProbeConfig
    discovery: DiscoveryConfig
    points: int
    needs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SceneSet:
    """A folder of generated scenes: the arguments of `write_scenes`."""

    layout: Layout
    train: int
    val: int
    seed: int
    more: Mapping[str, Any] = field(default_factory=dict)


def _named(names: tuple[str, ...], *chosen: Any) -> dict[str, Any]:
    return dict(zip(names, chosen, strict=True))


# Scenes of different seeds share no picture. What is pretrained on has one large object, as ImageNet's photos do; what
# is evaluated on has smaller ones.
_LARGE = {"at_most": 1, "smallest": 0.8, "largest": 1.0, "colours": "class"}
_SMALLER = {"at_most": 2, "smallest": 0.45, "largest": 0.75, "colours": "class"}
SCENES: dict[str, SceneSet] = {
    "imagenet": SceneSet("imagenet", 8000, 1000, 0, _LARGE),
    "voc": SceneSet("voc", 300, 150, 1, _SMALLER),
    "coco": SceneSet("coco", 300, 150, 2, _SMALLER),
    "ade20k": SceneSet("ade20k", 300, 150, 3, _SMALLER),
}

# COCO-Stuff by its 27 coarse classes: of the 171 scenes have twelve, and heads for all take three times as long.
_SCENES = DenseScale(
    "scenes",
    masks=_named(MASKS, Masks("voc", "voc"), Masks("coco-stuff-27", "coco"), Masks("ade20k", "ade20k")),
    boxes=_named(BOXES, Boxes("voc12", "voc", 200), Boxes("coco20k", "coco", 200)),
    probe=ProbeConfig(protocol="patch", epochs=10),
    discovery=DiscoveryConfig(),
    points=3,
)

# Section 6.2.1: 3,000 random training images of ADE20K and COCO-Stuff, 30 epochs.
_VIT_SMALL = DenseScale(
    "vit_small",
    masks=_named(MASKS, Masks("voc", "voc"), Masks("coco-stuff", "coco", 3000), Masks("ade20k", "ade20k", 3000)),
    boxes=_named(BOXES, Boxes("voc12", "voc"), Boxes("coco20k", "coco20k")),
    probe=ProbeConfig(protocol="paper"),
    discovery=DiscoveryConfig(),
    points=5,
    needs={
        "imagenet": "--data IMAGENET (train/CLASS, val/CLASS)",
        "voc": "--voc DIR (holds VOCdevkit/VOC2012)",
        "coco": "--coco DIR (train2017, val2017, stuffthingmaps)",
        "coco20k": "--coco20k DIR (train2014, annotations, the list of COCO20k; --coco by default)",
        "ade20k": "--ade20k DIR (holds ADEChallengeData2016)",
    },
)

SCALES: dict[DinoScale, DenseScale] = {"scenes": _SCENES, "vit_small": _VIT_SMALL}


def folders_needed(what: DenseWhat, scale: DenseScale) -> tuple[str, ...]:
    """Keys of the folders behind a table or figure; pretraining's comes first."""
    evaluated = {
        "masks": [chosen.folder for chosen in scale.masks.values()],
        "boxes": [chosen.folder for chosen in scale.boxes.values()],
        "pictures": ["coco"],
        "": [],
    }[kind_of(what)]
    return ("imagenet", *dict.fromkeys(evaluated))


def find_folders(what: DenseWhat, scale: DenseScale, given: Mapping[str, Path | None], out: Path, size: int) -> Folders:
    """The data's folders: those that were given, and at scale `scenes` scenes that are written into `out/data`.

    Raises:
        InputError: that names all that is missing.
    """
    found = {key: path.expanduser() for key, path in given.items() if path is not None}
    if scale.name == "vit_small" and "coco" in found:
        found.setdefault("coco20k", found["coco"])
    wanted = folders_needed(what, scale)
    absent = [f"{key}: {str(found[key])!r} is no folder" for key in wanted if key in found and not _there(found[key])]
    if scale.name == "vit_small":
        absent += [scale.needs[key] for key in wanted if key not in found]
    if absent:
        raise InputError("\n  ".join([f"{what} at scale {scale.name} needs data; give", *absent]))
    for key in wanted:
        if key not in found:
            found[key] = (out / "data" / key).resolve()
            plan = SCENES[key]
            write_scenes(
                found[key], plan.layout, train=plan.train, val=plan.val, size=size, seed=plan.seed, **plan.more
            )
    return {key: found[key] for key in wanted}


def _there(path: Path) -> bool:
    return path.is_dir() or ".tar" in path.name  # shards, or a pattern of them
