"""What is known of the devices, from their messages or from the socket of the one here. Pure: time is an argument.

Any client of a broker may have written a message. One that breaks the contract is counted and changes nothing; a value
of another kind counts as unknown; text is freed of all that could steer a terminal.
"""

import json
import math
import re
import unicodedata
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, Final

from agent.mqtt.subscriber import Received

MAX_DEVICES: Final = 20_000
"""Messages of further devices are counted and not shown."""
KINDS: Final = (
    *("status", "info", "state", "health", "vad", "telemetry"),
    *("transcript", "transcript/backlog", "transcript/failed", "keyword"),
)
"""Topics below `edgescribe/v1/<id>/` that tell something about a device."""
FIGURES: Final = (
    *("up_s", "cpu.pct", "cpu.temp_c", "cpu.freq_mhz", "mem.pct", "mem.rss_mb", "gpu.pct", "fan.rpm", "pwr.in_w"),
    *("pwr.uv_events", "pwr.thr_events", "asr.utt", "asr.rejected", "asr.discarded", "asr.speech_pct", "asr.waiting"),
    *("asr.rtf_p50", "asr.rtf_p95", "asr.lat_ms_p50", "asr.lat_ms_p95", "asr.dropped_s"),
    *("mqtt.outbox_n", "mqtt.puback_ms_p95", "mqtt.reconnects", "mqtt.dropped"),
)
"""The part of telemetry that is shown, by path."""
Row = tuple[tuple[str, str], ...]
"""Figures in a row: form, such as `{:.0f} °C`, and path."""
SUMMARY: Final[Row] = (
    ("cpu {:.0f} %", "cpu.pct"),
    ("{:.0f} °C", "cpu.temp_c"),
    ("memory {:.0f} %", "mem.pct"),
    ("real-time factor p95 {:.2f}", "asr.rtf_p95"),
    ("{:.0f} ms from the end of speech p95", "asr.lat_ms_p95"),
    ("outbox {:.0f}", "mqtt.outbox_n"),
    ("dropped {:.0f} messages", "mqtt.dropped"),
    ("dropped {:.1f} s of speech", "asr.dropped_s"),
)
"""Telemetry in one line."""
_TROUBLE: Final = frozenset(
    {"pwr.uv_events", "pwr.thr_events", "asr.waiting", "asr.dropped_s", "mqtt.reconnects", "mqtt.dropped"}
)
"""Left out where it is 0."""
_TOPIC: Final = re.compile(r"edgescribe/v1/([a-z0-9-]{1,36})/([a-z_/]+)")
_REMEMBERED_IDS: Final = 1_000
_INTERVAL_S: Final = 66.0
"""The default telemetry interval, and a tenth."""
_SILENT_INTERVALS: Final = 3
_BEHIND_MESSAGES: Final = 10
_BEHIND_RTF: Final = 1.0
_BACKLOG_S: Final = 60.0
_MAX_TEXT: Final = 8_192
_UNPRINTABLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Controls (the escape character among them), directions of writing, surrogates, unassigned, line separators."""
_JOINERS: Final = frozenset("\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}")
"""Invisible, and parts of letters in Persian and of emoji."""


def clean(words: str) -> str:
    """Return one line without anything that could steer a terminal."""
    return "".join(
        character if character in _JOINERS or unicodedata.category(character) not in _UNPRINTABLE else " "
        for character in words[:_MAX_TEXT]
    ).strip()


class Payload:
    """A JSON object of unknown origin. Values have paths such as `cpu.pct`; those of another kind are None.

    Raises:
        ValueError, RecursionError: it is no JSON object.
    """

    def __init__(self, text: bytes) -> None:
        self._value = json.loads(text.decode())
        if not isinstance(self._value, dict):
            msg = "no JSON object"
            raise ValueError(msg)  # noqa: TRY004 - as malformed as text that is no JSON at all

    def get(self, path: str) -> Any:
        """Return any value."""
        value = self._value
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def text(self, path: str) -> str:
        """Return a text, clean; empty if there is none."""
        value = self.get(path)
        return clean(value) if isinstance(value, str) else ""

    def number(self, path: str) -> float | None:
        """Return a finite number."""
        value = self.get(path)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        try:
            return float(value) if math.isfinite(value) else None
        except OverflowError:  # a whole number of hundreds of digits
            return None

    def texts(self, path: str) -> tuple[str, ...]:
        """Return the texts of a list, clean."""
        values = self.get(path)
        return tuple(clean(value) for value in values if isinstance(value, str)) if isinstance(values, list) else ()

    def figures(self, part: str = "") -> dict[str, float]:
        """Return those of `FIGURES` that are known, in telemetry below the path `part`."""
        values = {path: self.number(part + path) for path in FIGURES}
        return {path: value for path, value in values.items() if value is not None}


class Standing(IntEnum):
    """How a device is doing; the higher, the more urgent."""

    OK = 0
    MUTED = 1
    BEHIND = 2
    """Its engine or its outbox does not keep up, or it still delivers what was said before."""
    PROBLEM = 3
    """It says itself that something is wrong."""
    SILENT = 4
    """It counts as online and has sent no telemetry for three intervals."""
    OFFLINE = 5


@dataclass(frozen=True, slots=True)
class Device:
    """What is known of one device. Instants are monotonic seconds of arrival."""

    id: str
    first_s: float
    online: bool | None = None
    codes: tuple[str, ...] = ()
    """What it says is wrong."""
    listening: bool | None = None
    speaking: bool = False
    figures: Mapping[str, float] = field(default_factory=dict)
    """Telemetry by path, see `FIGURES`, without what is not known."""
    telemetry_s: float | None = None
    interval_s: float = _INTERVAL_S
    """Between two telemetry messages, the longest of late."""
    backlog_s: float | None = None
    """When the last late transcript came."""
    said_s: float | None = None
    """When the last live transcript came."""
    live: Payload | None = None
    """This moment, which only the device's own socket tells."""

    def standing(self, now_s: float) -> Standing:
        """Return how it is doing."""
        if self.online is False:
            return Standing.OFFLINE
        heard_s = self.first_s if self.telemetry_s is None else self.telemetry_s
        if now_s - heard_s > _SILENT_INTERVALS * self.interval_s:
            return Standing.SILENT
        if set(self.codes) - {"falling_behind"}:
            return Standing.PROBLEM
        if self.codes or self._lags(now_s):
            return Standing.BEHIND
        return Standing.MUTED if self.listening is False else Standing.OK

    def _lags(self, now_s: float) -> bool:
        return (
            self.figures.get("asr.rtf_p95", 0.0) >= _BEHIND_RTF
            or self.figures.get("mqtt.outbox_n", 0.0) >= _BEHIND_MESSAGES
            or (self.backlog_s is not None and now_s - self.backlog_s < _BACKLOG_S)
        )


@dataclass(frozen=True, slots=True)
class Event:
    """Something worth a line."""

    device_id: str
    kind: str
    """`transcript`, `backlog`, `failed`, `keyword`, `status`, `health`, `state` or `telemetry`."""
    text: str
    received_s: float
    grave: bool = False
    note: str = ""
    """Evidence, such as `0.66 s, 87 %`."""
    key: str = ""
    """Of speech: tells whether it came before."""


def known(figures: Mapping[str, float], row: Row) -> dict[str, str]:
    """Return the figures of a row that are known, in their forms, by path."""
    return {
        path: form.format(figures[path])
        for form, path in row
        if path in figures and (figures[path] or path not in _TROUBLE)
    }


def local_device(line: bytes, now_s: float) -> Device:
    """Return the device that wrote `line` on its own socket.

    Raises:
        ValueError, RecursionError: the line is no JSON object.
    """
    live = Payload(line)
    return Device(
        id=live.text("device"),
        first_s=now_s,
        online=True,
        codes=live.texts("health"),
        listening=live.get("listening") is not False,
        speaking=live.number("speaking_s") is not None,
        figures=live.figures("telemetry."),
        telemetry_s=now_s,
        live=live,
    )


class Fleet:
    """Devices and the last transcripts, by MQTT. Belongs to one thread."""

    def __init__(self, last: int) -> None:
        self.devices: dict[str, Device] = {}
        self.transcripts: deque[Event] = deque(maxlen=last)
        self.malformed = 0
        """Messages that break the contract."""
        self.unshown = 0
        """Messages of devices beyond `MAX_DEVICES`."""
        self._seen: deque[str] = deque(maxlen=_REMEMBERED_IDS)

    def receive(self, received: Received) -> Event | None:
        """Take a message in; return what is worth a line, None if nothing is."""
        found = _TOPIC.fullmatch(received.topic)
        if found is None or found[2] not in KINDS or not received.payload:
            return None
        device = self.devices.get(found[1])
        if device is None and len(self.devices) >= MAX_DEVICES:
            self.unshown += 1
            return None
        try:
            # Not UTF-8 is a ValueError as well; JSON may be nested without end.
            device, event = _read(device or Device(found[1], received.received_s), found[2], received)
        except (ValueError, RecursionError):
            self.malformed += 1
            return None
        if event and event.key:
            if (key := f"{device.id} {event.key}") in self._seen:  # QoS 1 is at least once
                return None
            self._seen.append(key)
            self.transcripts.append(event)
        self.devices[device.id] = device
        return event

    def resumed(self, now_s: float) -> None:
        """Give the devices their time anew: we were away, so their silence says nothing."""
        for device_id, device in self.devices.items():
            self.devices[device_id] = replace(device, first_s=now_s, telemetry_s=None)

    def by_urgency(self, now_s: float) -> list[Device]:
        """Return all devices, the most urgent first."""
        return sorted(self.devices.values(), key=lambda device: (-device.standing(now_s), device.id))

    def count(self, now_s: float) -> dict[Standing, int]:
        """Return how many devices there are of each standing; those of none are left out."""
        standings = [device.standing(now_s) for device in self.devices.values()]
        return {standing: standings.count(standing) for standing in reversed(Standing) if standing in standings}


def _read(device: Device, kind: str, received: Received) -> tuple[Device, Event | None]:
    """Return the device after a message, and what of it is worth a line.

    Raises:
        ValueError, RecursionError: the message breaks the contract.
    """
    if kind == "status":
        return _read_status(device, received)
    if kind == "vad":
        return replace(device, speaking=received.payload == b"ON"), None
    payload = Payload(received.payload)
    if kind == "info":  # nothing of it is shown
        return device, None
    read = _READERS.get(kind, _read_speech)
    return read(device, payload, Event(device.id, kind.rpartition("/")[2], "", received.received_s))


def _read_status(device: Device, received: Received) -> tuple[Device, Event | None]:
    word = received.payload.decode()
    if word not in {"online", "offline"}:
        msg = "neither online nor offline"
        raise ValueError(msg)
    online = word == "online"
    if device.online is online:
        return device, None
    # A device that is back is given time to send telemetry.
    changed = replace(device, online=online, speaking=False, first_s=received.received_s, telemetry_s=None)
    return changed, Event(device.id, "status", word, received.received_s, grave=not online)


def _read_state(device: Device, payload: Payload, event: Event) -> tuple[Device, Event | None]:
    value = payload.get("listening")
    listening = value if isinstance(value, bool) else None
    unchanged = device.listening in {None, listening}
    text = "listening" if listening else "muted"
    return replace(device, listening=listening), None if unchanged else replace(event, text=text)


def _read_health(device: Device, payload: Payload, event: Event) -> tuple[Device, Event | None]:
    codes = payload.texts("codes") or (("problem",) if payload.get("problem") == "ON" else ())
    if codes == device.codes:
        return device, None
    return replace(device, codes=codes), replace(event, text=", ".join(codes) or "fine again", grave=bool(codes))


def _read_telemetry(device: Device, payload: Payload, event: Event) -> tuple[Device, Event | None]:
    figures, now_s = payload.figures(), event.received_s
    # The longest gap, forgotten slowly: a device that is set to an hour must not count as silent after minutes.
    gap_s = 0.0 if device.telemetry_s is None else max(now_s - device.telemetry_s, 0.9 * device.interval_s)
    changed = replace(device, figures=figures, telemetry_s=now_s, interval_s=gap_s or device.interval_s)
    return changed, replace(event, text=", ".join(known(figures, SUMMARY).values()))


def _read_speech(device: Device, payload: Payload, event: Event) -> tuple[Device, Event | None]:
    if not (identity := payload.text("id")):
        msg = "no id"
        raise ValueError(msg)
    if event.kind == "keyword":
        keyword = payload.text("keyword")
        return device, replace(event, text=keyword, key=f"keyword {keyword} {identity}")
    if event.kind == "failed":
        return device, replace(event, text=payload.text("msg") or "no words", grave=True, key=f"failed {identity}")
    if event.kind == "backlog":
        device = replace(device, backlog_s=event.received_s)
        when = f"said {payload.text('start') or 'earlier'}"
    else:
        device = replace(device, said_s=event.received_s)
        latency_ms = payload.number("latency_ms.total_from_speech_end")
        when = "" if latency_ms is None else f"{latency_ms / 1_000:.2f} s"
    doubt = "doubtful" if payload.get("verdict") == "doubtful" else ""
    note = ", ".join(word for word in (when, payload.text("lang"), doubt) if word)
    # The same key on both topics: a transcript may arrive twice.
    return device, replace(event, text=payload.text("text"), note=note, key=f"transcript {identity}")


_READERS: Final[Mapping[str, Callable[[Device, Payload, Event], tuple[Device, Event | None]]]] = {
    "state": _read_state,
    "health": _read_health,
    "telemetry": _read_telemetry,
}
"""Other kinds are speech."""
