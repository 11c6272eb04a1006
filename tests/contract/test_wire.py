import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from agent.messages import (
    MAX_TEXT_BYTES,
    Health,
    Info,
    Message,
    Reply,
    State,
    Status,
    TranscriptMessage,
    Vad,
    cut_text,
    topic_for,
)
from agent.messages.telemetry import Asr, Audio, Cpu, Disk, Mem, Psi, Pwr, TelemetryMessage
from docs.payload_schemas import published_kinds
from tests.messages import NOON, info, transcript

TELEMETRY = TelemetryMessage(
    ts=NOON,
    up_s=60,
    cpu=Cpu(pct=12.5),
    mem=Mem(),
    disk=Disk(),
    audio=Audio(xruns=0, gaps_s=0.0),
    asr=Asr(utt=0, dropped_s=0.0, speech_pct=0.0, rejected=0),
)


@pytest.mark.parametrize(
    ("kind", "topic", "qos", "retained", "schema"),
    [
        (Status, "edgescribe/v1/pi-1/status", 1, True, "status/1"),
        (Info, "edgescribe/v1/pi-1/info", 1, True, "info/1"),
        (State, "edgescribe/v1/pi-1/state", 1, True, "state/1"),
        (Health, "edgescribe/v1/pi-1/health", 1, True, "health/1"),
        (TelemetryMessage, "edgescribe/v1/pi-1/telemetry", 0, False, "telemetry/1"),
        (Vad, "edgescribe/v1/pi-1/vad", 0, False, "vad/1"),
        (TranscriptMessage, "edgescribe/v1/pi-1/transcript", 1, False, "transcript/1"),
    ],
)
def test_topics_and_delivery_are_those_of_the_contract(
    kind: type[Message],
    topic: str,
    qos: int,
    retained: bool,  # noqa: FBT001 - a column of the table above
    schema: str,
) -> None:
    """Whoever subscribes today finds the same topics tomorrow."""
    assert topic_for("pi-1", kind) == topic
    assert (kind.qos, kind.retained, kind.schema_name) == (qos, retained, schema)


def test_what_was_said_is_never_retained() -> None:
    """A broker keeps no speech: every kind that carries text is unretained, and expires."""
    kinds = published_kinds()
    assert TranscriptMessage in kinds
    spoken = [kind for kind in kinds if "text" in kind.model_fields]
    assert spoken
    assert not any(kind.retained for kind in spoken)
    assert all(kind.expiry_s for kind in spoken)


def test_a_transcript_has_exactly_these_fields() -> None:
    """The payload of contract 1; fields are only ever added, so a removed or renamed one fails here."""
    assert json.loads(transcript(3).payload()) == {
        "v": 1,
        "event_type": "transcript",
        "id": "01JD0000000000000000000003",
        "seq": 3,
        "boot_id": "b1946ac9-0000-4000-8000-000000000000",
        "ts": "2026-11-23T12:00:00.250Z",
        "start": "2026-11-23T12:00:00.250Z",
        "time_synced": True,
        "duration_s": 1.5,
        "text": "turn on the light",
        "truncated": False,
        "lang": "en",
        "verdict": "confident",
        "model": "tiny.en-q8_0",
        "engine": "scripted",
        "audio_ctx": 384,
        "rtf": 0.1,
        "latency_ms": {"vad_close": 600, "queue": 1, "encode_decode": 150, "total_from_speech_end": 751},
        "rms_dbfs": -23.4,
        "clipped": False,
        "replayed": False,
    }


def test_what_is_not_known_is_left_out() -> None:
    """No null and no made-up zero, at any depth."""
    payload = json.loads(TELEMETRY.payload())
    assert payload["cpu"] == {"pct": 12.5}
    assert payload["mem"] == {}
    assert "mqtt" not in payload
    assert "null" not in TELEMETRY.payload().decode()


@pytest.mark.parametrize("message", [Status(state="offline"), Vad(state="ON")])
def test_switches_are_bare_words(message: Message) -> None:
    """Home Assistant's availability and binary sensors want the word, without quotes."""
    assert message.payload() in {b"offline", b"ON"}
    assert message.content_type == "text/plain"


def test_instants_are_utc_with_milliseconds() -> None:
    """RFC 3339, ending in Z, whatever zone the instant was given in."""
    there = datetime(2026, 11, 23, 14, 0, 0, 999_999, tzinfo=timezone(timedelta(hours=2)))
    payload = json.loads(TELEMETRY.model_copy(update={"ts": there}).payload())
    assert payload["ts"] == "2026-11-23T12:00:00.999Z"


def test_an_instant_without_a_zone_is_refused() -> None:
    """A naive time would silently be taken for local time."""
    with pytest.raises(ValidationError, match="timezone"):
        TelemetryMessage.model_validate({**dict(TELEMETRY), "ts": NOON.replace(tzinfo=None)})


@pytest.mark.parametrize("character", ["a", "ü", "語", "🎤"])
def test_long_texts_are_cut_between_characters(character: str) -> None:
    """At most 8 KiB of UTF-8, never half a character, and as much as fits."""
    text, cut = cut_text(character * 9_000)
    size = len(text.encode())
    assert cut
    assert MAX_TEXT_BYTES - len(character.encode()) < size <= MAX_TEXT_BYTES
    assert set(text) == {character}


def test_a_text_that_just_fits_is_left_alone() -> None:
    """The limit is inclusive."""
    text = "語" * (MAX_TEXT_BYTES // 3)
    assert cut_text(text) == (text, False)


def test_unknown_fields_are_a_mistake_on_our_side() -> None:
    """We cannot send what the contract does not have; consumers, in turn, ignore what they do not know."""
    with pytest.raises(ValidationError):
        Info.model_validate({**info().model_dump(), "ssid": "home"})


def test_sizes_stay_within_what_was_promised() -> None:
    """Telemetry below 1 KB, transcripts below 16 KB even when every character needs escaping."""
    worst = transcript(1, cut_text('"' * 9_000)[0])
    assert len(worst.payload()) < 2 * MAX_TEXT_BYTES + 1_024
    assert len(TELEMETRY.payload()) < 1_024


def test_instants_survive_the_round_trip() -> None:
    """What we send can be read back by our own models."""
    sent = transcript(1)
    assert TranscriptMessage.model_validate_json(sent.payload()) == sent
    assert sent.ts.tzinfo is UTC


def test_no_number_of_a_message_is_negative_zero() -> None:
    """Rounding -0.04 gives `-0.0`, which some databases refuse and no reader expects."""
    said = TELEMETRY.model_copy(
        update={"cpu": Cpu(pct=-0.0), "pwr": Pwr(in_w=-0.0, rails_w={"VDD_IN": -0.0}), "psi": Psi(cpu=round(-0.04, 1))}
    )
    result: dict[str, object] = {"measurements": [{"rtf_p95": -0.0}]}
    reply = Reply(device="pi-1", command="calibrate", ok=True, code="ok", msg="", result=result)
    words = TranscriptMessage.model_validate({**transcript(1).model_dump(), "rms_dbfs": -0.0, "avg_logprob": -0.0})
    for payload in (said.payload(), reply.payload(), words.payload()):
        assert b"-0.0" not in payload
