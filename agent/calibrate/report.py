"""Print a calibration: the table, the models without figures, the choice and its reasons."""

import textwrap

from rich.console import Console
from rich.table import Table

from agent.models.calibration import Calibration

_WIDTH = 110
BUSY_PCT = 25.0
"""From this share on, the report warns that the machine was busy."""
_NAMES = ("", "engine", "model")
_FIGURES = ("threads", "words wrong", "s a sentence\nmedian", "real-time\nfactor p95", "CPU s a s\nof speech", "MB")


def print_calibration(calibration: Calibration, console: Console) -> None:
    """Print all of it."""
    choice = calibration.choice
    table = Table(box=None, header_style="bold")
    for header in _NAMES:
        table.add_column(header, no_wrap=True)
    for header in _FIGURES:
        table.add_column(header, justify="right")
    for one in sorted(calibration.measurements, key=lambda one: one.latency_p50_s):
        table.add_row(
            "*" if one.candidate in calibration.front else "",
            *(one.candidate.engine, one.candidate.model, str(one.candidate.threads)),
            *(f"{one.errors} of {one.words}", f"{one.latency_p50_s:.2f}", f"{one.rtf_p95:.3f}"),
            *(f"{one.cpu_per_speech:.3f}", str(one.peak_mb)),
            style="bold green" if one.candidate == choice.candidate else None,
        )
    console.print(table)
    console.print("* no other is better in everything. p95: the clip at the 95th percentile.", style="dim")
    for skipped in calibration.skipped:
        line = f"Not measured: {skipped.engine} {skipped.model}: {skipped.why}."
        console.print(line, style="dim", markup=False, highlight=False)
    if calibration.others_cpu_pct > BUSY_PCT:
        console.print(
            f"\nOther programs took {calibration.others_cpu_pct:.0f} % of the CPU meanwhile, so the times are those of "
            "a busy machine. Calibrate again when it is quiet.",
            style="yellow",
            highlight=False,
        )
    verdict = "Chosen" if choice.keeps_up else "Chosen, because no better one is here"
    console.print(f"\n{verdict}: {choice.candidate}.", style="bold", highlight=False)
    for reason in choice.reasons:
        for line in textwrap.wrap(reason, min(_WIDTH, console.width), initial_indent="  ", subsequent_indent="  "):
            console.print(line, markup=False, highlight=False)
