"""The looks of a device and a fleet in a terminal. Pure functions."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agent.terminal.device import ROWS, Device, Event, Fleet, Payload, Standing, known

BAR: Final = 40
_QUIETEST_DBFS: Final = -75.0
_LOUD_DBFS: Final = -12.0
_CLIPPING_DBFS: Final = -2.0
_LIKELY: Final = 0.5
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_FRAME_LINES: Final = 6
"""Title, heads and rules around devices and transcripts."""
_STYLES: Final = {
    Standing.OK: "green",
    Standing.MUTED: "blue",
    Standing.BEHIND: "yellow",
    Standing.PROBLEM: "red",
    Standing.SILENT: "red",
    Standing.OFFLINE: "bright_black",
}
_KIND_STYLES: Final = {"transcript": "cyan", "backlog": "bright_black", "failed": "red", "keyword": "magenta"}
_COLUMNS: Final = (
    *(("cpu %", ".0f", "cpu.pct"), ("°C", ".0f", "cpu.temp_c"), ("mem %", ".0f", "mem.pct")),
    *(("rtf p95", ".2f", "asr.rtf_p95"), ("ms p95", ".0f", "asr.lat_ms_p95")),
    *(("outbox", ".0f", "mqtt.outbox_n"), ("dropped", ".0f", "mqtt.dropped")),
)
"""Of the table of devices: head, layout, path of the figure."""
_LATENCY: Final = (("vad_close", "blue", "pause"), ("queue", "yellow", "queue"), ("encode_decode", "magenta", "engine"))
"""Parts of the latency: field, colour, name. Work of the engine inside the pause stands in both."""
_HEARD: Final = (
    "level {sound.rms_dbfs:.0f} dBFS; speech {sound.speech_prob:.0%}; speaking for {speaking_s:.1f} s; "
    "transcribing {under_way.duration_s:.1f} s"
)
"""Figures of a snapshot, in one line."""
_WARNINGS: Final = {
    "cpu.temp_c": (75.0, "red"),
    "pwr.uv_events": (1.0, "red"),
    "pwr.thr_events": (1.0, "red"),
    "asr.waiting": (1.0, "yellow"),
    "asr.dropped_s": (0.0, "red"),
    "mqtt.outbox_n": (1.0, "yellow"),
    "mqtt.dropped": (1.0, "red"),
}
"""From which value on a figure has a colour."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, by both clocks."""

    monotonic_s: float
    wall: datetime
    """Local time."""

    def at(self, monotonic_s: float) -> datetime:
        """Return the local time of an earlier moment."""
        return self.wall - timedelta(seconds=self.monotonic_s - monotonic_s)


def ago(seconds: float) -> str:
    """Return a time span with its two largest units."""
    whole = max(0, int(seconds))
    for (size_s, unit), (smaller_s, smaller) in itertools.pairwise(_UNITS):
        if whole >= size_s:
            return f"{whole // size_s} {unit} {whole % size_s // smaller_s} {smaller}"
    return f"{whole} s"


def _row(device: Device, name: str, between: str = ", ", style: str = "dim") -> Text:
    """Return the known figures of a row."""
    words = []
    for path, text in known(ROWS[name], device.figures.get).items():
        limit, colour = _WARNINGS.get(path, (math.inf, ""))
        words.append(Text(text, colour if device.figures[path] >= limit else style))
    return Text(between).join(words)


# One device, from its own socket.


def picture(device: Device) -> RenderableType:
    """Return all news of the device's own socket: the sound on top, the machine at the bottom."""
    live = device.live or Payload(b"{}")
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(style="dim", width=8, no_wrap=True)
    table.add_column(overflow="fold")
    for head, show in _PICTURE.items():
        if words := show(device, live):
            table.add_row(head, words)
    chain = (live.text("source"), f"{live.text('engine')} {live.text('model')}", live.text("language"))
    title = Text.assemble(("edgescribe ", "bold"), (f"{device.id}  ", "bold cyan"))
    title.append(f"{_clock(live)}  {live.text('agent')}, up {ago(device.figures.get('up_s', 0))}  ", "dim")
    title.append(" ".join(device.codes) or "fine", "red" if device.codes else "green")
    return Group(title, Text(" → ".join(word for word in chain if word), "dim"), Text(), table)


def device_line(device: Device) -> str:
    """Return the same in one line, for a pipe."""
    live = device.live or Payload(b"{}")
    last = live.text("last.text")
    parts = (
        _clock(live),
        "muted" if device.listening is False else "",
        *known(_HEARD, live.number).values(),
        *known(ROWS["short"], device.figures.get).values(),
        " ".join(device.codes),
        f'"{last}" {_since(live)} ago' if last else "",
    )
    return "  ".join(part for part in parts if part)


def _clock(live: Payload) -> str:
    try:
        return f"{datetime.fromisoformat(live.text('at')).astimezone():%H:%M:%S}"
    except (ValueError, OverflowError):
        return ""


def _since(live: Payload) -> str:
    return ago(live.number("last.ago_s") or 0)


def _level(device: Device, live: Payload) -> Text:
    """Return the level as a bar, with marks for the peak and for the room's own level."""
    if device.listening is False:
        return Text("muted: the microphone is closed", "blue")
    dbfs = {name: live.number(f"sound.{name}_dbfs") for name in ("rms", "peak", "noise_floor")}
    if dbfs["rms"] is None:
        return Text("no sound comes in", "yellow")
    level, peak, floor = (
        None if value is None else max(0, min(BAR - 1, round(BAR * (1 - value / _QUIETEST_DBFS))))
        for value in dbfs.values()
    )
    words = Text()
    for place in range(BAR):
        here_dbfs = _QUIETEST_DBFS * (1 - place / BAR)
        style = "red" if here_dbfs >= _CLIPPING_DBFS else "yellow" if here_dbfs >= _LOUD_DBFS else "green"
        if place == peak:
            words.append("▐", f"bold {style}")
        elif place < (level or 0):
            words.append("█", style)
        else:
            words.append("┆" if place == floor else "░", "dim")
    words.append(f" {dbfs['rms']:4.0f} dBFS")
    for form, value in (("  peak {:.0f}", dbfs["peak"]), ("  room {:.0f}", dbfs["noise_floor"])):
        words.append("" if value is None else form.format(value), "dim")
    return words


def _speech(_device: Device, live: Payload) -> Text:
    if (probability := live.number("sound.speech_prob")) is None:
        return Text()
    full = max(0, min(BAR, round(BAR * probability)))
    words = Text.assemble(("█" * full, "cyan" if probability >= _LIKELY else "dim cyan"), ("░" * (BAR - full), "dim"))
    words.append(f" {100 * probability:4.0f} %")
    if (speaking_s := live.number("speaking_s")) is not None:
        words.append(f"  ● speaking for {speaking_s:.1f} s", "bold cyan")
    return words


def _engine(device: Device, live: Payload) -> Text:
    duration_s, since_s = live.number("under_way.duration_s"), live.number("under_way.since_s")
    words = Text("idle", "dim")
    if duration_s is not None:
        words = Text(f"transcribing {duration_s:.1f} s of sound, for {since_s or 0.0:.1f} s")
    return Text(", ").join(part for part in (words, _row(device, "engine")) if part)


def _heard(_device: Device, live: Payload) -> Text:
    if live.get("shows_text") is False:
        return Text("publish.privacy keeps the words in", "dim")
    if (partial := live.text("partial")) and (live.get("under_way") or live.number("speaking_s") is not None):
        return Text(f"{partial} …", "italic")
    if not live.get("last"):
        return Text("no words yet", "dim")
    return Text.assemble(
        (live.text("last.text"), "bold"), (f"  {live.text('last.verdict')}, {_since(live)} ago", "dim")
    )


def _latency(device: Device, live: Payload) -> Text:
    """Return the parts of the latency side by side, in proportion, and their figures below."""
    if not live.get("last"):
        return Text()
    parts = [(max(0.0, live.number(f"last.latency_ms.{key}") or 0.0), style, name) for key, style, name in _LATENCY]
    total_ms = sum(ms for ms, _, _ in parts) or 1.0
    words = Text()
    for ms, style, _ in parts:
        words.append("█" * round(BAR * ms / total_ms), style)
    words.truncate(BAR, pad=True)
    words.append(f" {live.number('last.latency_ms.total_from_speech_end') or 0:.0f} ms after the last word\n")
    for ms, style, name in parts:
        words.append(f"{name} {ms:.0f}  ", style)
    return words.append(" ") + _row(device, "latency")


def _governor(_device: Device, live: Payload) -> Text:
    if not (levels := live.number("governor.levels")):
        return Text()
    if not (level := live.number("governor.level")):
        return Text(f"as configured, with {levels:.0f} steps below", "dim")
    words = Text(f"{level:.0f} of {levels:.0f} steps down", "yellow")
    words.append(f": {reason}" if (reason := live.text("governor.reason")) else "")
    words.append("" if live.get("governor.eager") else ", without speculative decoding", "dim")
    return words


_PICTURE: Final[dict[str, Callable[[Device, Payload], Text]]] = {
    "level": _level,
    "speech": _speech,
    "engine": _engine,
    "heard": _heard,
    "latency": _latency,
    "pace": lambda device, _: _row(device, "pace"),
    "so far": lambda device, _: _row(device, "so far"),
    "governor": _governor,
    "machine": lambda device, _: _row(device, "machine", "  ", ""),
    "broker": lambda device, _: _row(device, "broker", "   "),
}
"""Rows of the picture, by their heads."""


# A fleet, by MQTT.


def screen(
    fleet: Fleet, address: str, moment: Moment, lines: int, *, trouble: str | None = None, overrun: int = 0
) -> RenderableType:
    """Return the whole fleet in at most `lines` lines: the urgent devices on top, the last words at the bottom.

    Args:
        fleet: The devices.
        address: The broker.
        moment: Now.
        lines: Height of the terminal.
        trouble: Why there is no connection; None if there is one.
        overrun: Messages that came too fast to be read.
    """
    said = list(fleet.transcripts)[-max(1, (lines - _FRAME_LINES) // 2) :]
    rows = max(1, lines - _FRAME_LINES - len(said))
    devices = fleet.by_urgency(moment.monotonic_s)
    title = Text.assemble(("edgescribe ", "bold"), (f"{moment.wall:%H:%M:%S}  {address}  ", "dim"))
    if trouble is not None:
        title.append(f"no connection ({trouble}), retrying  ", "red")
    for standing, number in fleet.count(moment.monotonic_s).items():
        title.append(f"{number} {standing.name.lower()}  ", _STYLES[standing])
    for number, what in ((fleet.malformed, "malformed"), (fleet.unshown + overrun, "not shown")):
        title.append(f"{number} {what}  " if number else "", "yellow")
    shown = devices[: rows - 1] if len(devices) > rows else devices
    below = [_one_line(event_line(event, moment)) for event in said]
    table = _table(shown, len(devices) - len(shown), moment) if devices else Text("no device yet", style="dim")
    return Group(_one_line(title), table, *below)


def _table(devices: list[Device], more: int, moment: Moment) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
    table.add_column("device", no_wrap=True, overflow="ellipsis", ratio=3)
    table.add_column("state", no_wrap=True, overflow="ellipsis", ratio=4)
    for head in (*(head for head, _, _ in _COLUMNS), "spoke"):
        table.add_column(head, justify="right", no_wrap=True)
    for device in devices:
        table.add_row(*_cells(device, moment))
    if more:
        table.add_row(Text(f"… and {more} more", style="dim"))
    return table


def _cells(device: Device, moment: Moment) -> tuple[Text, ...]:
    standing = device.standing(moment.monotonic_s)
    state = Text.assemble((standing.name.lower(), _STYLES[standing]), (" ".join(("", *device.codes)), "red"))
    if device.speaking:
        state.append(" ● speaking", "cyan")
    style = "dim" if standing in {Standing.OFFLINE, Standing.SILENT} else ""
    figures = [f"{device.figures[path]:{layout}}" if path in device.figures else "" for _, layout, path in _COLUMNS]
    spoke = "" if device.said_s is None else "".join(ago(moment.monotonic_s - device.said_s).split()[:2])
    return Text(device.id, style), state, *(Text(figure, style) for figure in (*figures, spoke))


def _one_line(words: Text) -> Text:
    words.no_wrap = True
    words.overflow = "ellipsis"
    return words


def event_line(event: Event, moment: Moment) -> Text:
    """Return an event in one line: time, device, event."""
    return Text.assemble(
        (f"{moment.at(event.received_s):%H:%M:%S}  ", "dim"), f"{event.device_id}  ", event_words(event)
    )


def event_words(event: Event) -> Text:
    """Return the kind of an event, its text, and its evidence."""
    style = "red" if event.grave else _KIND_STYLES.get(event.kind, "")
    bold = "bold" if event.kind == "transcript" else style
    note = f"  [{event.note}]" if event.note else ""
    return Text.assemble((f"{event.kind}  ", style), (event.text, bold), (note, "dim"))
