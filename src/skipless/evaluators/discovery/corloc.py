"""CorLoc: the percentage of images whose predicted box matches an object (Deselaers et al. 2010)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skipless.display import Record, Table
from skipless.display.axes import ruled
from skipless.display.drawing import COLOURS
from skipless.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False)
class CorLoc(Record):
    """The CorLoc score of a set of images.

    Attributes:
        percent: percentage of the images with a hit.
        hits: number of images in which the predicted box has an IoU of at least `threshold` with some true box.
        n: number of images, including those without a true box.
        without_boxes: number of images without a true box; each counts as a miss.
        threshold: the smallest IoU of a hit.
        best: for each image, the largest IoU with a true box; 0 if there is none.
    """

    percent: float
    hits: int
    n: int
    without_boxes: int
    threshold: float
    best: tuple[float, ...]

    def _summary(self) -> str:
        return f"{self.percent:.1f} %, {self.hits} of {self.n} images with an IoU of at least {self.threshold:g}"

    def tables(self) -> tuple[Table, ...]:
        """The score, and what it is of."""
        row = (f"{self.percent:.1f}", str(self.hits), str(self.n), str(self.without_boxes))
        caption = f"a hit has an IoU of at least {self.threshold:g} with some true box"
        return (Table(("CorLoc, %", "hits", "images", "without boxes"), [row], caption, align="rrrr"),)

    def _draw(self, axes: "Axes") -> None:
        axes.hist(self.best, bins=20, range=(0, 1), color=COLOURS["init"])
        axes.axvline(self.threshold, color=COLOURS["muted"], linewidth=1, linestyle=(0, (4, 3)))
        axes.set_xlabel("largest IoU with a true box", loc="right", labelpad=2)
        axes.set_ylabel("images")
        ruled(axes)


def corloc(
    boxes_predicted: Sequence[Sequence[float]],
    boxes_true: Sequence[Sequence[Sequence[float]]],
    *,
    threshold: float = 0.5,
) -> CorLoc:
    """The percentage of images whose predicted box has an IoU of at least `threshold` with any true box.

    The conventions are those of LOST and TokenCut. Boxes are (xmin, ymin, xmax, ymax) with the maximum excluded, so
    areas are differences of coordinates, without the + 1 of the VOC development kit. VOC's annotations count pixels
    from 1 and include the last one, so the original code subtracts 1 from xmin and ymin only. An IoU of exactly
    `threshold` is a hit.

    Args:
        boxes_predicted: one box for each image.
        boxes_true: for each image, any number of true boxes.
        threshold: smallest IoU of a hit.

    Raises:
        InputError: if the two differ in length, are empty, a predicted box has no area, or a true box is reversed.
            A true box may have no area, as annotations of COCO that are narrower than a pixel; it never gives a hit.

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
    """Intersection over union of two boxes.

    Example:
        >>> iou((0, 0, 2, 2), (1, 0, 3, 2))
        0.3333333333333333
    """
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union
