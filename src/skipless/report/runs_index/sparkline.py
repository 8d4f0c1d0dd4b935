"""A loss curve as small as a word: inline SVG, which takes the colour of the text around it."""

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from skipless.report.pictures.curves import thin

WIDTH, HEIGHT, MARGIN = 120, 26, 3
POINTS = 60
LOG_FROM = 20.0  # losses that fall by more than this factor are drawn on a log scale


def sparkline(curve: Sequence[tuple[float, float]], until: float | None, *, broken: bool = False) -> str:
    """Draw training loss by epoch; empty if there are fewer than two points.

    Args:
        curve: epochs and losses.
        until: epoch at which the run should end, so that one that was cut off is seen to be; None ends with the curve.
        broken: whether to mark the end with a cross, as of a run that diverged.
    """
    if len(curve) < 2:
        return ""
    epoch, loss = thin(np.array([e for e, _ in curve]), np.array([v for _, v in curve]), limit=POINTS)
    low, high = float(loss.min()), float(loss.max())
    if low > 0 and high > LOG_FROM * low:
        loss, low, high = np.log(loss), math.log(low), math.log(high)
    span = max(until or 0.0, float(epoch.max())) or 1.0
    x = MARGIN + (WIDTH - 2 * MARGIN) * (epoch.clip(0.0, span) / span)
    share = (loss / 2 - low / 2) / ((high / 2 - low / 2) or 1.0)  # the range of two floats may be none
    y = HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * share
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    said = f"training loss from {curve[0][1]:.3g} to {curve[-1][1]:.3g}"
    end = _cross(float(x[-1]), float(y[-1])) if broken else ""
    return (
        f'<svg class="spark" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(said)}">'
        f'<title>{escape(said)}</title><path class="base" d="M{MARGIN} {HEIGHT - 1}H{WIDTH - MARGIN}"/>'
        f'<polyline points="{points}"/>{end}</svg>'
    )


def _cross(x: float, y: float) -> str:
    return f'<path d="M{x - 3:.1f} {y - 3:.1f}l6 6m0 -6l-6 6"/>'
