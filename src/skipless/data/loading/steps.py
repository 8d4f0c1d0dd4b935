"""How many steps an epoch has."""

from skipless.errors import InputError


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Count the full batches of an epoch; the rest of the permutation is left out, another rest in every epoch.

    Raises:
        InputError: if there is not one full batch.

    Example:
        >>> steps_per_epoch(1397, 32)
        43
    """
    if not 0 < batch_size <= samples:
        raise InputError(f"batch_size {batch_size} does not fit a training set of {samples}; use 1 to {samples}")
    return samples // batch_size
