"""Transcribes recordings (WAV, FLAC, OGG, MP3) with the configured engine. Nothing is published."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.asr.loading import load_engine
from agent.asr.recording import Passage, transcribe
from agent.commands.options import add_settings_options, engine_kind_for, settings_from
from agent.errors import SourceError
from agent.messages.presentation import clock, colours, confidence_pct

CHANNELS = range(1, 65)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a recording; - is standard input")
    parser.add_argument("--json", action="store_true", help="one JSON object a recording, with times and evidence")
    parser.add_argument("--model", help="a model by name, such as base-q8_0 (see `edgescribe models list`)")
    parser.add_argument("--language", help="ISO 639-1 code, or auto")
    parser.add_argument(
        "--channel",
        type=_channel,
        metavar="N",
        help="transcribe this channel; the first is 1 (default: all of them, mixed)",
    )
    add_settings_options(parser)


def _channel(text: str) -> int:
    number = int(text)
    if number not in CHANNELS:
        msg = f"must be {CHANNELS[0]} to {CHANNELS[-1]}"
        raise argparse.ArgumentTypeError(msg)
    return number


def run(args: argparse.Namespace) -> int:
    """Transcribe each file in turn; one that cannot be read does not keep the others from it."""
    settings = settings_from(
        args,
        engine__kind=engine_kind_for(args.model) if args.model else None,
        engine__model=args.model,
        engine__language=args.language,
        segmenter__use="dictation",
    )
    engine = load_engine(settings)
    show = _show_json if args.json else _show_text
    status = 0
    try:
        for path in args.files:
            try:
                show(path, transcribe(path, settings, engine, args.channel), named=len(args.files) > 1)
            except SourceError as error:
                print(f"edgescribe: {error}", file=sys.stderr)
                status = error.exit_code
    finally:
        engine.close()
    return status


def _show_text(path: Path, passages: Iterator[Passage], *, named: bool) -> None:
    """For people, with times and confidence; in a pipe, one plain line an utterance."""
    console = Console(highlight=False, color_system=colours())
    if named:
        print(f"{path}:" if not console.is_terminal else f"\n{path}", flush=True)
    for passage in passages:
        text = passage.transcript.text
        if not console.is_terminal:
            print(text, flush=True)
            continue
        confidence = confidence_pct(passage.transcript.evidence.avg_logprob)
        line = Table.grid(padding=(0, 2))
        line.add_row(Text(f"{clock(passage.utterance.start_s):>9}", "cyan"), Text(text), Text(confidence, "dim"))
        console.print(line)


def _show_json(path: Path, passages: Iterator[Passage], *, named: bool) -> None:  # noqa: ARG001 - the object names it
    """Print one line of JSON when all of the recording is transcribed, or at the first error behind some words."""
    utterances: list[dict[str, object]] = []
    ended = False
    try:
        utterances.extend(_as_json(passage) for passage in passages)
        ended = True
    finally:
        if ended or utterances:
            text = " ".join(str(utterance["text"]) for utterance in utterances)
            print(
                json.dumps({"file": str(path), "text": text, "utterances": utterances}, ensure_ascii=False), flush=True
            )


def _as_json(passage: Passage) -> dict[str, object]:
    """Names and units as in the MQTT payload (`messages.TranscriptMessage`); what is not known is left out."""
    utterance, transcript = passage.utterance, passage.transcript
    evidence = transcript.evidence
    offset_s = utterance.start_s
    fields: dict[str, object | None] = {
        "start_s": round(offset_s, 3),
        "duration_s": round(utterance.duration_s, 3),
        "text": transcript.text,
        "lang": transcript.language,
        "lang_prob": evidence.language_prob,
        "avg_logprob": evidence.avg_logprob,
        "no_speech_prob": evidence.no_speech_prob,
        "compression_ratio": evidence.compression_ratio,
        "verdict": transcript.verdict,
        "engine": transcript.engine,
        "model": transcript.model,
        "audio_ctx": transcript.audio_ctx,
        "rtf": round(transcript.inference_s / utterance.duration_s, 4),
        "truncated": utterance.truncated,
        "segments": [
            {
                "start_s": round(offset_s + segment.start_s, 2),
                "end_s": round(offset_s + segment.end_s, 2),
                "text": segment.text,
            }
            for segment in transcript.segments
        ],
    }
    return {
        key: round(value, 4) if isinstance(value, float) else value
        for key, value in fields.items()
        if value is not None
    }
