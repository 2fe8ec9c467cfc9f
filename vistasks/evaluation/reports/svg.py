"""Small charts as SVG text: they print well, need no script and take a few kilobytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 380, 260
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 38  # margins

Points = Sequence[tuple[float, float]]


def line_chart(
    series: Mapping[str, Points],
    colours: Mapping[str, str],
    *,
    x: str,
    y: str,
    x_range: tuple[float, float] = (0, 1),
    y_range: tuple[float, float] = (0, 1),
    bold: str | None = None,
    dots: bool = False,
    diagonal: bool = False,
    ticks: Sequence[float] | None = None,
    y_text: Callable[[float], str] = "{:.2g}".format,
) -> str:
    """Lines over one another; ``bold`` is drawn thick and last, and each line says its name under the mouse.

    Args:
        series: (x, y) points by name.
        colours: CSS colours by name.
        x: and ``y``, what the axes are.
        x_range: and ``y_range``, what they reach over.
        dots: mark the points.
        diagonal: draw y = x.
        ticks: numbers on the x axis; None: five evenly spaced.
        y_text: what stands at a value of the y axis.
    """

    def place(point: tuple[float, float]) -> tuple[float, float]:
        across = (point[0] - x_range[0]) / (x_range[1] - x_range[0] or 1)
        up = (point[1] - y_range[0]) / (y_range[1] - y_range[0] or 1)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [_axes(place, x, y, x_range, y_range, ticks, y_text)]
    if diagonal:
        (x1, y1), (x2, y2) = place((0, 0)), place((1, 1))
        parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="guide"/>')
    for name in sorted(series, key=lambda name: name == bold):
        placed = [place(point) for point in series[name]]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in placed)
        width = 2.6 if name == bold else 1.4
        colour = colours.get(name, "#333")
        title = f"<title>{escape(name)}</title>"
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}">{title}</polyline>'
        )
        if dots:
            parts += [
                f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}">{title}</circle>'
                for px, py in placed
            ]
    return _figure("".join(parts), f"{y} against {x}")


def bar_chart(values: Mapping[str, float], colours: Mapping[str, str], *, labels: Mapping[str, str]) -> str:
    """Horizontal bars, the longest the full width; ``labels`` stand at their ends."""
    row, name_width = 26, 92
    largest = max(values.values(), default=0) or 1
    parts = []
    for index, (name, value) in enumerate(values.items()):
        y = 6 + index * row
        length = max(1.0, value / largest * (WIDTH - name_width - 150))
        parts.append(f'<text x="{name_width - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>')
        parts.append(
            f'<rect x="{name_width}" y="{y}" width="{length:.1f}" height="19" fill="{colours.get(name, "#4363d8")}"/>'
        )
        parts.append(f'<text x="{name_width + length + 6:.1f}" y="{y + 15}">{escape(labels[name])}</text>')
    return _figure("".join(parts), "bars", height=12 + row * len(values))


def interval_chart(intervals: Mapping[str, tuple[float, float, float]]) -> str:
    """A row each: low, value and high as a dot on a line, around the upright line of 0; in colour where 0 is
    not between.
    """
    row, left, right = 22, 130, 14
    reach = _round_up(max((max(map(abs, values)) for values in intervals.values()), default=0) or 1)
    bottom = 8 + row * len(intervals)

    def across(value: float) -> float:
        return left + (value + reach) / (2 * reach) * (WIDTH - left - right)

    parts = [f'<line x1="{across(0):.1f}" y1="4" x2="{across(0):.1f}" y2="{bottom}" class="guide"/>']
    for index, (name, (low, value, high)) in enumerate(intervals.items()):
        y = 8 + row * index + row / 2
        colour = "#1d7a3c" if low > 0 else "#c02626" if high < 0 else "#667085"
        said = escape(f"{name}: {value:+.3f}, {low:+.3f} to {high:+.3f}")
        shown = name if len(name) <= 20 else f"{name[:19]}\u2026"
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(shown)}</text>')
        parts.append(
            f'<g stroke="{colour}" fill="{colour}"><title>{said}</title>'
            f'<line x1="{across(low):.1f}" y1="{y:.1f}" x2="{across(high):.1f}" y2="{y:.1f}" stroke-width="2"/>'
            f'<circle cx="{across(value):.1f}" cy="{y:.1f}" r="3.5"/></g>'
        )
    for value, anchor in ((-reach, "start"), (0, "middle"), (reach, "end")):
        text = f"{value:+g}" if value else "0"
        parts.append(f'<text x="{across(value):.1f}" y="{bottom + 14}" text-anchor="{anchor}">{text}</text>')
    return _figure("".join(parts), "differences with intervals", height=bottom + 20)


def _round_up(value: float) -> float:
    """The next number of one digit, or one and a half, that is not smaller."""
    unit = 10.0 ** math.floor(math.log10(value))
    return next(
        float(f"{step * unit:.2g}") for step in (1, 1.5, *range(2, 11)) if step * unit >= value * (1 - 1e-9)
    )


def _figure(content: str, label: str, height: int = HEIGHT) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">{content}</svg>'


def _axes(
    place: Callable[[tuple[float, float]], tuple[float, float]],
    x: str,
    y: str,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    ticks: Sequence[float] | None,
    y_text: Callable[[float], str],
) -> str:
    parts = []
    marks = ticks if ticks is not None else [x_range[0] + (x_range[1] - x_range[0]) * i / 5 for i in range(6)]
    for value in marks:
        px, py = place((value, y_range[0]))
        parts.append(f'<line x1="{px:.1f}" y1="{TOP}" x2="{px:.1f}" y2="{py:.1f}" class="grid"/>')
        parts.append(f'<text x="{px:.1f}" y="{py + 14:.1f}" text-anchor="middle">{value:g}</text>')
    for i in range(6):
        value = y_range[0] + (y_range[1] - y_range[0]) * i / 5
        px, py = place((x_range[0], value))
        parts.append(f'<line x1="{px:.1f}" y1="{py:.1f}" x2="{WIDTH - RIGHT}" y2="{py:.1f}" class="grid"/>')
        parts.append(
            f'<text x="{px - 5:.1f}" y="{py + 4:.1f}" text-anchor="end">{escape(y_text(value))}</text>'
        )
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x)}</text>')
    parts.append(
        f'<text x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">{escape(y)}</text>'
    )
    return "".join(parts)
