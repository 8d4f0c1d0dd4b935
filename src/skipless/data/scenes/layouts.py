"""Writing scenes in the layouts of real data sets: VOC2012, ADE20K's benchmark, COCO, ImageNet."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from jaxtyping import Bool, UInt8

from skipless.data.dense.ade20k_classes import ADE20K_CLASSES
from skipless.data.dense.coco import COCO20K_LIST
from skipless.data.dense.coco_classes import COARSE_CLASSES, COARSE_OF, COCO_LABELS, COCO_STUFF_CLASSES, UNUSED_LABELS
from skipless.data.dense.records import IGNORE
from skipless.data.dense.voc import VOC_CLASSES
from skipless.data.scenes.compose import Scene, SceneObject
from skipless.data.scenes.files import Files, grey_png, jpeg, palette_png

# Class names of the ten kinds of objects in each layout.
OBJECT_CLASSES = {
    "voc": ("aeroplane", "bird", "bottle", "car", "cat", "chair", "dog", "horse", "person", "tvmonitor"),
    "ade20k": ("apparel", "lamp", "box", "ball", "chair", "bottle", "clock", "car", "bag", "person"),
    "coco": (
        "person",
        "car",
        "stop sign",
        "dog",
        "backpack",
        "sports ball",
        "bottle",
        "chair",
        "handbag",
        "teddy bear",
    ),
}
# Class names of the two background photos, in the layouts that label the background.
PHOTO_CLASSES = {"voc": ("background",) * 2, "ade20k": ("building", "flower"), "coco": ("building-other", "flower")}

_ANNOTATED = tuple(index for index, name in enumerate(COCO_LABELS) if name not in UNUSED_LABELS)


def voc_labels(scene: Scene) -> UInt8[np.ndarray, "h w"]:
    """Return labels as in VOC's masks, with 255 on both sides of every object's border."""
    labels = _label_map(scene, "voc", VOC_CLASSES)
    labels[_borders(scene.instances())] = IGNORE
    return labels


def ade20k_ids(scene: Scene) -> UInt8[np.ndarray, "h w"]:
    """Return ids as in the benchmark's masks: classes from 1, and 0 (other) where two photos meet."""
    ids = _label_map(scene, "ade20k", ADE20K_CLASSES) + np.uint8(1)
    ids[_seam(scene)] = 0
    return ids


def coco_train_ids(scene: Scene) -> UInt8[np.ndarray, "h w"]:
    """Return ids 0 to 170, as in mmsegmentation's conversion of COCO-Stuff; 255 where two photos meet."""
    ids = _label_map(scene, "coco", COCO_STUFF_CLASSES)
    ids[_seam(scene)] = IGNORE
    return ids


def coco_raw_ids(scene: Scene) -> UInt8[np.ndarray, "h w"]:
    """Return ids 0 to 181, as in COCO-Stuff's download."""
    table = np.full(256, IGNORE, dtype=np.uint8)
    table[: len(_ANNOTATED)] = _ANNOTATED
    return table[coco_train_ids(scene)]


def write_voc(files: Files, scenes: Mapping[str, Iterable[Scene]]) -> None:
    """Write `VOCdevkit/VOC2012`, with the lists last."""
    root, names = "VOCdevkit/VOC2012", {"train": [], "val": []}
    for split, of_split in scenes.items():
        for scene in of_split:
            name = f"2012_{len(names['train']) + len(names['val']) + 1:06}"
            names[split].append(name)
            files.put(f"{root}/JPEGImages/{name}.jpg", partial(jpeg, scene.image))
            files.put(f"{root}/SegmentationClass/{name}.png", lambda scene=scene: palette_png(voc_labels(scene)))
            files.put(f"{root}/SegmentationObject/{name}.png", lambda scene=scene: palette_png(_voc_objects(scene)))
            files.put(f"{root}/Annotations/{name}.xml", partial(_voc_annotation, scene, name))
    for kind in ("Segmentation", "Main"):
        for split, of_split in (names | {"trainval": names["train"] + names["val"]}).items():
            files.put_text(f"{root}/ImageSets/{kind}/{split}.txt", of_split)


def write_ade20k(files: Files, scenes: Mapping[str, Iterable[Scene]]) -> None:
    """Write `ADEChallengeData2016`, with the statistics of the scenes in `objectInfo150.txt`."""
    root = "ADEChallengeData2016"
    present = {split: np.zeros(len(ADE20K_CLASSES) + 1, dtype=int) for split in scenes}
    pixels = np.zeros(len(ADE20K_CLASSES) + 1)
    for split, folder in (("train", "training"), ("val", "validation")):
        for index, scene in enumerate(scenes[split], start=1):
            name, ids = f"ADE_{split}_{index:08}", ade20k_ids(scene)
            files.put(f"{root}/images/{folder}/{name}.jpg", partial(jpeg, scene.image))
            files.put(f"{root}/annotations/{folder}/{name}.png", partial(grey_png, ids))
            counts = np.bincount(ids.ravel(), minlength=len(pixels))
            present[split] += counts > 0
            pixels += counts / counts.sum()
    share = pixels / pixels.sum()
    rows = [
        f"{index}\t{share[index]:.4f}\t{present['train'][index]}\t{present['val'][index]}\t{name}"
        for index, name in enumerate(ADE20K_CLASSES, start=1)
    ]
    files.put_text(f"{root}/objectInfo150.txt", ["Idx\tRatio\tTrain\tVal\tName", *rows])


def write_coco(files: Files, scenes: Mapping[str, Iterable[Scene]]) -> None:
    """Write COCO-Stuff's masks with both sets of ids, COCO's JSON files, and the training images as in COCO20k."""
    for offset, (split, of_split) in enumerate(scenes.items()):
        images: dict[int, Scene] = {}
        part = f"{split}2017"
        for index, scene in enumerate(of_split):
            number = 9 + 25 * index + 5 * offset  # ids with gaps and distinct between splits, as in COCO
            image = cache(partial(jpeg, scene.image))
            files.put(f"images/{part}/{number:012}.jpg", image)
            files.put(
                f"annotations/{part}/{number:012}_labelTrainIds.png",
                lambda scene=scene: grey_png(coco_train_ids(scene)),
            )
            files.put(f"stuffthingmaps/{part}/{number:012}.png", lambda scene=scene: grey_png(coco_raw_ids(scene)))
            if split == "train":
                files.put(f"images/train2014/COCO_train2014_{number:012}.jpg", image)
            images[number] = Scene(scene.image[:0], scene.textures[:0], scene.objects)  # only what the JSON file needs
        files.put_json(f"annotations/instances_{part}.json", _instances(images, "{:012}.jpg"))
        if split == "train":
            names = "COCO_train2014_{:012}.jpg"
            files.put_json("annotations/instances_train2014.json", _instances(images, names))
            files.put_text(COCO20K_LIST, [f"train2014/{names.format(number)}" for number in images])


def write_imagenet(files: Files, scenes: Mapping[str, Iterable[Scene]], classes: Sequence[str]) -> None:
    """Write `train/CLASS/*.jpg` and `val/CLASS/*.jpg`, by the class of the largest object."""
    for split, of_split in scenes.items():
        for index, scene in enumerate(of_split):
            folder = classes[scene.main].replace("/", "-").replace(" ", "-")
            files.put(f"{split}/{folder}/{split}_{index:08}.jpg", partial(jpeg, scene.image))


def encode_rle(mask: Bool[np.ndarray, "h w"]) -> dict[str, list[int]]:
    """Encode a mask as COCO's uncompressed run-length encoding: along columns, starting with a run of zeros.

    Example:
        >>> encode_rle(np.array([[True, False], [True, True]]))
        {'counts': [0, 2, 1, 1], 'size': [2, 2]}
    """
    pixels = mask.ravel(order="F")
    ends = np.flatnonzero(np.diff(pixels)) + 1
    runs = np.diff(np.concatenate([[0], ends, [pixels.size]])).tolist()
    return {"counts": [0, *runs] if pixels[0] else runs, "size": list(mask.shape)}


def _label_map(scene: Scene, layout: str, classes: Sequence[str]) -> UInt8[np.ndarray, "h w"]:
    labels = np.array([classes.index(name) for name in PHOTO_CLASSES[layout]], dtype=np.uint8)[scene.textures]
    for shown in scene.objects:
        labels[shown.mask] = classes.index(OBJECT_CLASSES[layout][shown.label])
    return labels


def _borders(numbers: UInt8[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Mark the pixels with a different neighbour above, below, left or right."""
    borders = np.zeros(numbers.shape, dtype=bool)
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differ = numbers[one] != numbers[other]
        borders[one] |= differ
        borders[other] |= differ
    return borders


def _seam(scene: Scene) -> Bool[np.ndarray, "h w"]:
    return _borders(scene.textures) & (scene.instances() == 0)


def _voc_objects(scene: Scene) -> UInt8[np.ndarray, "h w"]:
    numbers = scene.instances()
    return np.where(_borders(numbers), np.uint8(IGNORE), numbers)


def _voc_annotation(scene: Scene, name: str) -> bytes:
    height, width = scene.textures.shape
    root = ET.Element("annotation")
    _add(root, folder="VOC2012", filename=f"{name}.jpg")
    _add(ET.SubElement(root, "source"), database="scenes", annotation="skipless data scenes", image="composed")
    _add(ET.SubElement(root, "size"), width=width, height=height, depth=3)
    _add(root, segmented=1)
    for shown in scene.objects:
        node = ET.SubElement(root, "object")
        _add(node, name=OBJECT_CLASSES["voc"][shown.label], pose="Unspecified")
        _add(node, truncated=int(shown.truncated), difficult=int(shown.difficult), occluded=int(shown.occluded))
        xmin, ymin, xmax, ymax = shown.box
        _add(ET.SubElement(node, "bndbox"), xmin=xmin + 1, ymin=ymin + 1, xmax=xmax, ymax=ymax)
    ET.indent(root, "\t")
    return ET.tostring(root) + b"\n"


def _add(parent: ET.Element, **values: str | int) -> None:
    for name, value in values.items():
        ET.SubElement(parent, name).text = str(value)


def _instances(images: Mapping[int, Scene], file_name: str) -> dict[str, Any]:
    annotations = [
        _instance(shown, number, identity)
        for identity, (number, shown) in enumerate(
            ((number, shown) for number, scene in images.items() for shown in scene.objects), start=1
        )
    ]
    return {
        "info": {"description": "skipless data scenes", "version": "1.0", "year": 2017},
        "licenses": [{"id": 1, "name": "as scikit-learn's sample images", "url": ""}],
        "images": [
            {
                "license": 1,
                "file_name": file_name.format(number),
                "height": scene.objects[0].mask.shape[0],
                "width": scene.objects[0].mask.shape[1],
                "id": number,
            }
            for number, scene in images.items()
        ],
        "annotations": annotations,
        "categories": [
            {"supercategory": COARSE_CLASSES[COARSE_OF[i]].removesuffix("-things"), "id": i + 1, "name": COCO_LABELS[i]}
            for i in _ANNOTATED
            if i < 91  # things
        ],
    }


def _instance(shown: SceneObject, image: int, identity: int) -> dict[str, Any]:
    xmin, ymin, xmax, ymax = shown.box
    return {
        "segmentation": encode_rle(shown.mask),
        "area": float(shown.mask.sum()),
        "iscrowd": 0,
        "image_id": image,
        "bbox": [float(side) for side in (xmin, ymin, xmax - xmin, ymax - ymin)],
        "category_id": COCO_LABELS.index(OBJECT_CLASSES["coco"][shown.label]) + 1,
        "id": identity,
    }
