"""Stands between transcriber and publisher: measures the engine's pace, keeps what would be dropped, and forgets."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from agent.asr.transcriber import Recipient, Recognition, Transcriber
from agent.audio.frames import Utterance
from agent.errors import EngineError
from agent.governor.pace import Pace
from agent.governor.spool import Spool
from agent.messages.transcript import Transcript

log = logging.getLogger(__name__)

SETTLED: Final = 64
"""So many utterances are remembered as done with: more than can be under way at the same time."""


class Audience(Recipient, Protocol):
    """Is told of what was kept, too."""

    def lost(self, utterance: Utterance, why: str) -> None:
        """Called from any thread: this one was kept until there was time, and its sound is not to be had any more."""


class Keeper:
    """A `transcriber.Recipient` before another one. What finds no room in `spool` is dropped there.

    Every method may be called from any thread. One tells at a time, so that what is to be forgotten was told before, or
    never is. What becomes of an utterance in the end is told once: an engine may be done just when it is given up.
    """

    def __init__(self, further: Audience, spool: Spool | None) -> None:
        self._further = further
        self._spool = spool
        self._telling = threading.Lock()
        self._forgotten_ns = float("-inf")
        self._settled: deque[str] = deque(maxlen=SETTLED)
        """Ids of which the end was told."""
        self._lock = threading.Lock()
        self._pace = Pace()
        self._drafted: Transcript | None = None

    def pace(self) -> tuple[float, float]:
        """Real-time factor, and share of the last minutes in which the engine worked; any thread may ask."""
        with self._lock:
            return self._pace.rtf, self._pace.load(time.monotonic())

    def another_engine(self) -> None:
        """The next inference is that of another engine."""
        with self._lock:
            self._pace.another_engine()

    def forget(self) -> int:
        """Tell and keep nothing of what was said until now, wherever it is under way; return how much lay on disk."""
        with self._telling:
            self._forgotten_ns = time.monotonic_ns()
            return self._spool.purge() if self._spool else 0

    def recognised(self, recognition: Recognition) -> None:
        """Note how long it took, unless that was noted of its draft or nobody had to wait for it, and pass it on."""
        if recognition.transcript is not self._drafted and not recognition.late:
            self._note(recognition.utterance, recognition.transcript)
        self._tell(recognition.utterance, lambda: self._further.recognised(recognition))

    def drafted(self, utterance: Utterance, transcript: Transcript) -> None:
        """Note how long it took, and pass it on."""
        self._drafted = transcript
        self._note(utterance, transcript)
        self._tell(utterance, lambda: self._further.drafted(utterance, transcript), is_end=False)

    def failed(self, utterance: Utterance, error: EngineError) -> None:
        """Pass it on."""
        self._tell(utterance, lambda: self._further.failed(utterance, error))

    def dropped(self, utterance: Utterance) -> None:
        """Keep it for later, if there is room."""
        self._tell(utterance, lambda: self._keep(utterance), is_end=False)

    def lost(self, utterance: Utterance, why: str) -> None:
        """Pass it on."""
        self._tell(utterance, lambda: self._further.lost(utterance, why))

    def _keep(self, utterance: Utterance) -> None:
        if self._spool is None or not self._spool.put(utterance):
            self._settled.append(utterance.id)
            self._further.dropped(utterance)

    def _tell(self, utterance: Utterance, tell: Callable[[], None], *, is_end: bool = True) -> None:
        with self._telling:
            if utterance.started_ns < self._forgotten_ns:
                log.info(f"{utterance.id}: purged")
            elif utterance.id in self._settled:
                log.info(f"{utterance.id}: nothing more is told of it")
            else:
                if is_end:
                    self._settled.append(utterance.id)
                tell()

    def _note(self, utterance: Utterance, transcript: Transcript) -> None:
        with self._lock:
            self._pace.inferred(time.monotonic(), transcript.inference_s, utterance.duration_s)


def keep_what_waits(transcriber: Transcriber, keeper: Keeper) -> None:
    """The agent stops now: what the engine has not come to is kept for the next start, what it is at is given up.

    That is not kept, since an engine that hangs on it would hang on it again.
    """
    for utterance in transcriber.set_aside(0.0):
        keeper.dropped(utterance)
    under_way = transcriber.under_way
    for utterance in under_way.owed if under_way else ():
        keeper.failed(utterance, EngineError("the engine was not done with it when the agent had to stop"))
