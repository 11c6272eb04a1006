"""The viewer of `edgescribe top` and `edgescribe watch`: a live screen, lines, or JSON."""

import json
import re
import time
from contextlib import suppress
from datetime import datetime
from enum import Enum, auto
from typing import Final, Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from agent.messages.presentation import colours
from agent.mqtt.subscriber import LinkChange, Received
from agent.terminal.device import Fleet, local_device
from agent.terminal.render import Moment, device_line, event_line, picture, screen

REDRAW_S: Final = 0.25
LINE_EVERY_S: Final = 1.0
"""Of the device here."""
_BARE_WORDS: Final = frozenset({"status", "vad"})
_ESCAPED: Final = re.compile("[\x7f-\x9f\ud800-\udfff]")
"""Controls that JSON may leave unescaped and terminals obey; and lone surrogates, which no encoding has."""


class Mode(Enum):
    """A form of the output."""

    SCREEN = auto()
    """The whole terminal, redrawn at each change. Its old content comes back at the end."""
    LINES = auto()
    JSON = auto()
    PICTURE = auto()
    """The screen, printed once."""


class Viewer:
    """A terminal, or a pipe; a context that gives the terminal back. Belongs to one thread."""

    def __init__(self, mode: Mode, console: Console | None = None) -> None:
        self._mode = mode
        self._console = console or Console(highlight=False, color_system=colours())
        self._live = Live(console=self._console, screen=True, auto_refresh=False)
        self._shown_s = float("-inf")

    def __enter__(self) -> Self:
        if self._mode is Mode.SCREEN:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def _due(self, period_s: float) -> bool:
        """Return whether a new view is due; if so, it counts as shown."""
        now_s = time.monotonic()
        if due := now_s - self._shown_s >= period_s:
            self._shown_s = now_s
        return due

    def _draw(self, view: RenderableType) -> None:
        if self._mode is Mode.SCREEN:
            self._live.update(view, refresh=True)
        else:
            self._console.print(view)

    def _print(self, words: Text) -> None:
        """Print one line of any length."""
        self._console.print(words, soft_wrap=True)
        self._console.file.flush()


class DeviceViewer(Viewer):
    """Shows the device here, from the lines of its own socket."""

    def take(self, line: bytes) -> None:
        """Show the content of a line; pass over one that is no JSON object."""
        if self._mode is Mode.JSON:
            print_json(line.decode(errors="replace"))
            return
        with suppress(ValueError, RecursionError):
            device = local_device(line, time.monotonic())
            if self._mode is not Mode.LINES:
                self._draw(picture(device))
            elif self._due(LINE_EVERY_S):
                self._print(Text(device_line(device)))


class FleetViewer(Viewer):
    """Shows many devices, from their messages at the broker at `address`, with the `last` transcripts."""

    def __init__(self, mode: Mode, address: str, last: int, console: Console | None = None) -> None:
        super().__init__(mode, console)
        self._address = address
        self._fleet = Fleet(last)
        self._trouble: str | None = None

    def take(self, event: Received | LinkChange) -> None:
        """Print a message, or a change of the connection; the screen shows it at the next tick."""
        if isinstance(event, LinkChange):
            self._link_changed(event)
        elif self._mode is Mode.JSON:
            print_json(_message(event))
        elif (happened := self._fleet.receive(event)) and self._mode is Mode.LINES:
            self._print(event_line(happened, now()))

    def _link_changed(self, change: LinkChange) -> None:
        self._trouble = None if change.connected else change.reason
        if change.connected:
            self._fleet.resumed(time.monotonic())
        if self._mode is Mode.LINES:
            self._print(Text("connected" if change.connected else f"no connection ({change.reason}), retrying"))

    def tick(self, overrun: int) -> None:
        """Redraw the screen if it is time. So far `overrun` messages came too fast to be read."""
        if self._mode is Mode.SCREEN and self._due(REDRAW_S):
            height = self._console.size.height
            self._draw(screen(self._fleet, self._address, now(), height, trouble=self._trouble, overrun=overrun))


def now() -> Moment:
    """Return this moment."""
    return Moment(time.monotonic(), datetime.now().astimezone())


def print_json(text: str) -> None:
    """Print JSON as one line that cannot steer a terminal."""
    print(_ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text), flush=True)  # noqa: T201 - the command's output


def _message(received: Received) -> str:
    """Return a message as an object `{"topic", "retained", "payload"}`; a payload that is no JSON is a string."""
    text = received.payload.decode(errors="replace")
    message = {"topic": received.topic, "retained": received.retained, "payload": text}
    if received.topic.rpartition("/")[2] not in _BARE_WORDS:
        # A payload that is no JSON, holds NaN, or is nested too deeply to be written again stays text.
        with suppress(ValueError, RecursionError):
            return json.dumps(message | {"payload": json.loads(text)}, ensure_ascii=False, allow_nan=False)
    return json.dumps(message, ensure_ascii=False)
