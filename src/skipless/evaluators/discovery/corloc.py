"""CorLoc: in how many images the one predicted box meets an object (Deselaers et al. 2010)."""

from collections.abc import Sequence
from dataclasses import dataclass

from skipless.errors import InputError


@dataclass(frozen=True)
class CorLoc:
    """How often a prediction was right.

    Attributes:
        percent: share of the images with a hit.
        hits: images where some true box has an IoU of at least `threshold` with the predicted one.
        n: images, those without a true box included.
        without_boxes: images without a true box; each counts as a miss.
        threshold: the IoU that makes a hit.
        best: for each image the largest IoU with a true box, 0 without one.
    """

    percent: float
    hits: int
    n: int
    without_boxes: int
    threshold: float
    best: tuple[float, ...]


def corloc(
    boxes_predicted: Sequence[Sequence[float]],
    boxes_true: Sequence[Sequence[Sequence[float]]],
    *,
    threshold: float = 0.5,
) -> CorLoc:
    """Count the images whose predicted box has an IoU of at least one half with any true one, as LOST and TokenCut do.

    Boxes are (xmin, ymin, xmax, ymax) with the maximum excluded: areas are differences of coordinates, without the + 1
    of the VOC development kit. VOC's annotations count pixels from 1 and include the last, so the original takes 1 from
    their xmin and ymin alone. An IoU of exactly `threshold` is a hit.

    Args:
        boxes_predicted: one box an image.
        boxes_true: for each image its true boxes, which may be none.
        threshold: smallest IoU of a hit.

    Raises:
        InputError: if the two differ in length, are empty, a predicted box has no area, or a true one is reversed. (A
            true one without area, as COCO's annotations narrower than a pixel become, meets nothing.)

    Example:
        >>> result = corloc([(0, 0, 10, 10), (0, 0, 4, 4)], [[(20, 20, 30, 30), (0, 0, 10, 20)], [(0, 0, 10, 10)]])
        >>> result.percent, result.hits, result.n, result.best
        (50.0, 1, 2, (0.5, 0.16))
    """
    if len(boxes_predicted) != len(boxes_true) or not len(boxes_true):
        raise InputError(
            f"{len(boxes_predicted)} predicted boxes for {len(boxes_true)} images; give one box for each image, and at "
            "least one image"
        )
    best = []
    for image, (predicted, true) in enumerate(zip(boxes_predicted, boxes_true, strict=True)):
        if len(predicted) != 4 or not (predicted[0] < predicted[2] and predicted[1] < predicted[3]):
            raise InputError(
                f"image {image} has the box {tuple(predicted)}; give (xmin, ymin, xmax, ymax) with an area"
            )
        for box in true:
            if len(box) != 4 or not (box[0] <= box[2] and box[1] <= box[3]):
                raise InputError(f"image {image} has the true box {tuple(box)}; give (xmin, ymin, xmax, ymax)")
        best.append(max((float(iou(predicted, box)) for box in true), default=0.0))
    hits = sum(overlap >= threshold for overlap in best)
    return CorLoc(
        percent=100 * hits / len(best),
        hits=hits,
        n=len(best),
        without_boxes=sum(len(true) == 0 for true in boxes_true),
        threshold=threshold,
        best=tuple(best),
    )


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Give the area of the intersection of two boxes over that of their union.

    Example:
        >>> iou((0, 0, 2, 2), (1, 0, 3, 2))
        0.3333333333333333
    """
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union
