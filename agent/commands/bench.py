"""Measures systems side by side on this machine: engines, models, and peers on the same weights.

Error rates and the page need the extra `bench`; --latency and --idle do without. Without these two options, single
clips and streams are measured. Only ratios within one run mean anything.

A SYSTEM is ENGINE:MODEL[:OPTION,OPTION…]. Engines: whisper_cpp, faster_whisper; peers: stock-pywhispercpp,
stock-faster-whisper, wyoming-faster-whisper, openai-whisper, transformers (the extra `peers`).

Examples:
  whisper_cpp:tiny.en-q8_0                  ours, as the agent would run it
  whisper_cpp:tiny.en-q8_0:context=full     any setting of the engine can be an option
  whisper_cpp:tiny.en-q8_0:vad              ours, behind voice activity detection as in the agent
  whisper_cpp:tiny.en-q8_0:hang_over_ms=1000  any setting of the segmenter too, and threshold and gate of [vad]
  whisper_cpp:tiny.en-q8_0:busy=1           while another process keeps a core busy
  stock-faster-whisper:tiny.en-ct2:beam=5   a peer on the same weights
"""

import argparse
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from agent.bench import latency, steps, streams
from agent.bench.child import Adapter, System
from agent.bench.clips import NO_SPEECH, Clip, demo_clips, read_clips, refuse_missing, spread
from agent.bench.ours import listening_settings
from agent.bench.process import ProcessPool
from agent.bench.records import FILE_NAME, Journal, Measurement, Record, read_journal
from agent.bench.report import print_report, write_report
from agent.bench.score import normaliser
from agent.bench.summary import summarise
from agent.bench.systems import distinct, located, named, parse_system, peers_of, weights_sha256, with_threads
from agent.commands.options import INTERRUPTED, add_settings_options, ended_in_order, number, settings_from
from agent.config.layers import models_dir
from agent.errors import ConfigError
from agent.install import extras
from agent.models.catalogue import load_catalogue
from agent.models.choice import engine_for
from agent.models.store import Store

_QUICK_CLIPS = 12
_positive = number(int, "a whole number of at least 1", lambda number: number >= 1)
_SYSTEM_MEMORY_BYTES = 500_000_000
"""About the memory of one system: it decides how many stay in memory."""
_CLIPS_A_BLOCK = 10
"""A system stays loaded for this many clips, if not all systems fit into memory."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    add = parser.add_argument
    add("places", nargs="*", type=Path, metavar="MANIFEST_OR_FOLDER", help="clips (default: the bundled ones)")
    add("--system", action="append", default=[], metavar="SYSTEM", help="what to measure (default: installed models)")
    add("--peers", action="store_true", help="measure, for each model, the peers that can take it as well")
    add("--latency", action="store_true", help="time whole systems, from the end of speech to a subscriber")
    add("--stream", action="store_true", help="measure only streams: clips in room noise, against each clip whole")
    noise = "lay the clips of streams over this recorded noise as well (default: over generated noise only)"
    add("--noise", action="append", default=[], metavar="FILE_OR_FOLDER[@DBFS]", help=noise)
    add("--idle", type=_positive, metavar="SECONDS", help="measure whole agents without speech, for this time")
    add("--baseline", metavar="SYSTEM", help="compare the others with this one (default: the first peer)")
    add("--threads", type=_positive, metavar="N", help="inference threads of every system (default: all cores but one)")
    add("--repeats", type=_positive, default=1, metavar="N", help="go through everything N times, report medians")
    add("--quick", action="store_true", help=f"{_QUICK_CLIPS} clips, spread over all sets")
    add("--limit", type=_positive, metavar="N", help="at most N clips, spread over all sets")
    add("--language", metavar="CODE", help="only clips in this language (and those without speech)")
    add("--skip", action="append", default=[], metavar="SET", help="leave out a set")
    add("--out", type=Path, default=Path("edgescribe-bench"), metavar="DIR", help="results (default: %(default)s)")
    add("--resume", action="store_true", help="go on where an earlier run with the same --out stopped")
    add("--resident", type=_positive, metavar="N", help="systems in memory at once (default: as many as fit)")
    add("--peer-python", type=Path, metavar="FILE", help="Python that has the peers, if this one does not")
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, write everything down, and print the tables, also after an interrupt."""
    store = Store(models_dir(settings_from(args)), load_catalogue())
    systems, clips, where = _systems(args, store), _clips(args), streams.rooms(args.noise)
    if not (args.idle or args.latency):
        for language in {clip.language for clip in clips if clip.text}:
            normaliser(language)
    baseline = _baseline(args, systems)
    if (args.out / FILE_NAME).exists() and not args.resume:
        raise ConfigError(f"{args.out} holds the results of an earlier run: go on with --resume, or name another --out")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {args.out}: {error.strerror}") from None
    interrupted = False
    try:
        with ended_in_order():
            _measure(args, store, systems, clips, where)
    except KeyboardInterrupt:
        interrupted = True
    report = summarise(read_journal(args.out), baseline)
    page = str(args.out / "report.html")
    if not write_report(report, args.out):
        page = f"no page, which needs the extra `bench`: {extras.missing('bench')}"
    print_report(report, Console())
    print(f"All results: {args.out / 'report.json'}, {page}")
    if interrupted:
        print("edgescribe: interrupted: go on with the same command and --resume", file=sys.stderr)
        return INTERRUPTED
    return 0 if report.systems or report.latencies or report.idle or report.streams else 1


def _systems(args: argparse.Namespace, store: Store) -> list[System]:
    installed = [f"{engine_for(model)}:{model.name}" for model in store.installed()]
    systems = [parse_system(text) for text in args.system or installed]
    if not systems:
        raise ConfigError("no model is installed: run `edgescribe models pull tiny.en-q8_0`, or name one with --system")
    if args.peers:
        ours = [system for system in systems if system.adapter.ours and system.adapter is not Adapter.SCRIPTED]
        known = {(system.model, system.adapter.model_format) for system in ours}
        systems += [peer for model, kind in sorted(known) for peer in peers_of(model, kind)]
    option, kinds = "--stream", "our engines"
    if args.idle:
        option, systems = "--idle", [system for system in systems if system.adapter.ours]
    elif args.latency:
        option, kinds = "--latency", "our engines, or wyoming-faster-whisper"
        systems = [system for system in systems if latency.can_be_timed(system)]
    if not systems or (args.stream and not any(streams.can_be_streamed(system) for system in systems)):
        raise ConfigError(f"{option}: no --system here is a whole system with a model: name one of {kinds}")
    for system in systems:
        listening_settings(system.options)
    threads = args.threads or max(1, len(os.sched_getaffinity(0)) - 1)
    return [with_threads(system, threads) for system in distinct(systems)]


def _clips(args: argparse.Namespace) -> list[Clip]:
    clips = read_clips(args.places) if args.places else demo_clips()
    wanted = (args.language, NO_SPEECH) if args.language else None
    clips = [clip for clip in clips if clip.set_name not in args.skip and (not wanted or clip.language in wanted)]
    if not clips:
        raise ConfigError("no clip is left: --language or --skip leave out everything")
    chosen = spread(clips, args.limit or (_QUICK_CLIPS if args.quick else None))
    refuse_missing(chosen)
    return chosen


def _baseline(args: argparse.Namespace, systems: list[System]) -> str:
    if args.baseline is None:
        return next((system.name for system in systems if not system.adapter.ours), systems[0].name)
    earlier = read_journal(args.out) if args.resume else []
    measured = [record.system for record in earlier if isinstance(record, Measurement)]
    return named(args.baseline, list(dict.fromkeys([*(system.name for system in systems), *measured])))


def _measure(
    args: argparse.Namespace, store: Store, systems: list[System], clips: list[Clip], rooms: list[streams.Room]
) -> None:
    """Take the steps that an earlier run has not finished, and show the progress."""
    earlier = read_journal(args.out)
    systems = [located(system, store) for system in systems]
    setups = [steps.setup_of(system, weights_sha256(system, store)) for system in systems]
    head: list[Record] = [] if earlier else [steps.describe(shlex.join(["edgescribe", *sys.argv[1:]]))]
    head += steps.new_setups(args.out, earlier, setups)
    head += [] if args.idle else steps.left_out(systems, clips)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    console = Console(stderr=True)
    with closing(Journal(args.out)) as journal:
        for record in head:
            journal.write(record)
        for plan, resident, take in _phases(args, systems, clips, rooms, earlier):
            left = steps.steps_left(plan, earlier)
            pool = ProcessPool(journal, resident, args.peer_python)
            with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
                task = progress.add_task("loading", total=len(left))
                for step in steps.run_steps(left, take, journal, pool):
                    progress.update(task, advance=1, description=step.system.name)


def _phases(
    args: argparse.Namespace,
    systems: list[System],
    clips: list[Clip],
    rooms: list[streams.Room],
    earlier: list[Record],
) -> Iterator[tuple[list[steps.Step], int, steps.Take]]:
    """Yield steps, the number of systems in memory for them, and the function that takes a step."""
    if args.idle:
        sound = latency.quiet_sound(clips, args.idle + latency.LOADING_S)
        yield steps.plan_idle(systems, args.repeats), 1, lambda step, _pool: latency.take_idle(step, sound)
    elif args.latency:
        yield steps.plan_latency(systems, clips, args.repeats), 1, latency.take_latency
    else:
        if not args.stream:
            fit = psutil.virtual_memory().available // _SYSTEM_MEMORY_BYTES
            resident = args.resident or max(1, min(len(systems), fit))
            block = 1 if resident >= len(systems) else _CLIPS_A_BLOCK
            yield steps.plan_clips(systems, clips, args.repeats, block), resident, steps.take_clip
        take = partial(streams.take_stream, rooms=rooms, whole_texts=streams.whole_texts_in(earlier))
        yield streams.plan_streams(systems, clips, rooms, args.repeats), 2, take
