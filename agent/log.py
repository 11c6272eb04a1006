"""Configures the log: for people at a terminal, or for the journal."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TextIO

OURS: Final = "agent"
PRIORITIES: Final = {
    logging.CRITICAL: 2,
    logging.ERROR: 3,
    logging.WARNING: 4,
    logging.INFO: 6,
    logging.DEBUG: 7,
}
"""sd-daemon(3): the journal reads `<6>` at the start of a line as its priority."""

LINES_A_MINUTE: Final = 20
"""Most lines from one statement of the program."""
TRACEBACKS_A_MINUTE: Final = 1
_MINUTE_S: Final = 60.0
_UNLIMITED: Final = "agent.mqtt.publisher"
"""It logs one line an utterance. Speech sets its pace, not a sender."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Minute:
    """The lines of one statement since `since_s`."""

    since_s: float
    lines: int = 0
    left_out: int = 0
    last: str = ""
    """The last line that the filter left out."""


class FloodFilter(logging.Filter):
    """Passes a few lines of each statement in a minute and counts the others: one more line tells their number.

    A flood of messages from outside then causes no flood of lines. Any thread may call it.

    Args:
        clock_s: Monotonic time.
        after: Calls a function once, after some seconds, in another thread.
    """

    def __init__(
        self,
        clock_s: Callable[[], float] = time.monotonic,
        after: Callable[[float, Callable[[], None]], None] | None = None,
    ) -> None:
        super().__init__()
        self._clock_s = clock_s
        self._after = after or _after
        self._lock = threading.Lock()
        self._minutes: dict[tuple[str, int], _Minute] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write `record`."""
        if record.levelno <= logging.DEBUG or record.name.startswith(_UNLIMITED) or record.name == __name__:
            return True
        with self._lock:
            return self._has_room((record.pathname, record.lineno), record)

    def _has_room(self, kind: tuple[str, int], record: logging.LogRecord) -> bool:
        now_s = self._clock_s()
        minute = self._minutes.get(kind)
        if minute is None or (now_s - minute.since_s >= _MINUTE_S and not minute.left_out):
            minute = self._minutes[kind] = _Minute(now_s)
        minute.lines += 1
        if minute.lines <= (TRACEBACKS_A_MINUTE if record.exc_info else LINES_A_MINUTE):
            return True
        if not minute.left_out:
            self._after(minute.since_s + _MINUTE_S - now_s, lambda: self._sum_up(kind))
        minute.left_out += 1
        minute.last = record.getMessage()
        return False

    def _sum_up(self, kind: tuple[str, int]) -> None:
        with self._lock:
            minute = self._minutes.pop(kind)
        log.warning(f"left out {minute.left_out:,} lines of one kind within a minute; the last: {minute.last}")


def _after(seconds: float, work: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, work)
    timer.name, timer.daemon = "log", True
    timer.start()


class JournalFormatter(logging.Formatter):
    """Writes priority and message. The journal adds the time and the name of the service."""

    def format(self, record: logging.LogRecord) -> str:
        """Give every line of a message the prefix: the journal makes an entry of each."""
        priority = PRIORITIES.get(record.levelno, PRIORITIES[logging.INFO])
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


def configure(level: str, stream: TextIO = sys.stderr, environment: Mapping[str, str] = os.environ) -> None:
    """Write lines of at least `level` (`debug`, `info`, `warning`, `error`) to `stream`.

    Other libraries may write warnings only. Their `info` and `debug` lines are many, and paho's contain payloads, which
    are speech.
    """
    handler = logging.StreamHandler(stream)
    if environment.get("JOURNAL_STREAM") and not stream.isatty():
        handler.setFormatter(JournalFormatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    handler.addFilter(FloodFilter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    set_level(level)
    logging.captureWarnings(capture=True)


def set_level(level: str) -> None:
    """Write lines of at least `level` from now on."""
    logging.getLogger(OURS).setLevel(level.upper())
