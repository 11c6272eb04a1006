"""Draw error rate and CPU time against the window an utterance gets, from the results of `edgescribe bench`.

    python benchmarks/context_curve.py --out curve.svg RESULTS…

RESULTS are folders that `edgescribe bench --out` wrote: among their systems are ours with `context=MIN+MARGIN`, and the
stock library on the same weights (`stock-pywhispercpp:MODEL`, `stock-faster-whisper:MODEL:beam=5`). Every panel is one
engine with one model. Upper half: how many points more of the words are wrong than with stock, with the 95 % interval
of the paired bootstrap. Lower half: CPU time as a share of stock's.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from agent.bench.records import Measurement, read_journal
from agent.bench.score import Estimate
from agent.bench.summary import ClipResult, clip_results, compare
from agent.errors import AgentError

PEERS = {"whisper_cpp": "stock-pywhispercpp:{}", "faster_whisper": "stock-faster-whisper:{}:beam=5"}
PANEL_WIDTH, PANEL_HEIGHT, GAP, LEFT, TOP = 400, 300, 46, 52, 44
SPLIT = 190
"""Height of the upper half of a panel, in pixels."""
MAX_CPU = 0.6
STYLE = """
svg { background: #fff; } text { font: 12px system-ui, sans-serif; fill: #1d2430; } .faint { fill: #6a7585; }
.title { font-weight: 600; font-size: 13px; } .dot { fill: #0a7d55; } .cpu { fill: #a2580a; } .grid { stroke: #dfe3e8; }
.zero { stroke: #6a7585; stroke-dasharray: 4 3; } .interval { stroke: #6a7585; stroke-width: 2; }
"""


@dataclass(frozen=True, slots=True)
class Spot:
    """One policy of one engine and model, against stock."""

    policy: str
    """`MIN+MARGIN` or `full`."""
    clips: int
    wrong: Estimate
    """Points (1 = 1 %) of the words."""
    cpu: Estimate
    """Share of stock's CPU time."""


def main() -> int:
    """Read, draw, write; the figures go to standard output as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS")
    parser.add_argument("--out", type=Path, required=True, help="the SVG to write")
    args = parser.parse_args()
    try:
        panels = read_panels(args.results)
    except AgentError as error:
        sys.exit(str(error))
    if not panels:
        sys.exit("no system with context=MIN+MARGIN beside its stock library in there")
    for title, spots in panels.items():
        for spot in spots:
            difference = f"{spot.wrong.value:+.2f} [{spot.wrong.low:+.1f}, {spot.wrong.high:+.1f}]"
            print(f"| {title} | {spot.policy} | {spot.clips} | {difference} | {spot.cpu.value:.3f} |")
    args.out.write_text(draw(panels), encoding="utf-8")
    return 0


def read_panels(folders: Sequence[Path]) -> dict[str, list[Spot]]:
    """The spots by engine and model, in order of the window's size; only clips that stock and all policies have."""
    measured: dict[str, list[Measurement]] = {}
    for folder in folders:
        for record in read_journal(folder):
            if isinstance(record, Measurement):
                measured.setdefault(record.system, []).append(record)
    results = {name: clip_results(group) for name, group in measured.items()}
    models = sorted({(name.split(":")[0], name.split(":")[1]) for name in results if ":context=" in name})
    panels = {f"{engine} {model}": list(_spots(results, engine, model)) for engine, model in models}
    return {title: spots for title, spots in panels.items() if spots}


def _spots(results: Mapping[str, Sequence[ClipResult]], engine: str, model: str) -> Iterator[Spot]:
    stock = results.get(PEERS.get(engine, "").format(model))
    ours = {
        name.rpartition("context=")[2]: clips
        for name, clips in results.items()
        if name.startswith(f"{engine}:{model}:context=")
    }
    if not stock or not ours:
        return
    shared = set.intersection(*({clip.key for clip in clips} for clips in [stock, *ours.values()]))
    for policy in sorted(ours, key=_size):
        comparison = compare([clip for clip in ours[policy] if clip.key in shared], stock)
        if comparison and comparison["error_rate_difference"]:
            one = comparison["error_rate_difference"]
            points = Estimate(100 * one.value, 100 * one.low, 100 * one.high)
            yield Spot(policy, comparison["clips"], points, comparison["cpu_ratio"])


def _size(policy: str) -> tuple[int, ...]:
    return (10_000,) if policy == "full" else tuple(map(int, policy.split("+")))


def draw(panels: Mapping[str, Sequence[Spot]]) -> str:
    """The SVG: two panels in a row."""
    reach = max(max(abs(spot.wrong.low), abs(spot.wrong.high)) for spots in panels.values() for spot in spots)
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    width, height = LEFT + columns * (PANEL_WIDTH + GAP), TOP + rows * (PANEL_HEIGHT + GAP) + (rows - 1) * TOP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">',
        f"<style>{STYLE}</style>",
    ]
    for index, (title, spots) in enumerate(panels.items()):
        left, top = LEFT + (index % columns) * (PANEL_WIDTH + GAP), TOP + index // columns * (PANEL_HEIGHT + GAP + TOP)
        parts += [f'<g transform="translate({left} {top})">', *_panel(title, spots, reach), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _panel(title: str, spots: Sequence[Spot], reach: float) -> Iterator[str]:
    middle, scale = SPLIT / 2, (SPLIT / 2 - 6) / reach
    yield _text(0, -22, f"{title}, {spots[0].clips} utterances", "title", "start")
    yield _text(0, -6, "more words wrong than stock, points (95 %) · CPU / stock's", "faint", "start")
    for tick in _ticks(reach):
        yield _line(0, middle - tick * scale, PANEL_WIDTH, middle - tick * scale, "zero" if tick == 0 else "grid")
        yield _text(-6, middle - tick * scale + 4, f"{tick:+d}" if tick else "0", "faint", "end")
    bottom, tall = PANEL_HEIGHT, (PANEL_HEIGHT - SPLIT - 14) / MAX_CPU
    for share in (0.0, 1 / 3):
        yield _line(0, bottom - share * tall, PANEL_WIDTH, bottom - share * tall, "grid" if share == 0 else "zero")
        yield _text(-6, bottom - share * tall + 4, "1/3" if share else "0", "faint", "end")
    step = PANEL_WIDTH / len(spots)
    for index, spot in enumerate(spots):
        x = step * (index + 0.5)
        yield _line(x, middle - spot.wrong.low * scale, x, middle - spot.wrong.high * scale, "interval")
        about = f"{spot.policy}: {spot.wrong.value:+.2f} points, CPU {spot.cpu.value:.3f}"
        circle = f'<circle class="dot" cx="{x:.1f}" cy="{middle - spot.wrong.value * scale:.1f}" r="5">'
        yield f"{circle}<title>{escape(about)}</title></circle>"
        yield _text(x + 9, middle - spot.wrong.value * scale + 4, f"{spot.wrong.value:+.1f}", "value", "start")
        high = min(spot.cpu.value, MAX_CPU) * tall
        yield f'<rect class="cpu" x="{x - 7:.1f}" y="{bottom - high:.1f}" width="14" height="{high:.1f}"/>'
        yield _text(x, bottom - high - 4, f"{spot.cpu.value:.2f}", "value", "middle")
        yield _text(x, bottom + 16, spot.policy, "label", "middle")


def _ticks(reach: float) -> list[int]:
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100) if reach / step <= 4)  # noqa: PLR2004 - labels that fit
    return [tick * step for tick in range(-int(reach / step), int(reach / step) + 1)]


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


if __name__ == "__main__":
    sys.exit(main())
