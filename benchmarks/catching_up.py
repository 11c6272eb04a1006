"""Working off a queue: the same clips one by one, and several at once, as the agent does when utterances wait.

    python benchmarks/catching_up.py FOLDER_WITH_A_MANIFEST …

All sizes take turns in each round, and ratios are made within a round, so other work on the
machine affects all sizes. The order of the clips is shuffled once, because a real queue is not sorted. The gain is CPU
time on a CPU, and time on a GPU.
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.asr import Engine, create_engine
from agent.asr.cpu import engine_threads
from agent.audio.frames import Utterance
from agent.bench.clips import Clip, demo_clips, load_pcm, read_clips, spread
from agent.bench.score import align
from agent.config.layers import load_settings, models_dir
from agent.config.settings import FasterWhisperSettings
from agent.errors import AgentError
from agent.models.catalogue import load_catalogue
from agent.models.selection import chosen_model
from agent.models.store import Store

_LONGEST_S: Final = 28.0
_SHUFFLE_SEED: Final = 1
_MOST_AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True)
class Spent:
    """What one round took."""

    cpu_s: float
    """Of all threads of this process."""
    wall_s: float


@dataclass(slots=True)
class Size:
    """Everything that is known about one size."""

    at_once: int
    rounds: list[Spent] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


def main() -> int:
    """Measure and print; 1 with one line if something is missing."""
    args = _arguments()
    try:
        clips = [clip for clip in spread(_clips(args.places), args.limit) if clip.duration_s <= _LONGEST_S]
        random.Random(_SHUFFLE_SEED).shuffle(clips)  # noqa: S311 - no secret
        settings = FasterWhisperSettings(
            model=args.model, device=args.device, compute_type=args.compute_type, threads=args.threads, language="en"
        )
        sizes = [Size(at_once) for at_once in args.at_once]
        _measure(_engine(settings, args.models), clips, sizes, args.rounds)
    except AgentError as error:
        print(error, file=sys.stderr)
        return 1
    figures = [_figures(size, sizes[0], clips, on_gpu=args.device == "cuda") for size in sizes]
    seconds = sum(clip.duration_s for clip in clips)
    if args.json:
        print(json.dumps({"clips": len(clips), "seconds": round(seconds, 1), "sizes": figures}, indent=2))
    else:
        print(f"{args.model} {args.compute_type} on {args.device}, threads: {engine_threads(args.threads)}")
        print(f"{len(clips)} clips, {seconds:.0f} s, median of {args.rounds}\n")
        print(_table(figures))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="*", type=Path, help="manifests, or folders with one; else the bundled clips")
    parser.add_argument("--model", default="tiny.en-ct2", help="a CTranslate2 model that has been pulled")
    parser.add_argument("--models", type=Path, help="folder of the model store, if it is not the agent's")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--compute-type", default="int8", help="int8_float16 or float16 with CUDA")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves one core free, as the agent does")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 4, 8], help="sizes; the first is the baseline")
    parser.add_argument("--limit", type=int, help="at most so many clips")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    args = parser.parse_args()
    if args.rounds < 1 or not all(1 <= size <= _MOST_AT_ONCE for size in args.at_once):
        parser.error(f"--rounds is at least 1, --at-once is 1 to {_MOST_AT_ONCE}")
    return args


def _clips(places: Sequence[Path]) -> list[Clip]:
    return [clip for clip in read_clips(places) if clip.language == "en"] if places else demo_clips()


def _engine(settings: FasterWhisperSettings, models: Path | None) -> Engine:
    store = Store(models or models_dir(load_settings()), load_catalogue())
    return create_engine(settings, chosen_model(settings, store))


def _measure(engine: Engine, clips: Sequence[Clip], sizes: Sequence[Size], rounds: int) -> None:
    utterances = [_utterance(clip) for clip in clips]
    engine.transcribe(utterances[:1])  # excludes the cost of the first call
    for number in range(rounds):
        for size in sizes:
            print(f"round {number + 1}, {size.at_once} at once", file=sys.stderr)
            spent, size.texts = _work_off(engine, utterances, size.at_once)
            size.rounds.append(spent)
    engine.close()


def _work_off(engine: Engine, utterances: Sequence[Utterance], at_once: int) -> tuple[Spent, list[str]]:
    texts: list[str] = []
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    for start in range(0, len(utterances), at_once):
        batch = utterances[start : start + at_once]
        heard = engine.transcribe(batch)
        texts += [transcript.text for transcript in heard]
    return Spent(time.process_time() - began_cpu_s, time.perf_counter() - began_s), texts


def _utterance(clip: Clip) -> Utterance:
    pcm = load_pcm(clip)
    return Utterance(clip.key, pcm, position=0, started_ns=0, speech_end=len(pcm), closed_at=len(pcm))


def _figures(size: Size, baseline: Size, clips: Sequence[Clip], *, on_gpu: bool) -> dict[str, float]:
    seconds = sum(clip.duration_s for clip in clips)
    aligned = [align(clip.text, text, "en") for clip, text in zip(clips, size.texts, strict=True)]
    pairs = list(zip(baseline.rounds, size.rounds, strict=True))
    gains = [one.wall_s / this.wall_s if on_gpu else one.cpu_s / this.cpu_s for one, this in pairs]
    return {
        "at_once": size.at_once,
        "cpu_s_per_s": round(statistics.median(spent.cpu_s for spent in size.rounds) / seconds, 4),
        "rtf": round(statistics.median(spent.wall_s for spent in size.rounds) / seconds, 4),
        "gain": round(statistics.median(gains), 3),
        "gain_min": round(min(gains), 3),
        "gain_max": round(max(gains), 3),
        "wer_pct": round(100 * sum(each.errors for each in aligned) / sum(each.said for each in aligned), 2),
        "texts_that_differ": sum(one != this for one, this in zip(baseline.texts, size.texts, strict=True)),
    }


def _table(figures: Sequence[dict[str, float]]) -> str:
    head = "| at once | CPU s per s | RTF | gain (least to most) | WER, % | texts that differ |"
    rows = [
        f"| {each['at_once']} | {each['cpu_s_per_s']:.4f} | {each['rtf']:.4f} | "
        f"{each['gain']:.2f} ({each['gain_min']:.2f} to {each['gain_max']:.2f}) | {each['wer_pct']:.2f} | "
        f"{each['texts_that_differ']} |"
        for each in figures
    ]
    return "\n".join([head, "|---|---|---|---|---|---|", *rows])


if __name__ == "__main__":
    sys.exit(main())
