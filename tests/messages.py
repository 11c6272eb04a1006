"""Messages to send in tests."""

from datetime import UTC, datetime
from typing import Any

from agent.messages import Info, Latency, TranscriptFailed, TranscriptMessage

NOON = datetime(2026, 11, 23, 12, 0, 0, 250_000, tzinfo=UTC)


def _of(seq: int) -> dict[str, Any]:
    """What a transcript and what is said in its place have in common."""
    return {
        "id": f"01JD{seq:022d}",
        "seq": seq,
        "boot_id": "b1946ac9-0000-4000-8000-000000000000",
        "ts": NOON,
        "start": NOON,
        "time_synced": True,
        "duration_s": 1.5,
    }


def transcript(seq: int, text: str = "turn on the light") -> TranscriptMessage:
    """A transcript whose id and text tell its place in the order."""
    return TranscriptMessage(
        **_of(seq),
        text=text,
        lang="en",
        verdict="confident",
        model="tiny.en-q8_0",
        engine="scripted",
        audio_ctx=384,
        rtf=0.1,
        latency_ms=Latency(vad_close=600, queue=1, encode_decode=150, total_from_speech_end=751),
        rms_dbfs=-23.4,
    )


def failed(seq: int) -> TranscriptFailed:
    """What is said instead of the transcript of that number."""
    return TranscriptFailed(**_of(seq), reason="engine", msg="it died")


def latency(total_ms: int) -> Latency:
    """Where the time of an utterance went, 600 ms of it in the pause and a fifth of the rest in the queue."""
    rest_ms = max(0, total_ms - 600)
    return Latency(vad_close=600, queue=rest_ms // 5, encode_decode=rest_ms * 4 // 5, total_from_speech_end=total_ms)


def info(device_id: str = "pi-1") -> Info:
    """What a device says about itself."""
    return Info(
        id=device_id, name="Kitchen", agent="0.1.0", boot_id="b1", engine="scripted", model="scripted", source="wav"
    )
