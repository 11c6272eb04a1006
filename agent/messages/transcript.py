"""Makes messages from an utterance and its transcript."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from agent.asr.transcript import Transcript, Verdict
from agent.audio.frames import SAMPLE_RATE_HZ, Utterance, clipped_samples, rms_dbfs, snr_db
from agent.messages import Keyword, Latency, PartialTranscript, TranscriptMessage, cut_text


@dataclass(frozen=True, slots=True)
class Moment:
    """The present, on both clocks."""

    wall: datetime
    """With time zone."""
    monotonic_ns: int
    synced: bool
    """Whether the wall clock is synchronised."""


def transcript_message(
    utterance: Utterance, transcript: Transcript, took: Latency, *, seq: int, boot_id: str, now: Moment, late: bool
) -> TranscriptMessage:
    """Make the message for `transcript` at `now`. Its verdict must not be `rejected`: those are counted, not sent.

    The start is computed back from now on the monotonic clock, so a jump of the wall clock during speech does no harm.
    A recording that is read faster than real time has its own time line, from the moment it was opened: its starts lie
    in the future. `late` means that the sound was kept until the engine had time.
    """
    text, cut = cut_text(transcript.text)
    age_s = (now.monotonic_ns - utterance.started_ns) / 1e9
    return TranscriptMessage(
        id=utterance.id,
        seq=seq,
        boot_id=boot_id,
        ts=now.wall,
        start=now.wall - timedelta(seconds=age_s),
        time_synced=now.synced and utterance.dated,
        duration_s=round(utterance.duration_s, 3),
        text=text,
        truncated=utterance.truncated or cut,
        lang=transcript.language,
        lang_prob=_rounded(transcript.language_prob),
        avg_logprob=_rounded(transcript.avg_logprob),
        no_speech_prob=_rounded(transcript.no_speech_prob),
        compression_ratio=_rounded(transcript.compression_ratio),
        verdict=_verdict(transcript.verdict),
        model=transcript.model,
        engine=transcript.engine,
        audio_ctx=transcript.audio_ctx,
        rtf=round(transcript.inference_s / utterance.duration_s, 3) if utterance.duration_s else 0.0,
        latency_ms=took,
        rms_dbfs=round(rms_dbfs(utterance.pcm), 1),
        snr_db=_rounded(snr_db(utterance.pcm), 1),
        clipped=clipped_samples(utterance.pcm) > 0,
        replayed=late,
        late=late or None,
    )


def partial_message(utterance: Utterance, transcript: Transcript, now: datetime) -> PartialTranscript:
    """Make the message for the words so far of an utterance that may still go on."""
    return PartialTranscript(
        id=utterance.id,
        ts=now,
        duration_s=round(utterance.duration_s, 3),
        text=cut_text(transcript.text)[0],
        lang=transcript.language,
    )


def keyword_messages(transcript: Transcript, names: tuple[str, ...], now: Moment) -> tuple[Keyword, ...]:
    """Make a message for each keyword in `names`, without the text."""
    return tuple(
        Keyword(
            id=transcript.utterance_id,
            keyword=name,
            ts=now.wall,
            time_synced=now.synced,
            verdict=_verdict(transcript.verdict),
        )
        for name in names
    )


def latency(utterance: Utterance, transcript: Transcript, queue_s: float, wait_s: float, now: Moment) -> Latency:
    """Split the time since the end of speech.

    `queue_s` is the wait for the engine, 0 if it decoded inside the pause. `wait_s` runs from the end of the pause to
    the words.

    The total is measured from the capture of the last speech. It can be less than the sum of its parts, because an
    utterance may be decoded inside its hang-over. For a recording read flat out it is hang-over plus waiting.
    """
    spoken_s = (utterance.speech_end - utterance.position) / SAMPLE_RATE_HZ
    measured_s = (now.monotonic_ns - utterance.started_ns) / 1e9 - spoken_s
    return Latency(
        vad_close=round(utterance.hangover_s * 1_000),
        queue=round(queue_s * 1_000),
        encode_decode=round(transcript.inference_s * 1_000),
        total_from_speech_end=round(max(measured_s, utterance.hangover_s + wait_s) * 1_000),
    )


def _verdict(verdict: Verdict) -> Literal["confident", "doubtful"]:
    return "doubtful" if verdict is Verdict.DOUBTFUL else "confident"


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(value, digits)
