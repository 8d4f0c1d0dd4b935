"""A picture of a dense probe's predictions: image, ground truth, prediction."""

from collections.abc import Sequence

from PIL import Image

from skipless.evaluators.pictures.grids import mask_legend, mask_picture, picture_grid
from skipless.evaluators.probe.dense_set import DenseSet
from skipless.evaluators.probe.linear_probe import TrainedProbe


def prediction_picture(
    probe: TrainedProbe,
    data: DenseSet,
    *,
    blocks: Sequence[tuple[int, ...]] | None = None,
    images: int = 6,
    cell: int = 160,
) -> Image.Image | None:
    """Draw the first readable images beside their masks and the predictions, with a legend of the classes.

    Args:
        probe: returned by `linear_probe`.
        data: images, masks and features.
        blocks: sets of blocks, each of which gets a column; by default the best set.
        images: number of rows.
        cell: side of a cell in pixels.

    Returns:
        The picture (`save_png` writes it), or None if every head diverged or no image can be read.
    """
    chosen = [probe.result.best.blocks] if blocks is None else list(blocks)
    chosen = [blocks for blocks in chosen if blocks in probe.heads]
    classes, ignore = data.data.classes, data.data.ignore
    rows, names, occurring = [], [], set[int]()
    for index in data.usable.tolist():
        if len(rows) == images or not chosen:
            break
        mask = data.mask(index)
        if mask is None:
            continue
        size = (mask.shape[0], mask.shape[1])
        found = [probe.predict(data, index, blocks, size) for blocks in chosen]
        masks = [mask_picture(mask, len(classes), ignore), *(mask_picture(each, len(classes)) for each in found)]
        whole = [picture.resize((cell, cell), Image.Resampling.NEAREST) for picture in masks]  # colours must not mix
        rows.append([data.data.load(index)[0], *whole])
        names.append(data.name(index))
        occurring.update(*(each.unique().tolist() for each in (mask, *found)))
    if not rows:
        return None
    captions = ["image", "truth", *("prediction, block " + "+".join(map(str, blocks)) for blocks in chosen)]
    legend = mask_legend(occurring, classes, ignore)
    return picture_grid(rows, cell=(cell, cell), columns=captions, names=names, legend=legend)
