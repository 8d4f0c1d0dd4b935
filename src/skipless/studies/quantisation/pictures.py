"""Pictures of the study: kurtosis by depth, and histograms of blocks in units of the root mean square."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from skipless.display.axes import colour_of, legend, ruled
from skipless.display.drawing import COLOURS, inline_svg
from skipless.evaluators.quantisation import SITES, ActivationStatistics
from skipless.evaluators.quantisation.statistics.histogram import edges

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = (6.4, 3.6)
_LINES = 6  # blocks in one picture
_DRAWN = ("tokens", "hidden")


def pictures(found: ActivationStatistics) -> Mapping[str, str]:
    """Inline SVG by caption."""
    title = "Excess kurtosis by block, all numbers of a site pooled: 0 for a Gaussian; the axis is linear below 1"
    drawn = {title: inline_svg(found._draw, _SIZE, title)}
    for site in _DRAWN:
        caption = f"Histograms by block: {SITES[site]}. A Gaussian is dashed"

        def draw(axes: "Axes", site: str = site) -> None:
            _densities(axes, found, site)

        drawn[caption] = inline_svg(draw, _SIZE, caption)
    return {caption: svg for caption, svg in drawn.items() if svg}


def _densities(axes: "Axes", found: ActivationStatistics, site: str) -> None:
    """The density of magnitudes over the root mean square, on logarithmic axes where tails are seen."""
    of = [one for one in found.sites if one.site == site]
    chosen = sorted({round(i * (len(of) - 1) / max(min(_LINES, len(of)) - 1, 1)) for i in range(min(_LINES, len(of)))})
    for index, place in enumerate(chosen):
        one = of[place]
        if not one.rms > 0:
            continue
        bounds = edges() / one.rms
        counts = one.histogram.sum(0).double()
        there = counts > 0
        density = counts / (one.count * (bounds[1:] - bounds[:-1]))
        middle = (bounds[1:] * bounds[:-1]).sqrt()
        axes.plot(middle[there], density[there], color=colour_of(index), linewidth=1.3, label=one.block)
    x = torch.logspace(-2, math.log10(6), 100)
    gaussian = 2 * torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    axes.plot(x, gaussian, color=COLOURS["muted"], linewidth=1, linestyle=(0, (4, 3)), label="Gaussian")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(1e-2, 1.1 * max(6.0, *(one.peak for one in of if math.isfinite(one.peak))))
    axes.set_ylim(1e-7, 10)
    axes.set_xlabel("magnitude, RMS")
    axes.set_ylabel("density")
    ruled(axes)
    legend(axes)
