"""What reports say of how far their numbers can be trusted, where it is the same in several of them."""

from collections.abc import Iterable, Sequence

ONE_THREAD = "Every run had one thread: the numbers repeat exactly on one kind of machine."
"""For reports whose runs are made by a sweep on the CPU."""


def held_out(images: int) -> str:
    """What accuracies are of.

    Args:
        images: their number.
    """
    return f"Accuracies are on {images} images that no run was trained on; the last epoch counts."


def image_noise(percents: Iterable[float], images: int) -> list[str]:
    """How far accuracies are uncertain by the choice of images alone; nothing where there are none.

    Args:
        percents: accuracies.
        images: that they are on.

    Example:
        >>> image_noise([50.0, 97.5], 400)
        ['400 images alone leave a standard error of up to 2.5 points on an accuracy.']
    """
    errors = [(percent * (100 - percent) / images) ** 0.5 for percent in percents]
    if not errors:
        return []
    return [f"{images} images alone leave a standard error of up to {max(errors):.1f} points on an accuracy."]


def without_spread(finished: Sequence[int]) -> list[str]:
    """That cells of one run have no spread, where there is such a cell.

    Args:
        finished: runs of each cell that have a result.

    Example:
        >>> without_spread([3, 1]), without_spread([3, 3])
        (['A cell of one seed has no spread; --seeds 3 shows it.'], [])
    """
    return ["A cell of one seed has no spread; --seeds 3 shows it."] if min(finished, default=0) < 2 else []
