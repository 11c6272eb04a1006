"""Watches the stages, and tells systemd that the agent is alive while each of them makes progress."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from agent.asr.own_time import OwnTime
from agent.asr.transcriber import Transcriber, UnderWay
from agent.audio.microphone import Microphone
from agent.segmenter import Listener
from agent.systemd import Notifier

log = logging.getLogger(__name__)

CAPTURE_S: Final = 20.0
"""After 5 s without sound, the microphone is opened again. The attempts then count as signs of life."""
LISTEN_S: Final = 10.0
"""Limit for one frame. A frame takes a fraction of a millisecond."""


@dataclass(slots=True)
class Supervisor:
    """Owned by the main thread, which calls `tick` about once a second.

    It sends `WATCHDOG=1` only if no stage is late. So systemd restarts an agent that hangs in any stage: a ping from
    the main thread alone would only prove that the main thread runs.
    """

    notifier: Notifier
    """The connection to systemd."""
    source: Microphone
    """A source that is not live waits for the engine."""
    listener: Listener
    transcriber: Transcriber
    inference_s: Callable[[float], float]
    """Longest own time (`asr/own_time.py`) of the engine for an utterance of so many seconds, its restarts included."""
    clock_s: Callable[[], float] = time.monotonic
    stalled: bool = field(default=False, init=False)
    """Whether a stage is late."""
    _own_time_s: Callable[[], float] = field(init=False)
    _listened: tuple[int, float] = field(init=False)
    """Frames that the listener had taken, and since when it has not taken more."""
    _began: tuple[UnderWay | None, float] = field(default=(None, 0.0), init=False)
    """The current inference, and the engine's own time when it began."""
    _status: str = field(default="", init=False)

    def __post_init__(self) -> None:
        # The engine computes in a process of its own, or in this one.
        self._own_time_s = OwnTime(lambda: self.transcriber.engine_pid or os.getpid())
        self._listened = (-1, self.clock_s())

    def tick(self, status: str) -> None:
        """Check every stage, and tell systemd the result: `status` if no stage is late."""
        now_s = self.clock_s()
        silent = {name: now_s - since_s for name, since_s, limit_s in self._stages(now_s) if now_s - since_s > limit_s}
        longest_first = sorted(silent.items(), key=lambda one: -one[1])
        late = [f"{name} has been silent for {silent_s:.0f} s" for name, silent_s in longest_first]
        if late and not self.stalled:
            log.error(f"withholding the watchdog ping: {late[0]}")
        self.stalled = bool(late)
        if not late:
            self.notifier.watchdog()
        status = f"stalled: {'; '.join(late)}" if late else status
        if status != self._status:
            self._status = status
            self.notifier.status(status)

    def _stages(self, now_s: float) -> Iterator[tuple[str, float, float]]:
        """Yield each stage with work: its name, its last sign of life, and how long it may be silent.

        A stage that waits for input needs to give no sign of life.
        """
        alive_s = self.source.alive_s
        if self.source.live and alive_s is not None and not self.listener.ended:
            yield "capture", alive_s, CAPTURE_S
        frames_heard = self.listener.frames
        # With a file that is read flat out, the listener waits for room in the engine's queue.
        waits = not self.source.live and self.transcriber.waiting > 0
        if waits or frames_heard != self._listened[0] or not self.listener.busy:
            self._listened = (frames_heard, now_s)
        yield "listen", self._listened[1], LISTEN_S
        under_way, own_time_s = self.transcriber.under_way, self._own_time_s()
        if under_way is not self._began[0]:
            self._began = (under_way, own_time_s)
        if under_way:
            starved_s = (now_s - under_way.since_s) - (own_time_s - self._began[1])
            yield "transcribe", under_way.since_s, self.inference_s(under_way.duration_s) + max(0.0, starved_s)
