"""Colours and style of all pictures, axes for `plot`, and inline SVG. matplotlib is imported only to draw."""

import io
import re
from collections.abc import Callable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any, cast

from skipless.errors import InputError
from skipless.optional import how_to_install

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The baseline is neutral. Orange and blue are distinct in common colour blindness, and in greyscale by lightness.
COLOURS: Mapping[str, str] = {
    "ink": "#1c2127",
    "muted": "#68707a",
    "hairline": "#dfe2e6",
    "skip": "#59626d",
    "skipless": "#d4570a",
    "init": "#1363c6",
    "own": "#7a3fa0",
}
STYLE: Mapping[str, object] = {
    "font.size": 10,
    "axes.edgecolor": COLOURS["muted"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.major.size": 3,
    "xtick.major.width": 0.6,
    "ytick.major.size": 0,
    "svg.fonttype": "none",  # text stays text, so it is searchable and uses the reader's font
}
# In a notebook, text takes the colour of the text around it, whether the theme is light or dark; on a page, the page's.
_INLINE_COLOURS: Mapping[str, str] = {
    "ink": "var(--ink, currentColor)",
    "muted": "var(--muted, currentColor)",
    "hairline": "var(--hairline, rgba(128, 128, 128, 0.3))",
    "skip": "var(--skip, #7b8591)",
    "skipless": "var(--skipless, #d4570a)",
    "init": "var(--init, #3b82e0)",
    "own": "var(--own, #9c66bf)",
    "#ffffff": "var(--page, transparent)",  # open markers
    "#7a3fa0": "#9c66bf",  # further lines, at a lightness between those of light and dark themes
    "#2b8a57": "#3a9c68",
    "#9c6b00": "#ad7d14",
    "#b03060": "#c94d7b",
    "#7d7d2e": "#8c8c3c",
}
FONTS = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"


def new_axes(size: tuple[float, float]) -> "Axes":
    """The axes of a new figure of pyplot's, in our style; notebooks show it when the cell has run.

    Args:
        size: width and height in inches.

    Raises:
        InputError: if matplotlib is missing.
    """
    try:
        import matplotlib as mpl
        from matplotlib import pyplot
    except ImportError as error:
        raise InputError(
            f"plot() draws with matplotlib, which is not installed: {how_to_install('matplotlib')}"
        ) from error
    with mpl.rc_context(cast("Any", STYLE)):
        return pyplot.subplots(figsize=size, layout="constrained")[1]


def inline_svg(draw: Callable[["Axes"], None], size: tuple[float, float], name: str) -> str:
    """A drawing as inline SVG without a background; empty if matplotlib is missing. pyplot takes no notice.

    Args:
        draw: draws into axes.
        size: width and height in inches.
        name: what the picture shows, for those who cannot see it.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        return ""
    buffer = io.StringIO()
    own = {"font.family": ["DejaVu Sans"], "svg.hashsalt": "skipless"}  # equal ids stand for equal definitions
    with mpl.rc_context(cast("Any", {**STYLE, **own})):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue(), size, name)


def _inline(svg: str, size: tuple[float, float], name: str) -> str:
    """A standalone SVG made a part of a page: it shrinks with the page, and styles nothing outside itself."""
    svg = svg[svg.index("<svg") :].rstrip()
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # two pictures on a page would share them
    for name_of, inline in _INLINE_COLOURS.items():
        svg = svg.replace(COLOURS.get(name_of, name_of), inline)
    style = f"width:100%;max-width:{round(96 * size[0])}px;height:auto;stroke-linejoin:round;stroke-linecap:butt"
    svg = svg.replace("'DejaVu Sans'", FONTS)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(name)}" style="{style}" ', 1)
