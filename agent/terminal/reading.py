"""What each kind of message changes about a device, and what of it is worth a line. Pure.

Every reader takes the device as it was, the payload, and when it came; `ValueError` says that the payload does not keep
the contract.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from agent.mqtt.subscriber import Received
from agent.terminal.device import Device, Event, Vitals
from agent.terminal.words import clean, number, text, truth


@dataclass(frozen=True, slots=True)
class Reading:
    """What a message brought."""

    device: Device
    event: Event | None = None
    """What is worth a line."""
    key: str | None = None
    """Of what was said: tells whether it came before."""


def _status(device: Device, word: str, received: Received) -> Reading:
    if word not in {"online", "offline"}:
        msg = "neither online nor offline"
        raise ValueError(msg)
    online = word == "online"
    if device.online is online:
        return Reading(device)
    # Who is back is given time to send telemetry.
    changed = replace(device, online=online, speaking=False, first_s=received.received_s, telemetry_s=None)
    return Reading(changed, Event(device.id, "status", word, received.received_s, grave=not online))


def _vad(device: Device, word: str, _received: Received) -> Reading:
    return Reading(replace(device, speaking=word == "ON"))


def _info(device: Device, word: str, _received: Received) -> Reading:
    payload = _object(word)
    return Reading(
        replace(
            device,
            name=text(payload, "name"),
            agent=text(payload, "agent"),
            hardware=text(payload, "hardware"),
            model=text(payload, "model"),
        )
    )


def _state(device: Device, word: str, received: Received) -> Reading:
    payload = _object(word)
    listening = truth(payload, "listening")
    changed = replace(device, listening=listening, model=text(payload, "model"), language=text(payload, "language"))
    if device.listening is None or listening is device.listening:
        return Reading(changed)
    return Reading(changed, Event(device.id, "state", "listening" if listening else "muted", received.received_s))


def _health(device: Device, word: str, received: Received) -> Reading:
    payload = _object(word)
    listed = payload.get("codes")
    codes = tuple(clean(code) for code in listed if isinstance(code, str)) if isinstance(listed, list) else ()
    if payload.get("problem") == "ON" and not codes:
        codes = ("problem",)
    if codes == device.codes:
        return Reading(device)
    news = Event(device.id, "health", ", ".join(codes) or "fine again", received.received_s, grave=bool(codes))
    return Reading(replace(device, codes=codes), news)


def _telemetry(device: Device, word: str, received: Received) -> Reading:
    payload = _object(word)
    vitals = Vitals(
        cpu_pct=number(payload, "cpu", "pct"),
        temp_c=number(payload, "cpu", "temp_c"),
        mem_pct=number(payload, "mem", "pct"),
        rtf_p95=number(payload, "asr", "rtf_p95"),
        lat_ms_p95=number(payload, "asr", "lat_ms_p95"),
        dropped_s=number(payload, "asr", "dropped_s"),
        outbox_n=number(payload, "mqtt", "outbox_n"),
        dropped=number(payload, "mqtt", "dropped"),
    )
    changed = replace(device, vitals=vitals, telemetry_s=received.received_s, interval_s=_interval_s(device, received))
    return Reading(changed, Event(device.id, "telemetry", summary(vitals), received.received_s))


def _interval_s(device: Device, received: Received) -> float:
    """The longest gap, forgotten slowly: a device that is set to an hour must not count as silent after minutes."""
    if device.telemetry_s is None:
        return device.interval_s
    return max(received.received_s - device.telemetry_s, 0.9 * device.interval_s)


def summary(vitals: Vitals) -> str:
    """Telemetry in one line, without what is not known."""
    parts = (
        ("cpu {:.0f} %", vitals.cpu_pct),
        ("{:.0f} °C", vitals.temp_c),
        ("memory {:.0f} %", vitals.mem_pct),
        ("real-time factor p95 {:.2f}", vitals.rtf_p95),
        ("{:.0f} ms from the end of speech p95", vitals.lat_ms_p95),
        ("outbox {:.0f}", vitals.outbox_n),
        ("dropped {:.0f} messages", vitals.dropped or None),
        ("dropped {:.1f} s of speech", vitals.dropped_s or None),
    )
    return ", ".join(form.format(value) for form, value in parts if value is not None)


def _transcript(device: Device, word: str, received: Received) -> Reading:
    payload = _object(word)
    latency_ms = number(payload, "latency_ms", "total_from_speech_end")
    note = _evidence(payload, "" if latency_ms is None else f"{latency_ms / 1_000:.2f} s")
    event = Event(device.id, "transcript", text(payload, "text") or "", received.received_s, note=note)
    return Reading(replace(device, said_s=received.received_s), event, _key("transcript", payload))


def _backlog(device: Device, word: str, received: Received) -> Reading:
    payload = _object(word)
    note = _evidence(payload, f"said {text(payload, 'start') or 'earlier'}")
    event = Event(device.id, "backlog", text(payload, "text") or "", received.received_s, note=note)
    # The same key as live: a transcript may arrive on both topics.
    return Reading(replace(device, backlog_s=received.received_s), event, _key("transcript", payload))


def _evidence(payload: Mapping[str, Any], first: str) -> str:
    doubt = "doubtful" if payload.get("verdict") == "doubtful" else ""
    return ", ".join(word for word in (first, text(payload, "lang"), doubt) if word)


def _failed(device: Device, word: str, received: Received) -> Reading:
    payload = _object(word)
    event = Event(device.id, "failed", text(payload, "msg") or "no words", received.received_s, grave=True)
    return Reading(device, event, _key("failed", payload))


def _keyword(device: Device, word: str, received: Received) -> Reading:
    payload = _object(word)
    keyword = text(payload, "keyword") or ""
    return Reading(
        device, Event(device.id, "keyword", keyword, received.received_s), _key(f"keyword {keyword}", payload)
    )


def _key(kind: str, payload: Mapping[str, Any]) -> str:
    if (identity := text(payload, "id")) is None:
        msg = "no id"
        raise ValueError(msg)
    return f"{kind} {identity}"


def _object(word: str) -> Mapping[str, Any]:
    value = json.loads(word)
    if not isinstance(value, dict):
        msg = "not an object"
        raise ValueError(msg)  # noqa: TRY004 - as malformed as what is no JSON at all
    return value


READERS: Final[Mapping[str, Callable[[Device, str, Received], Reading]]] = {
    "status": _status,
    "info": _info,
    "state": _state,
    "health": _health,
    "vad": _vad,
    "telemetry": _telemetry,
    "transcript": _transcript,
    "transcript/backlog": _backlog,
    "transcript/failed": _failed,
    "keyword": _keyword,
}
"""By the topic below `edgescribe/v1/<id>/`."""
