"""Style of figures: colours, fonts, and conversion to files or inline SVG.

Figures are drawn without pyplot, so no global state changes and no display is needed. The same data and the same
matplotlib version give the same SVG, byte for byte.
"""

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names

from skipless.choices import Row
from skipless.display.drawing import COLOURS, FONTS, STYLE
from skipless.report.labels import ROW_CLASS
from skipless.report.write_files import as_utf8

ROW_COLOUR: Mapping[Row, str] = {row: COLOURS[name] for row, name in ROW_CLASS.items()}

PRINT_FONTS = ("Helvetica Neue", "Helvetica", "Arial", "Liberation Sans", "DejaVu Sans")
_NO_METADATA = {"Date": None, "Creator": None}


def row_colour(name: str, otherwise: str) -> str:
    """The colour of a row, or another one for what is none."""
    colours: Mapping[str, str] = {**ROW_COLOUR}
    return colours.get(name, otherwise)


def style_axes(fonts: Sequence[str], salt: str | None = None) -> AbstractContextManager[None]:
    """Context with this package's matplotlib style and the given fonts; a salt makes SVG ids reproducible."""
    return mpl.rc_context(cast("Any", {**STYLE, "font.family": list(fonts), "svg.hashsalt": salt}))


def print_fonts() -> list[str]:
    """The fonts of `PRINT_FONTS` that are installed."""
    installed = set(get_font_names())
    return [font for font in PRINT_FONTS if font in installed]


def figure_svg(figure: Figure, *, background: str = "#ffffff") -> str:
    """A figure as SVG that uses the reader's font; call it within `style_axes(["DejaVu Sans"], salt)`."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", facecolor=background, metadata=_NO_METADATA)
    return with_web_fonts(buffer.getvalue())


def render(figure: Figure, name: str) -> dict[str, bytes]:
    """The contents of `NAME.svg` and `NAME.png`."""
    png = io.BytesIO()
    with style_axes(["DejaVu Sans"], f"skipless {name}"):
        svg = figure_svg(figure)
    with style_axes(print_fonts()):
        figure.savefig(png, format="png", dpi=180, facecolor="#ffffff", metadata={"Software": None})
    return {f"{name}.svg": as_utf8(svg), f"{name}.png": png.getvalue()}


def inline_svg(svg: str) -> str:
    """A standalone SVG made inline: no XML prologue, no fixed size, and colours as CSS variables."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg.replace("<svg ", '<svg aria-hidden="true" ', 1)


def with_web_fonts(svg: str) -> str:
    """Replace DejaVu Sans, which the text is laid out in, by the reader's system fonts."""
    return svg.replace("'DejaVu Sans'", FONTS)


def spread_apart(positions: Sequence[float], gap: float) -> list[float]:
    """Move labels as little as needed so that neighbours are `gap` apart; their order is kept.

    Example:
        >>> spread_apart([1.0, 5.0, 1.0], gap=1.0)
        [0.5, 5.0, 1.5]
    """
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    groups: list[list[int]] = []
    for index in order:
        groups.append([index])
        while (
            len(groups) > 1
            and _lowest_place(groups[-1], positions, gap) - _highest_place(groups[-2], positions, gap) < gap
        ):
            groups[-2:] = [groups[-2] + groups[-1]]
    placed = [0.0] * len(positions)
    for group in groups:
        for offset, index in enumerate(group):
            placed[index] = _lowest_place(group, positions, gap) + offset * gap
    return placed


def _lowest_place(group: Sequence[int], positions: Sequence[float], gap: float) -> float:
    """Position of the lowest label of a group, which is centred on the mean of the labelled positions."""
    return sum(positions[index] for index in group) / len(group) - gap * (len(group) - 1) / 2


def _highest_place(group: Sequence[int], positions: Sequence[float], gap: float) -> float:
    return _lowest_place(group, positions, gap) + gap * (len(group) - 1)
