"""Write the report: tables in a terminal, `report.json`, and one HTML page, all with the same figures.

The end of a column's name is its unit: `_s`, `_bytes`, `_rate`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table as RichTable

from agent.bench.score import Estimate
from agent.bench.summary import Report, Row

VERSION = 2
"""Of `report.json`."""
_UNITS = {"_s": (", s", 1), "_bytes": (", MB", 1e-6), "_share": (" share, %", 100), "_rate": (" rate, %", 100)}
_UNITS |= {"_difference": (" difference, points", 100), "_ratio": (" ×", 1)}
"""By the end of a field's name: its text in the heading, and the factor of the value."""
_ACRONYMS = {word: word.upper() for word in ("cpu", "rss", "pss", "rtf")}
_ACCURACY = ("name", "clips", "error_rate", "retries")
_COST = ("name", "cpu_rtf", "rtf", "wall_p50_s", "wall_p95_s", "peak_rss_bytes", "pss_bytes", "model_bytes", "load_s")
_TRUST = ("name", "noise_clips", "noise_clips_with_text", "noise_words", "speech_clips_rejected", "doubtful")

_STREAM_RATES = ("name", "part", "seeds", "clips", "error_rate", "whole_error_rate", "error_rate_difference", "cpu_rtf")
_STREAM_WORDS = ("name", "part", "deletions", "whole_deletions", "first_lost", "last_lost", "split", "strays")


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the report, as text."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(report: Report) -> list[Table]:
    """Return the tables that have rows."""
    found = [
        _table("Accuracy, with the 95 % interval in brackets", report.systems, _ACCURACY),
        _table("Against the baseline, and against peers on the same weights", report.comparisons),
        _table("Cost", report.systems, _COST),
        _table("Invented and lost words", report.systems, _TRUST),
        _sets(report),
        _table("Latency of whole systems, to a subscriber", report.latencies),
        _table("At rest: whole agents without speech", report.idle),
        _table("Speech in a stream, and each clip decoded whole by the stock library", report.streams, _STREAM_RATES),
        _table("Words in a stream: of whole clips, and lost at their ends", report.streams, _STREAM_WORDS),
    ]
    return [table for table in found if table.rows]


def _table(title: str, found: Sequence[Row], names: Sequence[str] = ()) -> Table:
    columns = names or list(found[0] if found else ())
    return Table(title, list(map(_heading, columns)), [[_cell(name, row[name]) for name in columns] for row in found])


def _sets(report: Report) -> Table:
    """Return the error rates with a row for each set and a column for each system."""
    cells = {
        (part["name"], system["name"]): _cell("error_rate", part["error_rate"]) + " CER" * part["by_character"]
        for system in report.systems
        for part in system["sets"]
        if part["error_rate"]
    }
    systems = [system["name"] for system in report.systems]
    rows = [
        [name, *(cells.get((name, system), "") for system in systems)] for name in sorted({key[0] for key in cells})
    ]
    return Table("Error rate by set, %", ["set", *systems], rows)


def _unit(name: str) -> tuple[str, str, float]:
    return next(((end, *unit) for end, unit in _UNITS.items() if name.endswith(end)), ("", "", 1))


def _heading(name: str) -> str:
    if name == "name":
        return "system"
    end, shown, _ = _unit(name)
    return " ".join(_ACRONYMS.get(word, word) for word in name.removesuffix(end).split("_")) + shown


def _cell(name: str, value: object) -> str:
    end, _, factor = _unit(name)
    sign = "+" if end == "_difference" else ""
    match value:
        case None:
            return "–"
        case Estimate():
            interval = f"{factor * value.low:{sign}.2f}, {factor * value.high:{sign}.2f}" if value.known else "–"
            return f"{factor * value.value:{sign}.2f} [{interval}]"
        case int() | float() if end:
            digits = {"_bytes": 0, "_s": 3}.get(end, 2)
            return f"{factor * value:{sign}.{digits}f}"
        case float():
            return f"{round(value, 3):g}"
    return str(value)


def notes(report: Report) -> Iterator[str]:
    """Yield notes about the figures: the machine, the software, and missing results."""
    if machine := report.machine:
        passes = "one pass" if report.repeats == 1 else f"medians of {report.repeats} passes"
        packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
        memory_gb = machine.memory_bytes / 1e9
        yield f"{machine.cpu}, {machine.cores} cores, {memory_gb:.1f} GB, Linux {machine.kernel}; {passes}"
        yield f"edgescribe {machine.agent}, Python {machine.python}, {packages}: {machine.command}"
    if report.baseline:
        yield f"baseline: {report.baseline}"
    if report.missing_baseline:
        yield f"{report.missing_baseline} has no results: the baseline is {report.baseline} instead"
    for one in report.left_out:
        counts = " and ".join(f"{number} in {language}" for language, number in one.clips.items())
        yield f"clips left out, as {one.system} knows English only: {counts}"
    for failure in report.failures:
        yield f"{failure.system}{' on ' if failure.step else ''}{failure.step}: {failure.reason}"


def print_report(report: Report, console: Console) -> None:
    """Print all tables. The names of systems are too long for a column, so a list gives each a number."""
    names = [one["name"] for group in (report.systems, report.latencies, report.idle, report.streams) for one in group]
    numbers = {name: str(number) for number, name in enumerate(dict.fromkeys(names), start=1)}
    for line in (*notes(report), *(f"{number:>3}  {name}" for name, number in numbers.items())):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for table in tables(report):
        shown = RichTable(box=SIMPLE, title=table.title, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0))
        for index, heading in enumerate(table.head):
            shown.add_column(numbers.get(heading, heading), justify="right" if index else "left", overflow="fold")
        for row in table.rows:
            shown.add_row(*(numbers.get(cell, cell) for cell in row))
        console.print(shown)


def write_report(report: Report, folder: Path) -> bool:
    """Write `report.json` and `report.html`. Return False without a page: the extra `bench` is not installed."""
    document = json.dumps({"v": VERSION, **asdict(report)}, indent=1, ensure_ascii=False)
    (folder / "report.json").write_text(document + "\n", encoding="utf-8")
    try:
        page = render(report)
    except ImportError:
        return False
    (folder / "report.html").write_text(page, encoding="utf-8")
    return True


def render(report: Report) -> str:
    """Return the HTML page. It needs no script and no other file."""
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - an extra

    source = resources.files("agent.bench").joinpath("page.html").read_text(encoding="utf-8")
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(source)
    return template.render(
        notes=list(notes(report)),
        tables=tables(report),
        error_rates=[(one["name"], one["error_rate"]) for one in report.systems if one["error_rate"]],
        cpu_ratios=[(one["name"], one["cpu_ratio"]) for one in report.comparisons if one["against"] == report.baseline],
    )
