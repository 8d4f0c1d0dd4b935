"""steps_per_epoch: the number of full batches in a training set."""

from skipless.errors import InputError


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Count the full batches of an epoch. The remaining samples are dropped; they are others in every epoch.

    Raises:
        InputError: if there is no full batch.

    Example:
        >>> steps_per_epoch(1397, 32)
        43
    """
    if not 0 < batch_size <= samples:
        raise InputError(f"batch_size {batch_size} does not fit a training set of {samples}; use 1 to {samples}")
    return samples // batch_size
