"""`edgescribe bench`: measure systems side by side on this machine."""

import argparse
import json
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands.ending import INTERRUPTED, ended_in_order
from agent.commands.options import add_settings_options, settings_from
from agent.errors import ConfigError

if TYPE_CHECKING:
    from agent.bench.clips import Clip
    from agent.bench.idle import IdleStep
    from agent.bench.latency_runner import BlockStep
    from agent.bench.models import ModelShelf
    from agent.bench.records import Journal, Record
    from agent.bench.runner import Step
    from agent.bench.stream import Room, StreamStep
    from agent.bench.summary import Report
    from agent.bench.systems import System

_QUICK_CLIPS = 12
_SYSTEM_MEMORY_BYTES = 500_000_000
"""What a system takes, give or take: decides how many are kept in memory."""
_CLIPS_A_BLOCK = 10
"""Where not all systems fit into memory, each is loaded for so many clips."""

_EPILOG = """\
A SYSTEM is ENGINE:MODEL[:OPTION,OPTION…], for example
  whisper_cpp:tiny.en-q8_0                  ours, as the agent would run it
  whisper_cpp:tiny.en-q8_0:context=full     any setting of the engine can be an option
  whisper_cpp:tiny.en-q8_0:vad              ours, behind voice activity detection as in the agent
  whisper_cpp:tiny.en-q8_0:hang_over_ms=1000  likewise any setting of the segmenter, and threshold and gate of [vad]
  whisper_cpp:tiny.en-q8_0:busy=1           while another process keeps a core busy
  stock-faster-whisper:tiny.en-ct2:beam=5   a peer on the same weights
Engines: whisper_cpp, faster_whisper; peers: stock-pywhispercpp, stock-faster-whisper, wyoming-faster-whisper,
openai-whisper, transformers (the extra `peers`). Only ratios within one run mean anything.
"""


@dataclass(frozen=True, slots=True)
class _Task:
    """What is to be measured, and what of it is there already."""

    systems: "Sequence[System]"
    clips: "Sequence[Clip]"
    paths: dict[str, Path]
    """Each system's model, by the system's name."""
    journal: "Journal"
    """Takes what comes of it."""
    rooms: "Sequence[Room]"
    """Where clips are laid into streams."""
    earlier: "Sequence[Record]"
    """What an earlier run with the same `--out` wrote into it; empty if there was none."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    parser = subparsers.add_parser(
        "bench",
        help="measure error rate, speed, latency and memory of engines and models (needs the extra `bench`)",
        description="Measures systems side by side on this machine: engines, models, and peers on the same weights. "
        "Error rates need the extra `bench`; --latency and --idle do without. Single clips and streams are measured "
        "where neither is asked for.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "places", nargs="*", type=Path, metavar="MANIFEST_OR_FOLDER", help="what to transcribe (default: bundled clips)"
    )
    add("--system", action="append", default=[], metavar="SYSTEM", help="what to measure (default: installed models)")
    add("--peers", action="store_true", help="measure, for each model, the peers that can take it as well")
    add("--latency", action="store_true", help="time whole systems, from the end of speech to a subscriber")
    add("--stream", action="store_true", help="measure only streams: clips in room noise, against each clip whole")
    add(
        *("--noise",),
        action="append",
        default=[],
        metavar="FILE_OR_FOLDER[@DBFS]",
        help="lay the clips of streams over this recorded noise as well (default: over generated noise only)",
    )
    add("--idle", type=_positive, metavar="SECONDS", help="measure whole agents while nobody speaks, for so long")
    add("--baseline", metavar="SYSTEM", help="what the others are compared with (default: the first peer)")
    add("--threads", type=_positive, metavar="N", help="inference threads of every system (default: all cores but one)")
    add("--repeats", type=_positive, default=1, metavar="N", help="go through everything N times, report medians")
    add("--quick", action="store_true", help=f"{_QUICK_CLIPS} clips, spread over all sets")
    add("--limit", type=_positive, metavar="N", help="at most N clips, spread over all sets")
    add("--language", metavar="CODE", help="only clips in this language (and those without speech)")
    add("--skip", action="append", default=[], metavar="SET", help="leave out a set")
    add("--out", type=Path, default=Path("edgescribe-bench"), metavar="DIR", help="results (default: %(default)s)")
    add("--resume", action="store_true", help="go on where an earlier run with the same --out stopped")
    add("--resident", type=_positive, metavar="N", help="systems in memory at once (default: as many as fit)")
    add("--peer-python", type=Path, metavar="FILE", help="Python that has the peers, if they live elsewhere")
    add_settings_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, write everything down, and print the tables; also of a part, if it is ended before its time."""
    from rich.console import Console

    from agent.bench.models import ModelShelf
    from agent.bench.scoring import require
    from agent.bench.stream import rooms
    from agent.bench.table import print_report

    shelf = ModelShelf(settings_from(args))
    systems = _systems(args, shelf)
    clips, where = _clips(args), rooms(args.noise)
    if not (args.idle or args.latency):
        require(clip.language for clip in clips if clip.text)
    baseline = _baseline(args, systems)
    _prepare_folder(args.out, resume=args.resume)
    interrupted = False
    try:
        with ended_in_order():
            _measure(args, shelf, systems, clips, where)
    except KeyboardInterrupt:
        interrupted = True
    report = _report(args.out, baseline)
    print_report(report, Console())
    print(f"All results: {args.out / 'report.html'}, {args.out / 'report.json'}")
    if interrupted:
        print("edgescribe: ended before its time: go on with the same command and --resume", file=sys.stderr)
        return INTERRUPTED
    return 0 if report.systems or report.latencies or report.idle or report.streams else 1


def _systems(args: argparse.Namespace, shelf: "ModelShelf") -> "list[System]":
    from agent.bench.latency_runner import can_be_timed
    from agent.bench.machine import cores
    from agent.bench.stream import can_be_streamed
    from agent.bench.systems import Adapter, distinct, listening_settings, parse_system, peers_of, with_threads

    systems = [parse_system(text) for text in args.system] or shelf.systems()
    if not systems:
        raise ConfigError("no model is installed: run `edgescribe models pull tiny.en-q8_0`, or name one with --system")
    if args.peers:
        ours = [system for system in systems if system.adapter.ours and system.adapter is not Adapter.SCRIPTED]
        known = {(system.model, system.adapter.model_format) for system in ours}
        systems += [peer for model, kind in sorted(known) for peer in peers_of(model, kind)]
    if args.idle:
        systems = [system for system in systems if system.adapter.ours]
        if not systems:
            raise ConfigError("--idle: none of these is an agent; take our engines")
    if args.latency:
        systems = [system for system in systems if can_be_timed(system)]
    if not systems:
        raise ConfigError("--latency: none of these is a whole system; take our engines and wyoming-faster-whisper")
    if args.stream and not any(can_be_streamed(system) for system in systems):
        raise ConfigError("--stream: none of these is an agent with a model; take our engines")
    for system in systems:
        listening_settings(system.options)
    threads = args.threads or max(1, cores() - 1)
    return [with_threads(system, threads) for system in distinct(systems)]


def _clips(args: argparse.Namespace) -> "list[Clip]":
    from agent.bench.clips import NO_SPEECH, demo_clips, read_clips, refuse_missing, spread

    clips = read_clips(args.places) if args.places else demo_clips()
    wanted = (args.language, NO_SPEECH)
    clips = [clip for clip in clips if args.language is None or clip.language in wanted]
    clips = [clip for clip in clips if clip.set_name not in args.skip]
    if not clips:
        raise ConfigError("no clip is left: --language or --skip leave out everything")
    chosen = spread(clips, args.limit or (_QUICK_CLIPS if args.quick else None))
    refuse_missing(chosen)
    return chosen


def _prepare_folder(folder: Path, *, resume: bool) -> None:
    from agent.bench.records import FILE_NAME, drop_torn_line

    if (folder / FILE_NAME).exists() and not resume:
        raise ConfigError(f"{folder} holds the results of an earlier run: go on with --resume, or name another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        drop_torn_line(folder)
    except OSError as error:
        raise ConfigError(f"--out {folder}: {error.strerror}") from None


def _measure(
    args: argparse.Namespace,
    shelf: "ModelShelf",
    systems: "Sequence[System]",
    clips: "Sequence[Clip]",
    rooms: "Sequence[Room]",
) -> None:
    from agent.bench import machine
    from agent.bench.records import Journal, read_journal
    from agent.bench.resuming import news, refuse_others, setup_of, unknown
    from agent.bench.systems import left_out

    earlier = read_journal(args.out)
    paths = {system.name: shelf.path(system) for system in systems}
    setups = [setup_of(system, shelf.sha256(paths[system.name])) for system in systems]
    refuse_others(args.out, earlier, setups)
    if names := unknown(earlier, setups):
        note = f"{args.out} is of an earlier version: whether {', '.join(names)} are the same as then is not known"
        print(f"edgescribe: {note}", file=sys.stderr)
    journal = Journal(args.out)
    try:
        if not earlier:
            journal.write(machine.describe(shlex.join(["edgescribe", *sys.argv[1:]])))
        for setup in news(earlier, setups):
            journal.write(setup)
        for untaken in () if args.idle else left_out(systems, clips):
            journal.write(untaken)
        task = _Task(systems, clips, paths, journal, rooms, earlier)
        if args.idle or args.latency:
            _take_rest(args, task) if args.idle else _take_blocks(args, task)
            return
        if not args.stream:
            _take_clips(args, task)
        _take_streams(args, task)
    finally:
        journal.close()


def _take_clips(args: argparse.Namespace, task: _Task) -> None:
    from agent.bench.runner import Runner, done, plan

    resident = args.resident or _resident(len(task.systems))
    block = 1 if resident >= len(task.systems) else _CLIPS_A_BLOCK
    steps = plan(task.systems, task.clips, args.repeats, block=block)
    taken = done(task.earlier)
    left = [step for step in steps if step.key not in taken]
    _show_progress(Runner(task.paths, task.journal, resident, args.peer_python).run(left), len(left))


def _take_blocks(args: argparse.Namespace, task: _Task) -> None:
    from agent.bench.latency_runner import LatencyRunner, blocks_done, plan_blocks, refuse_other_clips

    taken = blocks_done(task.earlier)
    steps = plan_blocks(task.systems, task.clips, args.repeats)
    refuse_other_clips(task.earlier, steps)
    left = [step for step in steps if step.key not in taken]
    _show_progress(LatencyRunner(task.paths, task.journal, args.peer_python).run(left), len(left))


def _take_streams(args: argparse.Namespace, task: _Task) -> None:
    from agent.bench.stream import StreamRunner, plan_streams, streams_done

    taken = streams_done(task.earlier)
    steps = plan_streams(task.systems, task.clips, task.rooms, args.repeats)
    left = [step for step in steps if step.key not in taken]
    _show_progress(StreamRunner(task.paths, task.journal, args.peer_python, task.earlier).run(left), len(left))


def _take_rest(args: argparse.Namespace, task: _Task) -> None:
    from agent.bench.idle import LOADING_S, IdleRunner, idle_done, plan_idle, quiet_sound

    taken = idle_done(task.earlier)
    left = [step for step in plan_idle(task.systems, args.repeats) if step.key not in taken]
    sound = quiet_sound(task.clips, args.idle + LOADING_S)
    _show_progress(IdleRunner(task.paths, task.journal, sound).run(left), len(left))


def _show_progress(steps: "Iterable[Step | BlockStep | IdleStep | StreamStep]", total: int) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("loading", total=total)
        for step in steps:
            progress.update(task, advance=1, description=step.system.name)


def _baseline(args: argparse.Namespace, systems: "Sequence[System]") -> str:
    """Name of the system that the others are compared with: the one that was asked for, or the first peer."""
    from agent.bench.records import Measurement, read_journal
    from agent.bench.systems import named

    if args.baseline is None:
        return next((system.name for system in systems if not system.adapter.ours), systems[0].name)
    earlier = read_journal(args.out) if args.resume else []
    names = dict.fromkeys(system.name for system in systems)
    names |= dict.fromkeys(record.system for record in earlier if isinstance(record, Measurement))
    return named(args.baseline, list(names))


def _report(folder: Path, baseline: str) -> "Report":
    from agent.bench.page import render
    from agent.bench.records import read_journal
    from agent.bench.summary import summarise

    report = summarise(read_journal(folder), baseline)
    document = json.dumps({"v": 1, **asdict(report)}, indent=1, ensure_ascii=False)
    (folder / "report.json").write_text(document + "\n", encoding="utf-8")
    (folder / "report.html").write_text(render(report), encoding="utf-8")
    return report


def _resident(systems: int) -> int:
    import psutil

    fit = psutil.virtual_memory().available // _SYSTEM_MEMORY_BYTES
    return int(max(1, min(systems, fit)))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        msg = f"must be a whole number of at least 1, not {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)
