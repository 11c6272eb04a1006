"""The golden utterance: a bundled sentence through the engine as it is, the proof that a device can hear."""

import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

import soundfile
from ulid import ULID

from agent.asr.transcriber import Transcriber
from agent.audio.frames import SAMPLE_RATE_HZ, Utterance
from agent.errors import EngineError
from agent.messages.presentation import score
from agent.mqtt.commands import Outcome

GOOD_SCORE: Final = 0.8
TIMEOUT_S: Final = 60.0
_RECORDING: Final = Path(__file__).parents[1] / "clips" / "demo.flac"
_START_S: Final = 4.7
_SPOKEN_UNTIL_S: Final = 7.5
_END_S: Final = 7.7
SENTENCE: Final = "Please hold while we try to connect you."
"""From `clips/demo.tsv`, where its times are, too; here with a little room around it, as a segmenter would leave."""


@cache
def golden_utterance() -> Utterance:
    """The bundled sentence."""
    first, last = round(_START_S * SAMPLE_RATE_HZ), round(_END_S * SAMPLE_RATE_HZ)
    pcm, _rate_hz = soundfile.read(_RECORDING, dtype="int16", start=first, stop=last)
    spoken = round((_SPOKEN_UNTIL_S - _START_S) * SAMPLE_RATE_HZ)
    return Utterance("golden", pcm, 0, time.monotonic_ns(), spoken, len(pcm))


def listen_to_it(transcriber: Transcriber) -> Outcome:
    """Transcribe it between two utterances."""
    # An id of its own each time: an engine that was lost over an utterance does not try that one again.
    utterance = replace(golden_utterance(), id=str(ULID()))
    try:
        transcript = transcriber.probe(utterance, TIMEOUT_S)
    except EngineError as error:
        return Outcome(str(error), "failed")
    result = score(SENTENCE, transcript.text)
    share = round(result.right / result.expected, 3)
    good = share >= GOOD_SCORE
    return Outcome(
        f"{result.right} of {result.expected} words are right",
        "ok" if good else "golden_mismatch",
        {
            "text": transcript.text,
            "expected": SENTENCE,
            "score": share,
            "rtf": round(transcript.inference_s / utterance.duration_s, 3),
            "model": transcript.model,
            "engine": transcript.engine,
            "lang": transcript.language,
        },
    )
