"""State of the devices, from their messages or from the socket of this one. Pure: time is an argument.

Any client of a broker may have written a message. One that breaks the contract is counted and changes no state. A value
of another kind counts as unknown. Text loses all characters that could steer a terminal.
"""

import json
import math
import re
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
"""Topics below `edgescribe/v1/<id>/` with news of a device."""
ROWS: Final = {
    "summary": (
        "cpu {cpu.pct:.0f} %; {cpu.temp_c:.0f} °C; memory {mem.pct:.0f} %; real-time factor p95 {asr.rtf_p95:.2f}; "
        "{asr.lat_ms_p95:.0f} ms from the end of speech p95; outbox {mqtt.outbox_n:.0f}; "
        "dropped {mqtt.dropped:.0f} messages; dropped {asr.dropped_s:.1f} s of speech"
    ),
    "short": "{asr.waiting:.0f} waiting; cpu {cpu.pct:.0f} %; {cpu.temp_c:.0f} °C",
    "engine": "{asr.waiting:.0f} waiting; dropped {asr.dropped_s:.1f} s",
    "latency": "p50 {asr.lat_ms_p50:.0f}; p95 {asr.lat_ms_p95:.0f} ms",
    "pace": "real-time factor {asr.rtf_p50:.2f}; p95 {asr.rtf_p95:.2f}",
    "so far": (
        "{asr.utt:.0f} utterances; {asr.rejected:.0f} rejected; {asr.discarded:.0f} too short; "
        "{asr.speech_pct:.0f} % speech"
    ),
    "machine": (
        "CPU {cpu.pct:.0f} %; {cpu.temp_c:.1f} °C; {cpu.freq_mhz:.0f} MHz; memory {mem.pct:.0f} %; "
        "(ours {mem.rss_mb:.0f} MiB); GPU {gpu.pct:.0f} %; fan {fan.rpm:.0f} rpm; {pwr.in_w:.1f} W; "
        "under-voltage {pwr.uv_events:.0f}×; throttled {pwr.thr_events:.0f}×"
    ),
    "broker": (
        "{mqtt.outbox_n:.0f} waiting; acknowledged in {mqtt.puback_ms_p95:.0f} ms (p95); "
        "{mqtt.reconnects:.0f} reconnections; {mqtt.dropped:.0f} dropped"
    ),
}
"""Figures of telemetry that belong together. Each has a form, with its path in the message."""
_FORM: Final = re.compile(r"{([\w.]+):([^}]*)}")
FIGURES: Final = ("up_s", *dict.fromkeys(path for row in ROWS.values() for path, _ in _FORM.findall(row)))
"""Paths of all figures that are shown, in telemetry."""
_TROUBLE: Final = frozenset(
    {"pwr.uv_events", "pwr.thr_events", "asr.waiting", "asr.dropped_s", "mqtt.reconnects", "mqtt.dropped"}
)
"""Figures that are not shown if they are 0."""
_TOPIC: Final = re.compile(r"edgescribe/v1/([a-z0-9-]{1,36})/([a-z_/]+)")
_REMEMBERED_IDS: Final = 1_000
_INTERVAL_S: Final = 66.0
"""The default telemetry interval, and a tenth."""
_SILENT_INTERVALS: Final = 3
_BEHIND_MESSAGES: Final = 10
_BEHIND_RTF: Final = 1.0
_BACKLOG_S: Final = 60.0
_MAX_TEXT: Final = 8_192
_JOINERS: Final = frozenset("\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}")
"""Invisible, and parts of letters in Persian and of emoji."""


def clean(words: str) -> str:
    """Return one line without any character that could steer a terminal."""
    shown = (character if character.isprintable() or character in _JOINERS else " " for character in words[:_MAX_TEXT])
    return "".join(shown).strip()


class Payload:
    """A JSON object of unknown origin. Values have paths such as `cpu.pct`; those of another kind are None.

    Raises:
        ValueError, RecursionError: the text is no JSON object.
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
        """Return the known ones of `FIGURES`, from telemetry below the path `part`."""
        values = {path: self.number(part + path) for path in FIGURES}
        return {path: value for path, value in values.items() if value is not None}


class Standing(IntEnum):
    """How a device is doing; the higher, the more urgent."""

    OK = 0
    MUTED = 1
    BEHIND = 2
    """Its engine or its outbox does not keep up, or it still delivers old transcripts."""
    PROBLEM = 3
    """It reports a fault."""
    SILENT = 4
    """It counts as online and has sent no telemetry for three intervals."""
    OFFLINE = 5


@dataclass(frozen=True, slots=True)
class Device:
    """The state of one device. Instants are monotonic seconds of arrival."""

    id: str
    first_s: float
    online: bool | None = None
    codes: tuple[str, ...] = ()
    """Faults that it reports."""
    listening: bool | None = None
    speaking: bool = False
    figures: Mapping[str, float] = field(default_factory=dict)
    """The known figures of telemetry, by path."""
    telemetry_s: float | None = None
    interval_s: float = _INTERVAL_S
    """Between two telemetry messages, the longest of late."""
    backlog_s: float | None = None
    """Arrival of the last late transcript."""
    said_s: float | None = None
    """Arrival of the last live transcript."""
    live: Payload | None = None
    """The present moment: only the device's own socket tells it."""

    def standing(self, now_s: float) -> Standing:
        """Return how it is doing."""
        if self.online is False:
            return Standing.OFFLINE
        heard_s = self.first_s if self.telemetry_s is None else self.telemetry_s
        if now_s - heard_s > _SILENT_INTERVALS * self.interval_s:
            return Standing.SILENT
        if set(self.codes) - {"falling_behind"}:
            return Standing.PROBLEM
        lags = (
            self.figures.get("asr.rtf_p95", 0.0) >= _BEHIND_RTF
            or self.figures.get("mqtt.outbox_n", 0.0) >= _BEHIND_MESSAGES
            or (self.backlog_s is not None and now_s - self.backlog_s < _BACKLOG_S)
        )
        if self.codes or lags:
            return Standing.BEHIND
        return Standing.MUTED if self.listening is False else Standing.OK


@dataclass(frozen=True, slots=True)
class Event:
    """An event that is worth a line."""

    device_id: str
    kind: str
    """`transcript`, `backlog`, `failed`, `keyword`, `status`, `health`, `state` or `telemetry`."""
    text: str
    received_s: float
    grave: bool = False
    note: str = ""
    """Evidence, such as `0.66 s, 87 %`."""
    key: str = ""
    """Of speech: the same key means the same speech."""


def known(row: str, number: Callable[[str], float | None]) -> dict[str, str]:
    """Return the known figures of a row, in words, by path; `number` looks a path up."""
    found = {}
    for form in row.split("; "):
        path, layout = _FORM.findall(form)[0]
        value = number(path)
        if value is not None and (value or path not in _TROUBLE):
            found[path] = _FORM.sub(f"{value:{layout}}".replace("%", " %"), form)
    return found


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
        """Take a message in; return the event if it is worth a line, else None."""
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
        """Give each device time for its next telemetry: without a connection, its silence means little."""
        for device_id, device in self.devices.items():
            self.devices[device_id] = replace(device, first_s=now_s, telemetry_s=None)

    def by_urgency(self, now_s: float) -> list[Device]:
        """Return all devices, the most urgent first."""
        return sorted(self.devices.values(), key=lambda device: (-device.standing(now_s), device.id))

    def count(self, now_s: float) -> dict[Standing, int]:
        """Return the number of devices of each standing, without those of none."""
        standings = [device.standing(now_s) for device in self.devices.values()]
        return {standing: standings.count(standing) for standing in reversed(Standing) if standing in standings}


def _read(device: Device, kind: str, received: Received) -> tuple[Device, Event | None]:
    """Return the device after a message, and the event if it is worth a line.

    Raises:
        ValueError, RecursionError: the message breaks the contract.
    """
    event = Event(device.id, kind.rpartition("/")[2], "", received.received_s)
    if kind == "status":
        return _read_status(device, received.payload.decode(), event)
    if kind == "vad":
        return replace(device, speaking=received.payload == b"ON"), None
    payload = Payload(received.payload)
    if kind == "info":  # only checked
        return device, None
    return _READERS.get(kind, _read_speech)(device, payload, event)


def _read_status(device: Device, word: str, event: Event) -> tuple[Device, Event | None]:
    if word not in {"online", "offline"}:
        msg = "a status is online or offline"
        raise ValueError(msg)
    online = word == "online"
    if device.online is online:
        return device, None
    # A device that is back is given time to send telemetry.
    changed = replace(device, online=online, speaking=False, first_s=event.received_s, telemetry_s=None)
    return changed, replace(event, text=word, grave=not online)


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
    now_s = event.received_s
    # The longest gap, forgotten slowly: a device with an interval of an hour must not count as silent after minutes.
    gap_s = 0.0 if device.telemetry_s is None else max(now_s - device.telemetry_s, 0.9 * device.interval_s)
    figures, interval_s = payload.figures(), gap_s or device.interval_s
    changed = replace(device, figures=figures, telemetry_s=now_s, interval_s=interval_s)
    return changed, replace(event, text=", ".join(known(ROWS["summary"], figures.get).values()))


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
