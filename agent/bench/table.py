"""The report in a terminal."""

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from agent.bench.summary import Report, SystemSummary
from agent.bench.text import (
    MEGABYTE,
    STREAM_HEADINGS,
    STREAM_TITLE,
    difference,
    how_often,
    idle_cells,
    latency_cells,
    not_taken,
    percent,
    ratio,
    stream_cells,
    trust_cells,
    whose_place,
    wrong_more,
)


def print_report(report: Report, console: Console) -> None:
    """Print every figure that fits on a screen; the page has the rest."""
    if report.machine:
        _say(console, f"{report.machine.cpu}, {report.machine.cores} cores; {how_often(report.repeats)}")
    if instead := whose_place(report):
        _say(console, instead)
    names = [system.name for system in report.systems]
    _list(console, [name + ("  (baseline)" if name == report.baseline else "") for name in names])
    if report.systems:
        console.print(_accuracy_table(report))
        console.print(_cost_table(report))
    if report.duels:
        console.print(_duel_table(report))
    if any(system.noise_clips or system.speech_clips_rejected for system in report.systems):
        console.print(_trust_table(report))
    if any(system.error_rate for system in report.systems):
        console.print(_set_table(report))
    if report.latencies:
        _list(console, [system.name for system in report.latencies])
        console.print(_latency_table(report))
    if report.idle:
        _list(console, [system.name for system in report.idle])
        console.print(_idle_table(report))
    if report.streams:
        names = list(dict.fromkeys(part.name for part in report.streams))
        _list(console, names)
        console.print(_stream_table(report, names))
    _say_what_is_missing(report, console)


def _say_what_is_missing(report: Report, console: Console) -> None:
    for one in report.left_out:
        _say(console, not_taken(one))
    for failure in report.failures:
        where = f" on {failure.set_name}/{failure.clip_id}" if failure.clip_id else ""
        _say(console, f"{failure.system}{where}: {failure.reason}")


def _list(console: Console, names: Sequence[str]) -> None:
    """The names behind the numbers of the table that follows: they are too long for a column."""
    for number, name in enumerate(names, start=1):
        _say(console, f"{number:3}  {name}")


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _columns(title: str, first: str, *others: str) -> Table:
    table = Table(box=SIMPLE, title=title, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, overflow="fold")
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _accuracy_table(report: Report) -> Table:
    table = _columns("Accuracy", "", "clips", "words wrong, % (95 %)", "against the baseline (95 %)", "retries")
    for number, system in enumerate(report.systems, start=1):
        table.add_row(
            str(number), str(system.clips), percent(system.error_rate), difference(system), str(system.retries)
        )
    return table


def _cost_table(report: Report) -> Table:
    headings = ("CPU ×", "CPU s/s", "RTF", "p50 s", "p95 s", "RSS MB", "PSS MB", "model MB", "load s")
    table = _columns("Cost", "", *headings)
    for number, system in enumerate(report.systems, start=1):
        comparison = system.against_baseline
        table.add_row(
            str(number),
            f"{comparison.cpu_ratio.value:.3f}" if comparison else "1",
            f"{system.cpu_rtf:.3f}",
            f"{system.rtf:.3f}",
            f"{system.wall_p50_s:.2f}",
            f"{system.wall_p95_s:.2f}",
            f"{system.peak_rss_bytes / MEGABYTE:.0f}",
            f"{system.pss_bytes / MEGABYTE:.0f}",
            f"{system.model_bytes / MEGABYTE:.0f}",
            f"{system.load_s:.1f}",
        )
    return table


def _trust_table(report: Report) -> Table:
    headings = ("clips without speech", "with text", "words in them", "speech rejected", "doubtful")
    table = _columns("Nothing invented, nothing lost", "", *headings)
    for number, system in enumerate(report.systems, start=1):
        table.add_row(str(number), *trust_cells(system))
    return table


def _duel_table(report: Report) -> Table:
    numbers = {system.name: number for number, system in enumerate(report.systems, start=1)}
    table = _columns("Ours against peers on the same weights", "", "words wrong, points (95 %)", "CPU ×", "wall ×")
    for duel in report.duels:
        table.add_row(
            f"{numbers[duel.ours]} against {numbers[duel.peer]}",
            wrong_more(duel.comparison),
            ratio(duel.comparison.cpu_ratio),
            f"{duel.comparison.wall_ratio.value:.3f}",
        )
    return table


def _latency_table(report: Report) -> Table:
    headings = ("utterances", "pause p50 s", "p95 s", "speech p50 s", "p95 s", "PSS MB")
    title = "Latency of whole systems: from the end of the pause, and from the end of speech, to a subscriber"
    table = _columns(title, "", *headings)
    for number, system in enumerate(report.latencies, start=1):
        table.add_row(str(number), *latency_cells(system))
    return table


def _idle_table(report: Report) -> Table:
    headings = ("runs", "of one core, %", "highest, %", "loading, CPU s", "peak PSS MB", "transcripts")
    table = _columns("At rest: whole agents while nobody speaks", "", *headings)
    for number, system in enumerate(report.idle, start=1):
        table.add_row(str(number), *idle_cells(system))
    return table


def _stream_table(report: Report, names: Sequence[str]) -> Table:
    table = _columns(STREAM_TITLE, "", *STREAM_HEADINGS)
    for part in report.streams:
        table.add_row(f"{names.index(part.name) + 1} {part.part}", *stream_cells(part))
    return table


def _set_table(report: Report) -> Table:
    numbers = range(1, len(report.systems) + 1)
    table = _columns("Error rate by set, %", "", *map(str, numbers))
    for name in sorted({part.name for system in report.systems for part in system.sets if part.error_rate}):
        table.add_row(name, *(_set_cell(system, name) for system in report.systems))
    return table


def _set_cell(system: SystemSummary, name: str) -> str:
    part = next((part for part in system.sets if part.name == name), None)
    if not (part and part.error_rate):
        return ""
    return f"{100 * part.error_rate.value:.1f}" + (" CER" if part.by_character else "")
