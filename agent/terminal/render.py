"""How a device and a fleet look in a terminal. Pure functions."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agent.terminal.device import Device, Event, Fleet, Payload, Row, Standing, known

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
    *(("cpu %", "{:.0f}", "cpu.pct"), ("°C", "{:.0f}", "cpu.temp_c"), ("mem %", "{:.0f}", "mem.pct")),
    *(("rtf p95", "{:.2f}", "asr.rtf_p95"), ("ms p95", "{:.0f}", "asr.lat_ms_p95")),
    *(("outbox", "{:.0f}", "mqtt.outbox_n"), ("dropped", "{:.0f}", "mqtt.dropped")),
)
"""Of the table of devices: head, form, path of the figure."""
_LATENCY: Final = (("vad_close", "blue", "pause"), ("queue", "yellow", "queue"), ("encode_decode", "magenta", "engine"))
"""Parts of the latency: field, colour, name. What the engine does inside the pause stands in both."""
_ENGINE: Final[Row] = (("{:.0f} waiting", "asr.waiting"), ("dropped {:.1f} s", "asr.dropped_s"))
_PERCENTILES: Final[Row] = (("p50 {:.0f}", "asr.lat_ms_p50"), ("p95 {:.0f} ms", "asr.lat_ms_p95"))
_PACE: Final[Row] = (("real-time factor {:.2f}", "asr.rtf_p50"), ("p95 {:.2f}", "asr.rtf_p95"))
_SO_FAR: Final[Row] = (
    ("{:.0f} utterances", "asr.utt"),
    ("{:.0f} rejected", "asr.rejected"),
    ("{:.0f} too short", "asr.discarded"),
    ("{:.0f} % speech", "asr.speech_pct"),
)
_MACHINE: Final[Row] = (
    ("CPU {:.0f} %", "cpu.pct"),
    ("{:.1f} °C", "cpu.temp_c"),
    ("{:.0f} MHz", "cpu.freq_mhz"),
    ("memory {:.0f} %", "mem.pct"),
    ("(ours {:.0f} MiB)", "mem.rss_mb"),
    ("GPU {:.0f} %", "gpu.pct"),
    ("fan {:.0f} rpm", "fan.rpm"),
    ("{:.1f} W", "pwr.in_w"),
    ("under-voltage {:.0f}×", "pwr.uv_events"),
    ("throttled {:.0f}×", "pwr.thr_events"),
)
_BROKER: Final[Row] = (
    ("{:.0f} waiting", "mqtt.outbox_n"),
    ("acknowledged in {:.0f} ms (p95)", "mqtt.puback_ms_p95"),
    ("{:.0f} reconnections", "mqtt.reconnects"),
    ("{:.0f} dropped", "mqtt.dropped"),
)
_IN_SHORT: Final[Row] = (("{:.0f} waiting", "asr.waiting"), ("cpu {:.0f} %", "cpu.pct"), ("{:.0f} °C", "cpu.temp_c"))
_HEARD: Final = (
    ("level {:.0f} dBFS", 1, "sound.rms_dbfs"),
    ("speech {:.0f} %", 100, "sound.speech_prob"),
    ("speaking for {:.1f} s", 1, "speaking_s"),
    ("transcribing {:.1f} s", 1, "under_way.duration_s"),
)
"""Of a line: form, factor, path in a snapshot."""
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


@dataclass(frozen=True, slots=True)
class Header:
    """What stands above a fleet."""

    address: str
    trouble: str | None
    """Why there is no connection; None if there is one."""
    overrun: int = 0
    """Messages that came too fast to be read."""


def ago(seconds: float) -> str:
    """Return a time span with the two units that matter."""
    whole = max(0, int(seconds))
    for (size_s, unit), (smaller_s, smaller) in itertools.pairwise(_UNITS):
        if whole >= size_s:
            return f"{whole // size_s} {unit} {whole % size_s // smaller_s} {smaller}"
    return f"{whole} s"


def _row(figures: Mapping[str, float], row: Row, between: str = ", ", style: str = "dim") -> Text:
    """Return the figures of a row that are known."""
    words = []
    for path, text in known(figures, row).items():
        limit, colour = _WARNINGS.get(path, (math.inf, ""))
        words.append(Text(text, colour if figures[path] >= limit else style))
    return Text(between).join(words)


# One device, from its own socket.


def picture(device: Device) -> RenderableType:
    """Return all that the device's own socket tells: the sound on top, the machine at the bottom."""
    live, figures = device.live or Payload(b"{}"), device.figures
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(style="dim", width=8, no_wrap=True)
    table.add_column(overflow="fold")
    for head, words in (
        ("level", _level(device, live)),
        ("speech", _speech(live)),
        ("engine", _engine(live, figures)),
        ("heard", _heard(live)),
        ("latency", _latency(live, figures)),
        ("pace", _row(figures, _PACE)),
        ("so far", _row(figures, _SO_FAR)),
        ("governor", _governor(live)),
        ("machine", _row(figures, _MACHINE, "  ", "")),
        ("broker", _row(figures, _BROKER, "   ")),
    ):
        if words:
            table.add_row(head, words)
    chain = (live.text("source"), f"{live.text('engine')} {live.text('model')}", live.text("language"))
    title = Text.assemble(("edgescribe ", "bold"), (f"{device.id}  ", "bold cyan"))
    title.append(f"{_clock(live)}  {live.text('agent')}, up {ago(figures.get('up_s', 0))}  ", "dim")
    title.append(" ".join(device.codes) or "fine", "red" if device.codes else "green")
    return Group(title, Text(" → ".join(word for word in chain if word), "dim"), Text(), table)


def device_line(device: Device) -> str:
    """Return the same in one line, for a pipe."""
    live = device.live or Payload(b"{}")
    numbers = [(form, factor, live.number(path)) for form, factor, path in _HEARD]
    last = live.text("last.text")
    parts = (
        _clock(live),
        "muted" if device.listening is False else "",
        *(form.format(factor * value) for form, factor, value in numbers if value is not None),
        *known(device.figures, _IN_SHORT).values(),
        " ".join(device.codes),
        f'"{last}" {ago(live.number("last.ago_s") or 0)} ago' if last else "",
    )
    return "  ".join(part for part in parts if part)


def _clock(live: Payload) -> str:
    try:
        return f"{datetime.fromisoformat(live.text('at')).astimezone():%H:%M:%S}"
    except (ValueError, OverflowError):
        return ""


def _level(device: Device, live: Payload) -> Text:
    """Return the level as a bar, with a mark for the peak and one for the room's own level."""
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


def _speech(live: Payload) -> Text:
    if (probability := live.number("sound.speech_prob")) is None:
        return Text()
    full = max(0, min(BAR, round(BAR * probability)))
    words = Text.assemble(("█" * full, "cyan" if probability >= _LIKELY else "dim cyan"), ("░" * (BAR - full), "dim"))
    words.append(f" {100 * probability:4.0f} %")
    if (speaking_s := live.number("speaking_s")) is not None:
        words.append(f"  ● speaking for {speaking_s:.1f} s", "bold cyan")
    return words


def _engine(live: Payload, figures: Mapping[str, float]) -> Text:
    duration_s, since_s = live.number("under_way.duration_s"), live.number("under_way.since_s")
    words = Text("idle", "dim")
    if duration_s is not None:
        words = Text(f"transcribing {duration_s:.1f} s of sound, for {since_s or 0.0:.1f} s")
    return Text(", ").join(part for part in (words, _row(figures, _ENGINE)) if part)


def _heard(live: Payload) -> Text:
    if live.get("shows_text") is False:
        return Text("publish.privacy keeps the words in", "dim")
    if (partial := live.text("partial")) and (live.get("under_way") or live.number("speaking_s") is not None):
        return Text(f"{partial} …", "italic")
    if not live.get("last"):
        return Text("nothing yet", "dim")
    when = f"  {live.text('last.verdict')}, {ago(live.number('last.ago_s') or 0)} ago"
    return Text.assemble((live.text("last.text"), "bold"), (when, "dim"))


def _latency(live: Payload, figures: Mapping[str, float]) -> Text:
    """Return the parts of the latency side by side, in proportion, and their figures below."""
    if not live.get("last"):
        return Text()
    parts = [(live.number(f"last.latency_ms.{key}") or 0.0, style, name) for key, style, name in _LATENCY]
    total_ms = sum(max(0.0, ms) for ms, _, _ in parts) or 1.0
    words = Text()
    for ms, style, _ in parts:
        words.append("█" * round(BAR * max(0.0, ms) / total_ms), style)
    words.truncate(BAR, pad=True)
    words.append(f" {live.number('last.latency_ms.total_from_speech_end') or 0:.0f} ms after the last word\n")
    for ms, style, name in parts:
        words.append(f"{name} {ms:.0f}  ", style)
    return words.append(" ") + _row(figures, _PERCENTILES)


def _governor(live: Payload) -> Text:
    if not (levels := live.number("governor.levels")):
        return Text()
    if not (level := live.number("governor.level")):
        return Text(f"as configured, with {levels:.0f} steps below", "dim")
    words = Text(f"{level:.0f} of {levels:.0f} steps down", "yellow")
    words.append(f": {reason}" if (reason := live.text("governor.reason")) else "")
    words.append("" if live.get("governor.eager") else ", nothing is decoded ahead", "dim")
    return words


# A fleet, by MQTT.


def screen(fleet: Fleet, header: Header, moment: Moment, lines: int) -> RenderableType:
    """Return the whole fleet in at most `lines` lines: the urgent devices on top, the last words at the bottom."""
    said = list(fleet.transcripts)[-max(1, (lines - _FRAME_LINES) // 2) :]
    rows = max(1, lines - _FRAME_LINES - len(said))
    devices = fleet.by_urgency(moment.monotonic_s)
    if not devices:
        return Group(_title(fleet, header, moment), Text("no device has been heard yet", style="dim"))
    shown = devices[: rows - 1] if len(devices) > rows else devices
    table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
    table.add_column("device", no_wrap=True, overflow="ellipsis", ratio=3)
    table.add_column("state", no_wrap=True, overflow="ellipsis", ratio=4)
    for head in (*(head for head, _, _ in _COLUMNS), "spoke"):
        table.add_column(head, justify="right", no_wrap=True)
    for device in shown:
        table.add_row(*_cells(device, moment))
    if len(shown) < len(devices):
        table.add_row(Text(f"… and {len(devices) - len(shown)} more", style="dim"))
    return Group(_title(fleet, header, moment), table, *(_one_line(event_line(event, moment)) for event in said))


def _title(fleet: Fleet, header: Header, moment: Moment) -> Text:
    title = Text.assemble(("edgescribe ", "bold"), (f"{moment.wall:%H:%M:%S}  {header.address}  ", "dim"))
    if header.trouble is not None:
        title.append(f"no connection ({header.trouble}), retrying  ", "red")
    for standing, number in fleet.count(moment.monotonic_s).items():
        title.append(f"{number} {standing.name.lower()}  ", _STYLES[standing])
    for number, what in ((fleet.malformed, "malformed"), (fleet.unshown + header.overrun, "not shown")):
        if number:
            title.append(f"{number} {what}  ", "yellow")
    return _one_line(title)


def _cells(device: Device, moment: Moment) -> tuple[Text, ...]:
    standing = device.standing(moment.monotonic_s)
    state = Text.assemble((standing.name.lower(), _STYLES[standing]), (" ".join(("", *device.codes)), "red"))
    if device.speaking:
        state.append(" ● speaking", "cyan")
    style = "dim" if standing in {Standing.OFFLINE, Standing.SILENT} else ""
    figures = [form.format(device.figures[path]) if path in device.figures else "" for _, form, path in _COLUMNS]
    spoke = "" if device.said_s is None else "".join(ago(moment.monotonic_s - device.said_s).split()[:2])
    return Text(device.id, style), state, *(Text(figure, style) for figure in (*figures, spoke))


def _one_line(words: Text) -> Text:
    words.no_wrap = True
    words.overflow = "ellipsis"
    return words


def event_line(event: Event, moment: Moment) -> Text:
    """Return an event in one line: when, which device, what."""
    return Text.assemble(
        (f"{moment.at(event.received_s):%H:%M:%S}  ", "dim"), f"{event.device_id}  ", event_words(event)
    )


def event_words(event: Event) -> Text:
    """Return the kind of an event, its text, and its evidence."""
    style = "red" if event.grave else _KIND_STYLES.get(event.kind, "")
    bold = "bold" if event.kind == "transcript" else style
    note = f"  [{event.note}]" if event.note else ""
    return Text.assemble((f"{event.kind}  ", style), (event.text, bold), (note, "dim"))
