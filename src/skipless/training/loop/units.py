"""What a log counts a second: images, or what the training set says of itself."""

from typing import Any, NamedTuple, Protocol, runtime_checkable


@runtime_checkable
class CountedInUnits(Protocol):
    """A training set whose samples are many of something, such as windows of tokens.

    Attributes:
        unit: what is counted, in the plural.
        units_per_sample: how many of them a sample is.
    """

    @property
    def unit(self) -> str:
        """What is counted, in the plural."""
        ...

    @property
    def units_per_sample(self) -> int:
        """How many of them a sample is."""
        ...


class Unit(NamedTuple):
    """What is counted, and how many of them a sample is."""

    name: str = "images"
    of_a_sample: int = 1

    @property
    def rate(self) -> str:
        """The name of the rate in a log.

        Example:
            >>> Unit("tokens", 128).rate
            'tokens_per_second'
        """
        return f"{self.name}_per_second"


def unit_of(dataset: Any) -> Unit:
    """The unit of a training set: its own, or images."""
    return Unit(dataset.unit, dataset.units_per_sample) if isinstance(dataset, CountedInUnits) else Unit()
