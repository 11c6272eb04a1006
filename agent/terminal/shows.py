"""The three ways to show what arrives: a live screen, lines, and JSON."""

import json
import re
import time
from contextlib import ExitStack, suppress
from datetime import datetime
from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from agent.mqtt.subscriber import Received
from agent.terminal.fleet import Fleet
from agent.terminal.fleet_view import Header, Moment, line, plain_console, screen
from agent.terminal.link import LinkChange

_REDRAW_S: Final = 0.25
_BARE_WORDS: Final = frozenset({"status", "vad"})
_ESCAPED: Final = re.compile("[\x7f-\x9f\ud800-\udfff]")
"""Controls that JSON may leave as they are, and terminals obey; and lone surrogates, which no encoding has."""


class Show(Protocol):
    """Takes what the link brings, in one thread; shows it until it is left as a context."""

    def __enter__(self) -> Self:
        """Take hold of the terminal."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back as it was."""

    def take(self, received: Received) -> None:
        """A message has come in."""

    def link_changed(self, change: LinkChange) -> None:
        """The broker is gone, or back."""

    def tick(self, overrun: int) -> None:
        """Time has passed; `overrun` messages were dropped so far."""


def now() -> Moment:
    """This moment."""
    return Moment(time.monotonic(), datetime.now().astimezone())


class _NothingToGiveBack:
    """For those who only print."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def tick(self, overrun: int) -> None:
        """Time changes nothing about lines."""


class Lines(_NothingToGiveBack):
    """One line for everything that is worth one."""

    def __init__(self, console: Console | None = None) -> None:
        self._fleet = Fleet(last=1)
        self._console = console or plain_console()

    def take(self, received: Received) -> None:
        """Print what a message tells, if it tells something."""
        if event := self._fleet.receive(received):
            self._print(line(event, now()))

    def link_changed(self, change: LinkChange) -> None:
        """Say that the broker is gone, or back."""
        if change.connected:
            self._fleet.resumed(time.monotonic())
        self._print(Text("connected" if change.connected else f"no connection ({change.reason}), retrying"))

    def _print(self, words: Text) -> None:
        self._console.print(words)
        self._console.file.flush()


class Json(_NothingToGiveBack):
    """One object a message: `{"topic", "retained", "payload"}`; what is no JSON is a string."""

    def take(self, received: Received) -> None:
        """Print a message as it is."""
        text = received.payload.decode(errors="replace")
        printed = _as_json(received, text)
        if received.topic.rpartition("/")[2] not in _BARE_WORDS:
            # What is no JSON, holds NaN, or is nested too deeply to be written again stays text.
            with suppress(ValueError, RecursionError):
                printed = _as_json(received, json.loads(text))
        print(_ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", printed), flush=True)  # noqa: T201 - it is what was asked for

    def link_changed(self, change: LinkChange) -> None:
        """Standard output is for messages."""


def _as_json(received: Received, payload: object) -> str:
    message = {"topic": received.topic, "retained": received.retained, "payload": payload}
    return json.dumps(message, ensure_ascii=False, allow_nan=False)


class Screen:
    """The whole terminal, redrawn as things change; given back as it was."""

    def __init__(self, address: str, last: int, console: Console | None = None) -> None:
        self._fleet = Fleet(last)
        self._address = address
        self._console = console or Console()
        self._trouble: str | None = None
        self._drawn_s = float("-inf")
        self._live = Live(console=self._console, screen=True, auto_refresh=False)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self._live)
        self.tick(0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def take(self, received: Received) -> None:
        """Remember a message; the next tick shows it."""
        self._fleet.receive(received)

    def link_changed(self, change: LinkChange) -> None:
        """Remember that the broker is gone, or back."""
        self._trouble = None if change.connected else change.reason
        if change.connected:
            self._fleet.resumed(time.monotonic())

    def tick(self, overrun: int) -> None:
        """Draw, at most four times a second."""
        moment = now()
        if moment.monotonic_s - self._drawn_s < _REDRAW_S:
            return
        self._drawn_s = moment.monotonic_s
        header = Header(self._address, self._trouble, overrun)
        self._live.update(screen(self._fleet, header, moment, self._console.size.height), refresh=True)
