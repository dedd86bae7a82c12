"""Small line charts as SVG."""

from __future__ import annotations

from collections.abc import Sequence

from deltawitness.html_report.markup import Markup, element

__all__ = ["LEAST_POINTS", "sparkline"]

LEAST_POINTS = 2
_WIDTH, _HEIGHT, _MARGIN = 90, 20, 2


def sparkline(values: Sequence[float], what: str) -> Markup:
    """Return a line through values; an empty text if there are fewer than two.

    Args:
        values: the values, oldest first.
        what: what the values are, for people who do not see the line.
    """
    if len(values) < LEAST_POINTS:
        return Markup("")
    low, high = min(values), max(values)
    step = (_WIDTH - 2 * _MARGIN) / (len(values) - 1)
    scale = (_HEIGHT - 2 * _MARGIN) / ((high - low) or 1)
    points = [
        (_MARGIN + number * step, _HEIGHT - _MARGIN - (value - low) * scale)
        for number, value in enumerate(values)
    ]
    label = f"{what} of the last {len(values)} writes: {low:,.0f} to {high:,.0f}, last {values[-1]:,.0f}"
    return element(
        "svg",
        element("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points)),
        element("circle", cx=f"{points[-1][0]:.1f}", cy=f"{points[-1][1]:.1f}", r=2),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=label,
        class_="spark",
    )
