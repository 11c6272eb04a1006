"""The last of what was published, for who looks at the device itself. Pure: messages and time come in."""

import threading
from dataclasses import dataclass, replace
from typing import Any

from agent.messages import Info, Message, State, TranscriptMessage, Vad
from agent.messages.partial import PartialTranscript


@dataclass(frozen=True, slots=True)
class Remembered:
    """What was published last. Instants are monotonic seconds."""

    info: Info | None = None
    state: State | None = None
    speaking_since_s: float | None = None
    partial: PartialTranscript | None = None
    """Of the utterance that is under way."""
    transcript: TranscriptMessage | None = None
    said_s: float = 0.0
    """When that came."""


class Memory:
    """Any thread may tell and ask.

    What was said is only here where it was published: with `publish.privacy` other than `full` no text comes this way.
    It is forgotten when the device is muted.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = Remembered()

    @property
    def latest(self) -> Remembered:
        """What is remembered."""
        with self._lock:
            return self._now

    def remember(self, message: Message, now_s: float) -> None:
        """Something was published."""
        with self._lock:
            self._now = _with(self._now, message, now_s)


def _with(before: Remembered, message: Message, now_s: float) -> Remembered:
    changed: dict[str, Any] = {}
    match message:
        case Info():
            changed = {"info": message}
        case State():
            forgotten = {} if message.listening else {"transcript": None, "partial": None, "speaking_since_s": None}
            changed = {"state": message, **forgotten}
        case Vad(state="OFF"):
            changed = {"speaking_since_s": None}
        case Vad() if before.speaking_since_s is None:  # ON is repeated while somebody speaks
            changed = {"speaking_since_s": now_s, "partial": None}
        case PartialTranscript():
            changed = {"partial": message}
        case TranscriptMessage():
            changed = {"transcript": message, "said_s": now_s, "partial": None}
        case _:
            pass
    return replace(before, **changed)
