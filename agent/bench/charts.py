"""Two kinds of plot as inline SVG: dots with intervals, in rows or in a plane. Colours come from the page's CSS."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH = 860
_LABEL_WIDTH = 330
_RIGHT_MARGIN = 90
_ROW_HEIGHT = 26
_PLANE_HEIGHT = 360
_MARGIN = 56
_TICKS = 6


@dataclass(frozen=True, slots=True)
class Mark:
    """A value with its interval."""

    label: str
    value: float
    low: float
    high: float
    ours: bool
    """Ours are filled, peers are hollow."""


@dataclass(frozen=True, slots=True)
class Point:
    """A place in a plane, with the interval of its height."""

    number: int
    """Shown beside the dot; the table has the name."""
    label: str
    x: float
    y: float
    y_low: float
    y_high: float
    ours: bool


class _Scale:
    """From values to pixels, linear or logarithmic."""

    def __init__(self, values: Sequence[float], start_px: float, end_px: float, *, log: bool = False) -> None:
        self._log = log
        self._start_px, self._end_px = start_px, end_px
        self.ticks = _log_ticks(values) if log else _linear_ticks(values)
        self._low, self._high = self._place(self.ticks[0]), self._place(self.ticks[-1])

    def __call__(self, value: float) -> float:
        share = (self._place(value) - self._low) / (self._high - self._low)
        return self._start_px + share * (self._end_px - self._start_px)

    def _place(self, value: float) -> float:
        return math.log10(max(value, 1e-9)) if self._log else value


def rows(marks: Sequence[Mark], unit: str, reference: float | None = None) -> str:
    """One row a mark: dot, interval, figure. `reference` draws a line through all rows (0 or 1: no difference)."""
    anchors = [0.0] if reference is None else [reference]
    values = anchors + [end for mark in marks for end in (mark.low, mark.high)]
    scale = _Scale(values, _LABEL_WIDTH, _WIDTH - _RIGHT_MARGIN)
    height = _ROW_HEIGHT * len(marks) + 40
    return _svg(height, _row_parts(marks, unit, scale, height, reference))


def plane(points: Sequence[Point], x_title: str, y_title: str) -> str:
    """Dots over a logarithmic x axis."""
    across = _Scale([point.x for point in points], _MARGIN, _WIDTH - _MARGIN / 2, log=True)
    up = _Scale([0.0, *(point.y_high for point in points)], _PLANE_HEIGHT - _MARGIN, 12)
    return _svg(_PLANE_HEIGHT, _plane_parts(points, across, up, x_title, y_title))


def _row_parts(marks: Sequence[Mark], unit: str, scale: _Scale, height: int, reference: float | None) -> Iterator[str]:
    bottom = height - 30
    for tick in scale.ticks:
        yield _line(scale(tick), 4, scale(tick), bottom, "grid")
        yield _text(scale(tick), bottom + 16, f"{tick:g}", "tick", "middle")
    yield _text(_WIDTH - _RIGHT_MARGIN, height - 2, unit, "tick", "end")
    if reference is not None:
        yield _line(scale(reference), 4, scale(reference), bottom, "reference")
    for index, mark in enumerate(marks):
        y = _ROW_HEIGHT * index + 18
        yield _text(_LABEL_WIDTH - 12, y + 4, mark.label, "label", "end")
        yield _line(scale(mark.low), y, scale(mark.high), y, "interval")
        yield _dot(
            scale(mark.value), y, mark.ours, f"{mark.label}: {mark.value:.4g} ({mark.low:.4g} to {mark.high:.4g})"
        )
        yield _text(_WIDTH - _RIGHT_MARGIN + 12, y + 4, f"{mark.value:.3g}", "figure", "start")


def _plane_parts(points: Sequence[Point], across: _Scale, up: _Scale, x_title: str, y_title: str) -> Iterator[str]:
    bottom, right = _PLANE_HEIGHT - _MARGIN, _WIDTH - _MARGIN / 2
    for tick in across.ticks:
        yield _line(across(tick), 12, across(tick), bottom, "grid")
        yield _text(across(tick), bottom + 18, f"{tick:g}", "tick", "middle")
    for tick in up.ticks:
        yield _line(_MARGIN, up(tick), right, up(tick), "grid")
        yield _text(_MARGIN - 8, up(tick) + 4, f"{tick:g}", "tick", "end")
    yield _text(right, _PLANE_HEIGHT - 14, x_title, "tick", "end")
    yield _text(_MARGIN + 6, 24, y_title, "tick", "start")
    for point in points:
        x = across(point.x)
        yield _line(x, up(point.y_low), x, up(point.y_high), "interval")
        yield _dot(x, up(point.y), point.ours, f"{point.label}: {point.y:.3g} at {point.x:.3g}")
        yield _text(x + 9, up(point.y) - 6, str(point.number), "figure", "start")


def _linear_ticks(values: Sequence[float]) -> list[float]:
    """Round numbers that reach from below the least to above the greatest value."""
    low, high = min(values), max(values)
    raw_step = (high - low or abs(high) or 1.0) / _TICKS
    magnitude = 10.0 ** math.floor(math.log10(raw_step))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= raw_step)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(index * step, 10) for index in range(first, max(last, first + 1) + 1)]


def _log_ticks(values: Sequence[float]) -> list[float]:
    """1, 2 and 5 times powers of ten around the values."""
    low, high = min(values), max(values)
    exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    candidates = [factor * 10.0**exponent for exponent in exponents for factor in (1, 2, 5)]
    below = max(tick for tick in candidates if tick < low)
    above = min(tick for tick in candidates if tick > high)
    return [tick for tick in candidates if below <= tick <= above]


def _svg(height: int, parts: Iterator[str]) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img">' + "".join(parts) + "</svg>"


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _dot(x: float, y: float, ours: bool, title: str) -> str:  # noqa: FBT001 - read at one glance where it is called
    kind = "ours" if ours else "peer"
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{escape(title)}</title></circle>'
