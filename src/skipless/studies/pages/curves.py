"""Scores by block of several models in one picture."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skipless.display.axes import from_zero, legend, level, lines_by_name
from skipless.display.drawing import inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = (6.4, 3.7)


@dataclass(frozen=True)
class Curves:
    """A picture with a line for each model.

    Attributes:
        title: what the scores are.
        scores: of each model, by block; None where there is none.
        label: of the scores' axis, with the unit.
        trivial: name and score of what needs no features.
        from_zero: whether the axis starts at 0.
    """

    title: str
    scores: Mapping[str, Mapping[str, float | None]]
    label: str
    trivial: tuple[str, float]
    from_zero: bool = False

    def svg(self) -> str:
        """The picture as inline SVG; empty if matplotlib is missing."""
        return inline_svg(self._draw, _SIZE, f"{self.title} of {', '.join(self.scores)}")

    def _draw(self, axes: "Axes") -> None:
        blocks = list(dict.fromkeys(block for scores in self.scores.values() for block in scores))
        series = {name: [scores.get(block) for block in blocks] for name, scores in self.scores.items()}
        lines_by_name(axes, blocks, series, self.label)
        level(axes, self.trivial[1], self.trivial[0])
        if self.from_zero:
            from_zero(axes)
        legend(axes, above=True)
