"""A hot day of a small device, with the governor and without, in seconds.

    python benchmarks/governor_simulator.py --plot docs/governor.svg

The governor, its ladder, the measure of pace, the queue and the rules for drafts are the shipped ones; the board, the
engine's speed and what people say are simulated, in simulated time. Scenarios:

    busy-day    meetings and a dinner party in a warm room: too much for the full model, not for the smallest
    neighbour   the same, and from 14:15 to 14:45 another program leaves the engine a tenth of the processor
"""

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Final

from governor_device import Device
from governor_engines import SLOWER, TOP, Ways, measurements_from, usual_measurements, ways
from governor_plot import Days, draw
from governor_queue import Neighbour, Plan
from governor_record import Record, table
from governor_speech import HOUR_S, LENGTHS_S, day, lengths_from

from agent.errors import AgentError
from agent.governor.policy import Limits

DAY_H: Final = 24.0
SCENARIOS: Final = {"busy-day": (), "neighbour": (Neighbour(14.25, 14.75, 0.1),)}


def main() -> int:
    """Live through each scenario twice, and print both side by side."""
    parser = _parser()
    args = parser.parse_args()
    if not 0 <= args.start < DAY_H or not 0 < args.hours <= DAY_H - args.start:
        parser.error("a simulation begins and ends within one day: --start plus --hours is at most 24")
    if args.slower is not None and not args.slower > 0:
        parser.error("--slower is more than 0")
    try:
        lengths_s = lengths_from(args.segments) if args.segments else LENGTHS_S
        measured = measurements_from(args.calibration) if args.calibration else usual_measurements()
        slower = args.slower or (1.0 if args.calibration else SLOWER)
        levels = ways(measured, args.model, slower, args.floor)
    except (AgentError, OSError, ValueError) as error:
        parser.error(str(error))
    names = [args.scenario] if args.scenario else list(SCENARIOS)
    records = {name: [_live(args, name, levels, lengths_s, governed=on) for on in (False, True)] for name in names}
    if args.plot:
        days = [Days(name, off.minutes, on.minutes) for name, (off, on) in records.items()]
        limits = Limits()
        models = [level.model for level in levels.levels]
        args.plot.write_text(draw(days, limits.hot_c, limits.queue_age_s, models), encoding="utf-8")
    _print(args, records, levels)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="the same gives the same day (default: %(default)s)")
    parser.add_argument("--hours", type=float, default=DAY_H, help="of the day (default: %(default)g)")
    parser.add_argument("--start", type=float, default=0.0, help="hour at which it begins (default: %(default)g)")
    parser.add_argument("--scenario", choices=tuple(SCENARIOS), help="default: all, one after the other")
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="calibration.json of a real device")
    parser.add_argument(
        "--slower", type=float, metavar="N", help=f"times as measured (default: 1 with --calibration, else {SLOWER:g})"
    )
    parser.add_argument("--model", default=TOP, help="what the settings ask for (default: %(default)s)")
    parser.add_argument("--floor", default="", metavar="MODEL", help="governor.floor")
    parser.add_argument("--segments", type=Path, metavar="TSV", help="lengths of utterances, from its start and end")
    parser.add_argument("--plot", type=Path, metavar="SVG", help="draw it")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    return parser


def _live(
    args: argparse.Namespace, scenario: str, levels: Ways, lengths_s: tuple[float, ...], *, governed: bool
) -> Record:
    begin_s = args.start * HOUR_S
    plan = Plan(begin_s, begin_s + args.hours * HOUR_S, governed, neighbours=SCENARIOS[scenario])
    speech = day(lengths_s, random.Random(args.seed))  # noqa: S311 - repeatable
    return Device(levels, plan, random.Random(args.seed + 1)).run(speech)  # noqa: S311 - repeatable


def _print(args: argparse.Namespace, records: dict[str, list[Record]], levels: Ways) -> None:
    ladder = [
        {"model": level.model, "eager": level.speculative, "rtf": round(rtf, 3)}
        for level, rtf in zip(levels.levels, levels.rtf, strict=True)
    ]
    if args.json:
        figures = {name: {"off": off.figures(), "on": on.figures()} for name, (off, on) in records.items()}
        print(json.dumps({"seed": args.seed, "ladder": ladder, "scenarios": figures}, indent=2))
        return
    for number, level in enumerate(ladder):
        print(f"level {number}: {level['model']}, RTF {level['rtf']}{', decodes ahead' if level['eager'] else ''}")
    for name, (off, on) in records.items():
        print(f"\n### {name}\n\n{table(off.figures(), on.figures())}")


if __name__ == "__main__":
    sys.exit(main())
