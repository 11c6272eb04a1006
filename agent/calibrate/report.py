"""A calibration in the terminal: the table, what was left out, what was chosen and why. Plain where nobody looks."""

import textwrap
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from agent.models.calibration import Calibration, Measurement, Skipped

_WIDTH = 110
BUSY_PCT = 25.0
"""From here on it is worth a warning."""


def print_calibration(calibration: Calibration, console: Console) -> None:
    """Print all of it."""
    console.print(_table(calibration))
    console.print("* no other is better in everything. p95: the clip at the 95th percentile.", style="dim")
    for line in _left_out(calibration.skipped):
        console.print(line, style="dim", markup=False, highlight=False)
    if calibration.others_cpu_pct > BUSY_PCT:
        console.print(
            f"\nOther programs took {calibration.others_cpu_pct:.0f} % of the CPU meanwhile: the times are those of a "
            "busy machine. If it is not always so, calibrate again when it is quiet.",
            style="yellow",
            highlight=False,
        )
    choice = calibration.choice
    verdict = "Chosen" if choice.keeps_up else "Chosen, for want of a better one"
    console.print(f"\n{verdict}: {choice.candidate}.", style="bold", highlight=False)
    for reason in choice.reasons:
        for line in textwrap.wrap(reason, min(_WIDTH, console.width), initial_indent="  ", subsequent_indent="  "):
            console.print(line, markup=False, highlight=False)


def _table(calibration: Calibration) -> Table:
    table = Table(box=None, header_style="bold")
    for header in ("", "engine", "model"):
        table.add_column(header, no_wrap=True)
    for header in (
        "threads",
        "words wrong",
        "s a sentence\nmedian",
        "real-time\nfactor p95",
        "CPU s a s\nof speech",
        "MB",
    ):
        table.add_column(header, justify="right")
    front = set(calibration.front)
    for one in sorted(calibration.measurements, key=lambda one: one.latency_p50_s):
        chosen = one.candidate == calibration.choice.candidate
        table.add_row(*_cells(one, on_front=one.candidate in front), style="bold green" if chosen else None)
    return table


def _cells(one: Measurement, *, on_front: bool) -> tuple[str, ...]:
    return (
        "*" if on_front else "",
        one.candidate.engine,
        one.candidate.model,
        str(one.candidate.threads),
        f"{one.errors} of {one.words}",
        f"{one.latency_p50_s:.2f}",
        f"{one.rtf_p95:.3f}",
        f"{one.cpu_per_speech:.3f}",
        str(one.peak_mb),
    )


def _left_out(skipped: Iterable[Skipped]) -> Iterable[str]:
    return (f"Not measured: {one.engine} {one.model}: {one.why}." for one in skipped)
