"""Data sets with masks or boxes for every image, in the layouts in which they are published."""

from skipless.data.dense.ade20k import ade20k_full_segmentation, ade20k_segmentation
from skipless.data.dense.coco import coco_boxes, coco_stuff_segmentation
from skipless.data.dense.named import BoxName, SegmentationName, load_boxes, load_segmentation
from skipless.data.dense.preview import colour_labels, contact_sheet
from skipless.data.dense.reading import LayoutMissing, UnreadableItem
from skipless.data.dense.records import (
    IGNORE,
    BoxData,
    BoxItem,
    ObjectBoxes,
    SegmentationData,
    SegmentationItem,
)
from skipless.data.dense.voc import VOC_CLASSES, voc_boxes, voc_segmentation

__all__ = [
    "IGNORE",
    "VOC_CLASSES",
    "BoxData",
    "BoxItem",
    "BoxName",
    "LayoutMissing",
    "ObjectBoxes",
    "SegmentationData",
    "SegmentationItem",
    "SegmentationName",
    "UnreadableItem",
    "ade20k_full_segmentation",
    "ade20k_segmentation",
    "coco_boxes",
    "coco_stuff_segmentation",
    "colour_labels",
    "contact_sheet",
    "load_boxes",
    "load_segmentation",
    "voc_boxes",
    "voc_segmentation",
]
