"""Looks after the stages, and tells systemd: alive as long as each of them makes progress, and what is going on."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Final

from agent.asr.own_time import OwnTime
from agent.asr.transcriber import Transcriber, UnderWay
from agent.audio.microphone import Microphone
from agent.segmenter import Listener
from agent.systemd import Notifier

log = logging.getLogger(__name__)

CAPTURE_S: Final = 20.0
"""A microphone that delivers nothing is given up after 5 s; then signs of life are the attempts to open it again."""
LISTEN_S: Final = 10.0
"""For one frame, which takes a fraction of a millisecond."""


class Supervisor:
    """Owned by the main thread, which calls `tick` about once a second.

    Sends `WATCHDOG=1` only if no stage is late, so that systemd aborts and restarts an agent that hangs in any of its
    stages: a sign of life from the main thread alone would say nothing about the others.

    Args:
        notifier: The way to systemd.
        source, listener, transcriber: What is looked after. A source that is not live waits for the engine.
        inference_s: Longest own time (`asr/own_time.py`) that an utterance of so many seconds may take, restarts of the
            engine included.
        clock_s: Monotonic.
    """

    def __init__(
        self,
        notifier: Notifier,
        *,
        source: Microphone,
        listener: Listener,
        transcriber: Transcriber,
        inference_s: Callable[[float], float],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._notifier = notifier
        self._source = source
        self._listener = listener
        self._transcriber = transcriber
        self._inference_s = inference_s
        self._clock_s = clock_s
        self._own_time_s: Callable[[], float] = OwnTime(self._process)
        self._listened = (-1, clock_s())
        self._began: tuple[UnderWay | None, float] = (None, 0.0)
        self._said = ""
        self.stalled = False
        """True while a stage is late."""

    def tick(self, status: str) -> None:
        """Look at every stage, and tell systemd; `status` is what to say as long as all is well."""
        now_s = self._clock_s()
        silent = {name: now_s - since_s for name, since_s, limit_s in self._stages(now_s) if now_s - since_s > limit_s}
        longest_first = sorted(silent.items(), key=lambda one: -one[1])
        late = [f"{name} has been silent for {silent_s:.0f} s" for name, silent_s in longest_first]
        if late and not self.stalled:
            log.error(f"withholding the watchdog ping: {late[0]}")
        self.stalled = bool(late)
        if not late:
            self._notifier.watchdog()
        self._say(f"stalled: {'; '.join(late)}" if late else status)

    def _stages(self, now_s: float) -> Iterator[tuple[str, float, float]]:
        """Each stage that has something to do: its name, its last sign of life, and how long it may be silent.

        A stage that waits for input owes no sign of life.
        """
        alive_s = self._source.alive_s
        if self._source.live and alive_s is not None and not self._listener.ended:
            yield "capture", alive_s, CAPTURE_S
        frames_heard = self._listener.frames
        # Who listens to a file that is read flat out waits for room in the engine's queue, and that may take a while.
        waits = not self._source.live and self._transcriber.waiting > 0
        if waits or frames_heard != self._listened[0] or not self._listener.busy:
            self._listened = (frames_heard, now_s)
        yield "listen", self._listened[1], LISTEN_S
        under_way, own_time_s = self._transcriber.under_way, self._own_time_s()
        if under_way is not self._began[0]:
            self._began = (under_way, own_time_s)
        if under_way:
            starved_s = (now_s - under_way.since_s) - (own_time_s - self._began[1])
            yield "transcribe", under_way.since_s, self._inference_s(under_way.duration_s) + max(0.0, starved_s)

    def _process(self) -> int:
        """The process in which the engine computes."""
        return self._transcriber.engine_pid or os.getpid()

    def _say(self, status: str) -> None:
        if status != self._said:
            self._said = status
            self._notifier.status(status)
