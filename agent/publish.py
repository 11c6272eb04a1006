"""From an utterance and its transcript to the message that subscribers get."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import numpy as np

from agent.audio import SAMPLE_RATE_HZ, Utterance, rms_dbfs
from agent.transcript import Transcript, Verdict
from agent.wire import Latency, TranscriptMessage, cut_text

_NS_PER_S = 1_000_000_000
_NS_PER_MS = 1_000_000
_PEAK = 32_767


@dataclass(frozen=True, slots=True)
class Moment:
    """The present, on both clocks."""

    wall: datetime
    """With time zone."""
    monotonic_ns: int
    synced: bool
    """Whether the wall clock is synchronised."""


def transcript_message(
    utterance: Utterance, transcript: Transcript, *, seq: int, boot_id: str, now: Moment
) -> TranscriptMessage:
    """The message for `transcript`, made at `now`. Its verdict must not be `rejected`: those are counted, not sent.

    The beginning is reckoned back from now on the monotonic clock, so that a jump of the wall clock while somebody
    spoke does no harm. For a recording read faster than it lasts, the monotonic times lie ahead; nothing gets negative.
    """
    text, cut = cut_text(transcript.text)
    age_s = (now.monotonic_ns - utterance.started_ns) / _NS_PER_S
    evidence = transcript.evidence
    return TranscriptMessage(
        id=utterance.id,
        seq=seq,
        boot_id=boot_id,
        ts=now.wall.astimezone(UTC),
        start=now.wall.astimezone(UTC) - timedelta(seconds=max(0.0, age_s)),
        time_synced=now.synced,
        duration_s=round(utterance.duration_s, 3),
        text=text,
        truncated=utterance.truncated or cut,
        lang=transcript.language,
        lang_prob=_rounded(evidence.language_prob),
        avg_logprob=_rounded(evidence.avg_logprob),
        no_speech_prob=_rounded(evidence.no_speech_prob),
        compression_ratio=_rounded(evidence.compression_ratio),
        verdict=_verdict(transcript.verdict),
        model=transcript.model,
        engine=transcript.engine,
        audio_ctx=transcript.audio_ctx,
        rtf=round(transcript.inference_s / utterance.duration_s, 3) if utterance.duration_s else 0.0,
        latency_ms=latency(utterance, transcript.inference_s, now.monotonic_ns),
        rms_dbfs=round(rms_dbfs(utterance.pcm), 1),
        clipped=_clipped(utterance),
    )


def latency(utterance: Utterance, inference_s: float, now_ns: int) -> Latency:
    """Divide the time since the end of speech; what is neither hang-over nor inference was waiting."""
    spoken_ns = (utterance.speech_end - utterance.position) * _NS_PER_S // SAMPLE_RATE_HZ
    vad_close_ms = round(utterance.hangover_s * 1_000)
    inference_ms = round(inference_s * 1_000)
    since_speech_ms = (now_ns - utterance.started_ns - spoken_ns) // _NS_PER_MS
    total_ms = max(since_speech_ms, inference_ms)
    return Latency(
        vad_close=vad_close_ms,
        queue=max(0, total_ms - vad_close_ms - inference_ms),
        encode_decode=inference_ms,
        total_from_speech_end=total_ms,
    )


def _clipped(utterance: Utterance) -> bool:
    pcm = utterance.pcm
    return bool(len(pcm)) and bool(np.any((pcm >= _PEAK) | (pcm <= -_PEAK)))


def _verdict(verdict: Verdict) -> Literal["confident", "doubtful"]:
    return "doubtful" if verdict is Verdict.DOUBTFUL else "confident"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
