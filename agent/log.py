"""Where log lines go and what they look like: for people at a terminal, or for the journal."""

import logging
import os
import sys
from collections.abc import Mapping
from typing import Final, TextIO

OURS: Final = "agent"
PRIORITIES: Final = {
    logging.CRITICAL: 2,
    logging.ERROR: 3,
    logging.WARNING: 4,
    logging.INFO: 6,
    logging.DEBUG: 7,
}
"""sd-daemon(3): the journal takes `<6>` at the start of a line for the line's priority."""


class JournalFormatter(logging.Formatter):
    """Priority and message; the journal adds the time and the name of the service."""

    def format(self, record: logging.LogRecord) -> str:
        """Every line of a message gets the prefix, as the journal makes an entry of each."""
        priority = PRIORITIES.get(record.levelno, PRIORITIES[logging.INFO])
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


def configure(level: str, stream: TextIO = sys.stderr, environment: Mapping[str, str] = os.environ) -> None:
    """Send what is at least `level` (`debug`, `info`, `warning`, `error`) to `stream`, once.

    Other libraries may warn, but not chat: at `info` and `debug` they would bury what matters, and paho's debug
    lines hold payloads, which are speech.
    """
    handler = logging.StreamHandler(stream)
    if environment.get("JOURNAL_STREAM") and not stream.isatty():
        handler.setFormatter(JournalFormatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    set_level(level)
    logging.captureWarnings(capture=True)


def set_level(level: str) -> None:
    """Log from `level` on, from now on."""
    logging.getLogger(OURS).setLevel(level.upper())
