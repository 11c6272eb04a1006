from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from agent.asr.transcript import Transcript, Verdict
from agent.audio.frames import Utterance
from agent.messages import MAX_TEXT_BYTES, TranscriptMessage
from agent.messages.transcript import Moment, latency, transcript_message

RATE = 16_000
STARTED_NS = 5_000_000_000
UTTERANCE = Utterance(
    id="01JD0000000000000000000001",
    pcm=np.full(2 * RATE, 1_000, np.int16),
    position=10 * RATE,
    started_ns=STARTED_NS,
    speech_end=10 * RATE + int(1.4 * RATE),
    closed_at=12 * RATE,
)
TRANSCRIPT = Transcript(
    utterance_id=UTTERANCE.id,
    text="turn on the light",
    language="en",
    segments=(),
    engine="whisper_cpp",
    model="tiny.en-q8_0",
    inference_s=0.25,
    audio_ctx=384,
    avg_logprob=-0.123456,
    no_speech_prob=0.01,
)
NOW = Moment(datetime(2026, 11, 23, 12, 0, 10, tzinfo=UTC), STARTED_NS + 2_300_000_000, synced=True)


def message(
    utterance: Utterance = UTTERANCE, transcript: Transcript = TRANSCRIPT, now: Moment = NOW
) -> TranscriptMessage:
    """The message for a variation of the utterance above."""
    took = latency(utterance, transcript, 0.01, 0.26, now)
    return transcript_message(utterance, transcript, took, seq=7, boot_id="b1", now=now, late=False)


def test_identity_order_and_words_are_taken_over() -> None:
    """The message is about this utterance and says where it belongs."""
    sent = message()
    assert (sent.id, sent.seq, sent.boot_id, sent.text) == (UTTERANCE.id, 7, "b1", "turn on the light")
    assert (sent.engine, sent.model, sent.audio_ctx, sent.lang) == ("whisper_cpp", "tiny.en-q8_0", 384, "en")
    assert (sent.duration_s, sent.rtf) == (2.0, 0.125)


def test_the_beginning_is_reckoned_back_on_the_monotonic_clock() -> None:
    """2.3 s after it began on the clock that does not jump."""
    assert message().start == NOW.wall - timedelta(seconds=2.3)


def test_instants_are_utc_whatever_the_zone() -> None:
    """A device in Vienna sends the same instants as one in London."""
    vienna = replace(NOW, wall=NOW.wall.astimezone(timezone(timedelta(hours=1))))
    assert message(now=vienna).payload() == message().payload()


def test_evidence_that_the_engine_cannot_give_is_left_out() -> None:
    """No zero stands in for an unknown probability."""
    payload = message().payload()
    assert b'"avg_logprob":-0.1235' in payload
    assert b"lang_prob" not in payload
    assert b"compression_ratio" not in payload


def test_the_latency_is_measured_from_the_end_of_speech() -> None:
    """Speech ended 0.9 s before now; 0.6 s of that was the hang-over."""
    parts = latency(UTTERANCE, TRANSCRIPT, 0.01, 0.26, NOW)
    assert (parts.vad_close, parts.queue, parts.encode_decode, parts.total_from_speech_end) == (600, 10, 250, 900)


def test_a_recording_read_faster_than_it_lasts_keeps_its_own_time_line() -> None:
    """Where capture times lie ahead, so do beginnings; the latency is hang-over plus waiting, never negative."""
    early = replace(NOW, monotonic_ns=STARTED_NS - 60_000_000_000)
    sent = message(now=early)
    assert sent.latency_ms.total_from_speech_end == 860
    assert sent.start == NOW.wall + timedelta(seconds=60)


@pytest.mark.parametrize(("verdict", "word"), [(Verdict.CONFIDENT, "confident"), (Verdict.DOUBTFUL, "doubtful")])
def test_doubt_is_passed_on(verdict: Verdict, word: str) -> None:
    """A subscriber can set its own policy."""
    assert message(transcript=replace(TRANSCRIPT, verdict=verdict)).verdict == word


def test_a_text_that_is_too_long_is_cut_and_marked() -> None:
    """8 KiB at most, in whole characters, and the message says so."""
    sent = message(transcript=replace(TRANSCRIPT, text="ü" * 5_000))
    assert len(sent.text.encode()) == MAX_TEXT_BYTES
    assert sent.truncated


def test_an_utterance_cut_at_its_maximum_length_is_marked() -> None:
    """A subscriber can join it with the next one."""
    assert message(utterance=replace(UTTERANCE, truncated=True)).truncated
    assert not message().truncated


@pytest.mark.parametrize("peak", [32_767, -32_767, -32_768])
def test_samples_at_full_scale_are_reported(peak: int) -> None:
    """Overdriven speech is marked, in either direction."""
    pcm = UTTERANCE.pcm.copy()
    pcm[100] = peak
    assert message(utterance=replace(UTTERANCE, pcm=pcm)).clipped
    assert not message().clipped


def test_the_level_is_that_of_the_utterance() -> None:
    """1000 of 32768 is -30.3 dBFS."""
    assert message().rms_dbfs == pytest.approx(-30.3, abs=0.05)
