"""How a fleet looks in a terminal: what is to be done first on top, what was said last at the bottom. No state here."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from agent.terminal.device import Device, Event, Standing
from agent.terminal.fleet import Fleet

_STYLES: Final = {
    Standing.OK: "green",
    Standing.MUTED: "blue",
    Standing.BEHIND: "yellow",
    Standing.PROBLEM: "red",
    Standing.SILENT: "red",
    Standing.OFFLINE: "bright_black",
}
_KIND_STYLES: Final = {"transcript": "cyan", "backlog": "bright_black", "failed": "red", "keyword": "magenta"}
_FRAME_LINES: Final = 6
"""Title, heads and rules."""
_DAY_S: Final = 86_400
_HOUR_S: Final = 3_600
_MINUTE_S: Final = 60


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, by both clocks."""

    monotonic_s: float
    wall: datetime
    """Local time."""

    def at(self, monotonic_s: float) -> datetime:
        """The local time of an earlier moment."""
        return self.wall - timedelta(seconds=self.monotonic_s - monotonic_s)


@dataclass(frozen=True, slots=True)
class Header:
    """What stands above it all."""

    address: str
    trouble: str | None
    """Why there is no connection; None if there is one."""
    overrun: int = 0
    """Messages that came too fast to be read."""


def screen(fleet: Fleet, header: Header, moment: Moment, lines: int) -> RenderableType:
    """The whole picture, in at most `lines` lines."""
    said = list(fleet.transcripts)[-max(1, (lines - _FRAME_LINES) // 2) :]
    rows = max(1, lines - _FRAME_LINES - len(said))
    devices = fleet.by_urgency(moment.monotonic_s)
    hidden = len(devices) - rows
    shown = devices[: rows - 1] if hidden > 0 else devices
    if not devices:
        return Group(_title(fleet, header, moment), Text("no device has been heard yet", style="dim"))
    table = _devices(shown, moment)
    if hidden > 0:
        table.add_row(Text(f"… and {len(devices) - len(shown)} more", style="dim"))
    return Group(_title(fleet, header, moment), table, *(_said(event, moment) for event in said))


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


def _devices(devices: Iterable[Device], moment: Moment) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
    table.add_column("device", no_wrap=True, overflow="ellipsis", ratio=3)
    table.add_column("state", no_wrap=True, overflow="ellipsis", ratio=4)
    for head in ("cpu %", "°C", "mem %", "rtf p95", "ms p95", "outbox", "dropped", "spoke"):
        table.add_column(head, justify="right", no_wrap=True)
    for device in devices:
        table.add_row(*_cells(device, moment))
    return table


def _cells(device: Device, moment: Moment) -> tuple[Text, ...]:
    standing = device.standing(moment.monotonic_s)
    vitals = device.vitals
    state = Text.assemble((standing.name.lower(), _STYLES[standing]), (" ".join(("", *device.codes)), "red"))
    if device.speaking:
        state.append(" ● speaking", "cyan")
    style = "dim" if standing in {Standing.OFFLINE, Standing.SILENT} else ""
    figures = (
        _figure(vitals.cpu_pct, "{:.0f}"),
        _figure(vitals.temp_c, "{:.0f}"),
        _figure(vitals.mem_pct, "{:.0f}"),
        _figure(vitals.rtf_p95, "{:.2f}"),
        _figure(vitals.lat_ms_p95, "{:.0f}"),
        _figure(vitals.outbox_n, "{:.0f}"),
        _figure(vitals.dropped, "{:.0f}"),
        "" if device.said_s is None else _ago(moment.monotonic_s - device.said_s),
    )
    return Text(device.id, style), state, *(Text(figure, style) for figure in figures)


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _ago(seconds: float) -> str:
    """Seconds in two or three characters."""
    for unit_s, unit in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "m")):
        if seconds >= unit_s:
            return f"{seconds / unit_s:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"


def _said(event: Event, moment: Moment) -> Text:
    return _one_line(line(event, moment))


def _one_line(words: Text) -> Text:
    words.no_wrap = True
    words.overflow = "ellipsis"
    return words


def line(event: Event, moment: Moment) -> Text:
    """An event in one line: when, who, what."""
    style = "red" if event.grave else _KIND_STYLES.get(event.kind, "")
    bold = "bold" if event.kind == "transcript" else style
    return Text.assemble(
        (f"{moment.at(event.received_s):%H:%M:%S}  ", "dim"),
        f"{event.device_id}  ",
        (f"{event.kind}  ", style),
        (event.text, bold),
        (f"  [{event.note}]" if event.note else "", "dim"),
    )


def plain_console() -> Console:
    """Lines as long as they are, without colours where nobody looks."""
    return Console(highlight=False, soft_wrap=True)
