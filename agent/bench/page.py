"""The report as one HTML page: no script, no other file, light and dark."""

from collections.abc import Iterator, Sequence
from html import escape

from agent.bench.charts import Mark, Point, plane, rows
from agent.bench.intervals import Estimate
from agent.bench.summary import Report, SystemSummary
from agent.bench.systems import is_ours
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

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --faint: #6a7585; --rule: #dfe3e8; --paper: #fff; --ours: #0a7d55;
  --peer: #a2580a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --faint: #98a3b3; --rule: #303845; --paper: #14181f;
  --ours: #3ecf98; --peer: #f0a04b; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1000px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .4rem; } p, .note { color: var(--faint); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { color: var(--faint); font-weight: 500; } td.name, th.name { text-align: left; }
svg { width: 100%; height: auto; } svg text { fill: var(--ink); font-size: 12.5px; }
svg .tick { fill: var(--faint); font-size: 11.5px; } svg .grid { stroke: var(--rule); }
svg .reference { stroke: var(--faint); stroke-dasharray: 4 3; } svg .interval { stroke: var(--faint); stroke-width: 2; }
svg .ours { fill: var(--ours); } svg .peer { fill: var(--paper); stroke: var(--peer); stroke-width: 2.5; }
code { font-size: .9em; overflow-wrap: anywhere; }
"""


def render(report: Report) -> str:
    """The whole page."""
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1"><title>edgescribe bench</title>',
            f"<style>{_STYLE}</style></head><body><h1>edgescribe bench</h1>",
            *_head(report),
            *(part for section in (_main_table, _duels, _plots) if report.systems for part in section(report)),
            *_latency(report),
            *_idle(report),
            *_streams(report),
            *_trust(report),
            *_sets(report),
            *_failures(report),
            "</body></html>",
        ]
    )


def _head(report: Report) -> Iterator[str]:
    if machine := report.machine:
        packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
        where = f"{machine.cpu}, {machine.cores} cores, {machine.memory_bytes / 1e9:.1f} GB, Linux {machine.kernel}"
        yield f"<p>{escape(where)}; {how_often(report.repeats)}.<br>"
        yield f"edgescribe {escape(machine.agent)}, {escape(packages)}<br><code>{escape(machine.command)}</code></p>"
    if instead := whose_place(report):
        yield f"<p>{escape(instead)}.</p>"
    yield (
        "<p>Clip by clip through all systems in turn, each in a process of its own. Intervals: 95 %, bootstrap over "
        f"clips, paired where two systems are compared; the baseline is {escape(report.baseline or 'none')}. "
        "Only ratios within one run mean anything.</p>"
    )


def _main_table(report: Report) -> Iterator[str]:
    head = (
        "",
        "system",
        "clips",
        "WER, %",
        "against the baseline",
        "CPU ×",
        "RTF",
        "CPU s / s",
        "p50 s",
        "p95 s",
    )
    yield _table(
        [*head, "peak RSS, MB", "model, MB"],
        [
            [
                str(number),
                system.name,
                str(system.clips),
                percent(system.error_rate),
                difference(system),
                f"{system.against_baseline.cpu_ratio.value:.3f}" if system.against_baseline else "1",
                f"{system.rtf:.3f}",
                f"{system.cpu_rtf:.3f}",
                f"{system.wall_p50_s:.2f}",
                f"{system.wall_p95_s:.2f}",
                f"{system.peak_rss_bytes / MEGABYTE:.0f}",
                f"{system.model_bytes / MEGABYTE:.0f}",
            ]
            for number, system in enumerate(report.systems, start=1)
        ],
    )


def _duels(report: Report) -> Iterator[str]:
    if not report.duels:
        return
    yield "<h2>Ours against peers on the same weights</h2>"
    yield _table(
        ["system", "peer", "clips", "words wrong, points", "CPU ×", "wall ×"],
        [
            [
                duel.ours,
                duel.peer,
                str(duel.comparison.clips),
                wrong_more(duel.comparison),
                ratio(duel.comparison.cpu_ratio),
                ratio(duel.comparison.wall_ratio),
            ]
            for duel in report.duels
        ],
    )


def _plots(report: Report) -> Iterator[str]:
    scored = [(n, s, s.error_rate) for n, s in enumerate(report.systems, start=1) if s.error_rate]
    if scored:
        yield "<h2>Error rate against work</h2>"
        points = [_point(number, system, estimate) for number, system, estimate in scored]
        yield plane(points, "CPU seconds a second of sound (log)", "word error rate, %")
    compared = [(s, s.against_baseline) for s in report.systems if s.against_baseline]
    if compared:
        yield f"<h2>CPU time as a share of {escape(report.baseline)}</h2>"
        yield rows([_mark(system, other.cpu_ratio) for system, other in compared], "×", reference=1.0)
    differing = [(s, other.error_rate_difference) for s, other in compared if other.error_rate_difference]
    if differing:
        yield f"<h2>Word error rate, difference from {escape(report.baseline)}</h2>"
        yield rows([_mark(system, estimate, 100.0) for system, estimate in differing], "points", reference=0.0)
    yield "<h2>Seconds from the samples to the words: median to 95th percentile</h2>"
    yield rows([Mark(s.name, s.wall_p50_s, s.wall_p50_s, s.wall_p95_s, is_ours(s.name)) for s in report.systems], "s")
    yield "<h2>Memory: from the model's file to the peak of the resident set</h2>"
    yield rows([_memory(system) for system in report.systems], "MB")


def _latency(report: Report) -> Iterator[str]:
    if not report.latencies:
        return
    yield "<h2>Latency of whole systems: from the moment the pause is over to the words, median to 95th percentile</h2>"
    yield rows(
        [
            Mark(s.name, s.after_hangover_p50_s, s.after_hangover_p50_s, s.after_hangover_p95_s, is_ours(s.name))
            for s in report.latencies
        ],
        "s",
    )
    head = ("system", "utterances", "after the hang-over: p50 s", "p95 s", "from the end of speech: p50 s", "p95 s")
    yield _table(
        [*head, "peak PSS, MB", "CPU s / s"],
        [[system.name, *latency_cells(system), f"{system.cpu_rtf:.3f}"] for system in report.latencies],
    )


def _idle(report: Report) -> Iterator[str]:
    if not report.idle:
        return
    yield "<h2>At rest: whole agents while nobody speaks</h2>"
    yield _table(
        ["system", "runs", "of one core, %", "highest, %", "loading, CPU s", "peak PSS, MB", "transcripts"],
        [[system.name, *idle_cells(system)] for system in report.idle],
    )


def _streams(report: Report) -> Iterator[str]:
    if report.streams:
        yield f"<h2>{STREAM_TITLE}</h2>"
        rows = [[f"{part.name}: {part.part}", *stream_cells(part)] for part in report.streams]
        yield _table(["system", *STREAM_HEADINGS], rows)


def _trust(report: Report) -> Iterator[str]:
    if not report.systems:
        return
    yield "<h2>Nothing invented, nothing lost</h2>"
    yield _table(
        ["system", "clips without speech", "with text", "words in them", "speech rejected", "doubtful", "retries"],
        [[system.name, *trust_cells(system), str(system.retries)] for system in report.systems],
    )


def _sets(report: Report) -> Iterator[str]:
    if not report.systems:
        return
    yield "<h2>Error rate by set, %</h2>"
    names = sorted({part.name for system in report.systems for part in system.sets if part.error_rate})
    yield _table(
        ["set", *(str(number) for number in range(1, len(report.systems) + 1))],
        [[name, *(_set_cell(system, name) for system in report.systems)] for name in names],
    )


def _set_cell(system: SystemSummary, name: str) -> str:
    part = next((part for part in system.sets if part.name == name), None)
    if not (part and part.error_rate):
        return ""
    return percent(part.error_rate) + (" CER" if part.by_character else "")


def _failures(report: Report) -> Iterator[str]:
    if report.left_out:
        yield "<h2>What was not asked</h2><ul>"
        yield from (f"<li>{escape(not_taken(one))}</li>" for one in report.left_out)
        yield "</ul>"
    if report.failures:
        yield "<h2>What did not work</h2><ul>"
        for failure in report.failures:
            where = f" on {failure.set_name}/{failure.clip_id}" if failure.clip_id else ""
            yield f"<li>{escape(failure.system + where)}: {escape(failure.reason)}</li>"
        yield "</ul>"


def _point(number: int, system: SystemSummary, estimate: Estimate) -> Point:
    value, low, high = (100 * part for part in (estimate.value, estimate.low, estimate.high))
    return Point(number, system.name, system.cpu_rtf, value, low, high, is_ours(system.name))


def _mark(system: SystemSummary, estimate: Estimate, factor: float = 1.0) -> Mark:
    value, low, high = (factor * part for part in (estimate.value, estimate.low, estimate.high))
    return Mark(system.name, value, low, high, is_ours(system.name))


def _memory(system: SystemSummary) -> Mark:
    peak, model = system.peak_rss_bytes / MEGABYTE, system.model_bytes / MEGABYTE
    return Mark(system.name, peak, min(model, peak), peak, is_ours(system.name))


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    names = {"system", "set"}
    column = next((index for index, heading in enumerate(head) if heading in names), 0)

    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(
            f'<{tag} class="name">{escape(cell)}</{tag}>' if index == column else f"<{tag}>{escape(cell)}</{tag}>"
            for index, cell in enumerate(row)
        )

    lines = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in body)
    return f'<div class="scroll"><table><tr>{cells(head, "th")}</tr>{lines}</table></div>'
