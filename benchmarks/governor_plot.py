"""Draws simulated days: temperature, level and queue age over the hours, with the governor and without."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Final

from governor_record import Minute
from governor_speech import HOUR_S

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 430, 130, 50, 64, 30
_COLUMN: Final = _WIDTH + _LEFT + 10
_EVERY_H: Final = 3
STYLE: Final = """
svg { background: #fff; } text { font: 12px system-ui, sans-serif; fill: #1d2430; } .faint { fill: #6a7585; }
.title { font-weight: 600; font-size: 13px; } .grid { stroke: #dfe3e8; }
.limit { stroke: #6a7585; stroke-dasharray: 4 3; }
.on { stroke: #0a7d55; } .off { stroke: #c2560a; } .on, .off { fill: none; stroke-width: 1.3; }
.off-words { fill: #c2560a; } .on-words { fill: #0a7d55; }
"""


@dataclass(frozen=True, slots=True)
class Days:
    """One scenario, lived through twice."""

    title: str
    off: Sequence[Minute]
    on: Sequence[Minute]


@dataclass(frozen=True, slots=True)
class _Panel:
    title: str
    value: Callable[[Minute], float]
    limit: float | None
    """A dashed line."""
    least: float
    at_least_to: float
    """The axis begins at `least`, and reaches at least so far."""
    step: float


def draw(scenarios: Sequence[Days], hot_c: float, queue_age_s: float, models: Sequence[str]) -> str:
    """The SVG: a column a scenario. `models` are those of the levels, the best first."""
    oldest_s = max(minute.queue_age_s for days in scenarios for minute in (*days.off, *days.on))
    panels = (
        _Panel("temperature, °C (highest of the minute)", lambda minute: minute.temp_c, hot_c, 40.0, hot_c + 5, 10.0),
        _Panel(
            f"level: 0 is {models[0]}, {len(models) - 1} is {models[-1]}",
            lambda minute: minute.level,
            None,
            0.0,
            len(models) - 1,
            1.0,
        ),
        _Panel(
            "age of the queue, s (longest of the minute)",
            lambda minute: minute.queue_age_s,
            queue_age_s,
            0.0,
            max(oldest_s, queue_age_s),
            _round_step(max(oldest_s, queue_age_s) / 4),
        ),
    )
    width = len(scenarios) * _COLUMN + 10
    height = _TOP + len(panels) * (_HEIGHT + _GAP) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">',
        f"<style>{STYLE}</style>",
    ]
    for column, days in enumerate(scenarios):
        left = column * _COLUMN + _LEFT
        parts.append(_text(left, 18, days.title, "title"))
        parts += [_text(left, 36, "governor off", "off-words"), _text(left + 90, 36, "governor on", "on-words")]
        for row, panel in enumerate(panels):
            parts += [
                f'<g transform="translate({left} {_TOP + row * (_HEIGHT + _GAP)})">',
                *_panel(panel, days),
                "</g>",
            ]
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: _Panel, days: Days) -> Iterator[str]:
    begin_h, end_h = days.on[0].at_s / HOUR_S, days.on[-1].at_s / HOUR_S + 1 / 60
    most = max([panel.at_least_to, *(panel.value(minute) for minute in (*days.off, *days.on))])

    def across(at_h: float) -> float:
        return _WIDTH * (at_h - begin_h) / (end_h - begin_h)

    def up(value: float) -> float:
        return _HEIGHT * (1 - (value - panel.least) / (most - panel.least))

    yield _text(0, -6, panel.title, "faint")
    for tick in range(int((most - panel.least) / panel.step) + 1):
        value = panel.least + tick * panel.step
        yield _line(0, up(value), _WIDTH, up(value), "grid")
        yield _text(-6, up(value) + 4, f"{value:g}", "faint", "end")
    for hour in range(int(begin_h), int(end_h + 0.01) + 1):
        if hour % _EVERY_H == 0 and hour >= begin_h:
            yield _line(across(hour), 0, across(hour), _HEIGHT, "grid")
            yield _text(across(hour), _HEIGHT + 14, f"{hour:02}", "faint", "middle")
    if panel.limit is not None:
        yield _line(0, up(panel.limit), _WIDTH, up(panel.limit), "limit")
    for kind, minutes in (("off", days.off), ("on", days.on)):
        yield _steps(kind, [(across(minute.at_s / HOUR_S), up(panel.value(minute))) for minute in minutes])


def _steps(kind: str, points: Sequence[tuple[float, float]]) -> str:
    """A line; of several points in one tenth of a pixel's height only the first and the last are drawn."""
    rounded = [(f"{x:.1f}", f"{y:.1f}") for x, y in points]
    path = list[str]()
    for _height, run in groupby(rounded, key=lambda point: point[1]):
        same = list(run)
        path += [",".join(point) for point in ([same[0], same[-1]] if len(same) > 1 else same)]
    return f'<polyline class="{kind}" points="{" ".join(path)}"/>'


def _round_step(least: float) -> float:
    return next(step for step in (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 1e6) if step >= least)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
