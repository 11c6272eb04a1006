"""Transcribes recordings (WAV, FLAC, OGG, MP3) with the configured engine. Publishes no message.

Examples:
    edgescribe transcribe interview.flac
    edgescribe transcribe --json --model base-q8_0 --language de *.wav
    ffmpeg -i film.mkv -f wav - | edgescribe transcribe -
"""

import argparse
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.asr.loading import Passage, load_engine, transcribe
from agent.commands.options import add_settings_options, engine_kind_for, number, settings_from
from agent.errors import SourceError
from agent.messages.presentation import clock, colours, confidence_pct
from agent.messages.transcript import Moment, latency, transcript_message

FIELDS: Final[tuple[str, ...]] = (
    *("duration_s", "text", "lang", "lang_prob", "avg_logprob", "no_speech_prob", "compression_ratio", "verdict"),
    *("engine", "model", "audio_ctx", "rtf", "truncated"),
)
"""Fields of a published transcript that a recording has as well."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a recording; - is standard input")
    parser.add_argument("--json", action="store_true", help="one JSON object a recording, with times and evidence")
    parser.add_argument("--model", help="a model by name, such as base-q8_0 (see `edgescribe models list`)")
    parser.add_argument("--language", help="ISO 639-1 code, or auto")
    parser.add_argument(
        "--channel",
        type=number(int, "1 to 64", lambda channel: channel in range(1, 65)),
        metavar="N",
        help="transcribe this channel; the first is 1 (default: all of them, mixed)",
    )
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Transcribe each file in turn. After one that cannot be read, go on with the next."""
    settings = settings_from(
        args,
        engine__kind=engine_kind_for(args.model) if args.model else None,
        engine__model=args.model,
        engine__language=args.language,
        segmenter__use="dictation",
    )
    engine = load_engine(settings)
    console = Console(highlight=False, color_system=colours())
    status = 0
    try:
        for path in args.files:
            try:
                passages = transcribe(path, settings, engine, args.channel)
                if args.json:
                    _print_json(path, passages)
                    continue
                if len(args.files) > 1:
                    print(f"\n{path}" if console.is_terminal else f"{path}:", flush=True)
                _print_text(passages, console)
            except SourceError as error:
                print(f"edgescribe: {error}", file=sys.stderr)
                status = error.exit_code
    finally:
        engine.close()
    return status


def _print_text(passages: Iterator[Passage], console: Console) -> None:
    """Print a line for each utterance: with time and confidence on a terminal, only the words in a pipe."""
    for passage in passages:
        text = passage.transcript.text
        if not console.is_terminal:
            print(text, flush=True)
            continue
        confidence = confidence_pct(passage.transcript.avg_logprob)
        line = Table.grid(padding=(0, 2))
        line.add_row(Text(f"{clock(passage.utterance.start_s):>9}", "cyan"), Text(text), Text(confidence, "dim"))
        console.print(line)


def _print_json(path: Path, passages: Iterator[Passage]) -> None:
    """Print one line of JSON for the recording. If its end cannot be read, print the utterances before it."""
    utterances: list[dict[str, object]] = []
    failure = None
    try:
        utterances.extend(_as_json(passage) for passage in passages)
    except SourceError as error:
        failure = error
    if utterances or not failure:
        text = " ".join(str(utterance["text"]) for utterance in utterances)
        print(json.dumps({"file": str(path), "text": text, "utterances": utterances}, ensure_ascii=False), flush=True)
    if failure:
        raise failure


def _as_json(passage: Passage) -> dict[str, object]:
    """Return the known `FIELDS` of an utterance, its start, and its segments."""
    utterance, transcript = passage.utterance, passage.transcript
    now = Moment(datetime.now(UTC), utterance.started_ns, synced=False)
    took = latency(utterance, transcript, 0.0, 0.0, now)
    message = transcript_message(utterance, transcript, took, seq=0, boot_id="", now=now, late=False)
    segments = [
        {
            "start_s": round(utterance.start_s + segment.start_s, 2),
            "end_s": round(utterance.start_s + segment.end_s, 2),
            "text": segment.text,
        }
        for segment in transcript.segments
    ]
    fields = message.model_dump(include=set(FIELDS), exclude_none=True)
    known = {name: fields[name] for name in FIELDS if name in fields} | {"text": transcript.text}
    return {"start_s": round(utterance.start_s, 3), **known, "segments": segments}
