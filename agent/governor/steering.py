"""Carries out what the governor decides: loads and exchanges engines while sound goes on being captured, and tells.

[main] tick ─▶ governor ─▶ another level? ──▶ thread `govern`: load, exchange, tell
                        └▶ nobody has time? ─▶ what waits goes to the spool
               idle, and something kept? ───▶ thread `late`: transcribe it, publish it, delete it
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

from agent.asr import Engine
from agent.asr.transcriber import NoTimeError, Recognition, Transcriber
from agent.config.settings import AutoSettings, EngineSettings, Settings
from agent.errors import AgentError, EngineError
from agent.governor.factory import create_ladder
from agent.governor.governor import Decision, Governor, Limits, Signals
from agent.governor.keeper import Keeper
from agent.governor.ladder import Level, on_level
from agent.governor.spool import Kept, Lost, Spool
from agent.messages import GovernorState
from agent.telemetry.vitals import Vitals
from agent.worker import Worker

log = logging.getLogger(__name__)

LATE_S: Final = 120.0
"""For the engine to have time for what was kept; then it is tried again later."""
IDLE_S: Final = 3.0
"""So long nobody must want anything of the engine before what was kept is taken up."""
ATTEMPTS: Final = 2
CONDITION: Final = "governor_"
"""Before the reason, in the codes of `health`."""


class Governed:
    """Which level is in force. Read by any thread, changed by the holder of the lock `changing`."""

    def __init__(self) -> None:
        self.top: EngineSettings | None = None
        """What the settings and commands asked for when the ladder was made."""
        self.level: Level | None = None
        """None while it is what the settings ask for."""
        self.state: GovernorState | None = None
        """What `state` tells; None where the governor is off."""

    def overlay(self, settings: Settings) -> Settings:
        """`settings` with the engine that is to be used: that of the level, unless they ask for something new."""
        level = self.level
        return on_level(settings, level) if level and settings.engine == self.top else settings


@dataclass(frozen=True, slots=True)
class Reach:
    """What the governor reaches."""

    governed: Governed
    settings: Callable[[], Settings]
    """What is in force by the configuration and commands, whatever the governor makes of it."""
    changing: AbstractContextManager[object]
    """Held by whoever changes what is in force."""
    load_engine: Callable[[Settings], Engine]
    """Loads exactly what these settings say; raises ModelError or EngineError."""
    transcriber: Transcriber
    keeper: Keeper
    spool: Spool | None
    conditions: Callable[[str, Sequence[str]], None]
    """Publishes what is wrong, all codes with one prefix."""
    tell: Callable[[], None]
    """Tells subscribers what is in force now."""


class Steering:
    """Owned by the main thread, which calls `tick` about once a second, and `close` once."""

    def __init__(self, reach: Reach, on_failure: Callable[[Worker], None]) -> None:
        self._reach = reach
        self._on_failure = on_failure
        self._ladder: tuple[Level, ...] = ()
        self._governor: Governor | None = None
        self._in_force = 0
        self._refused = threading.Event()
        self._work: Worker | None = None
        self._late: Worker | None = None
        self._idle_since_s: float | None = None
        self._failures: dict[str, int] = {}
        self._closed = False

    def open(self) -> None:
        """Make the ladder, before anything is told to anybody.

        Raises:
            ModelError: `governor.models` or `governor.floor` names a model that nobody knows.
        """
        if (settings := self._reach.settings()).governor.enabled:
            self._begin(settings)

    def tick(self, vitals: Vitals) -> None:
        """Look, decide, and have done what there is to do."""
        settings = self._reach.settings()
        now_s = time.monotonic()
        if settings.governor.enabled:
            self._govern(settings, vitals, now_s)
        self._catch_up(now_s)

    def close(self) -> None:
        """Begin nothing new. What is kept stays for the next start."""
        self._closed = True

    # Levels.

    def _govern(self, settings: Settings, vitals: Vitals, now_s: float) -> None:
        governed, busy = self._reach.governed, self._work is not None and self._work.alive
        if settings.engine != governed.top:
            if not busy:
                self._work = Worker("govern", self._begin_again, self._on_failure)
                self._work.start()
            return
        if self._governor is None:
            return
        if self._refused.is_set():
            self._refused.clear()
            self._governor.refused(self._in_force, now_s)
        queue = self._reach.transcriber.queue
        rtf, load = self._reach.keeper.pace()
        signals = Signals(now_s, vitals, queue.age_s, queue.speech_s, rtf=rtf, load=load, changing=busy)
        decision = self._governor.decide(signals)
        self._reach.transcriber.duty = decision.duty
        if decision.level != self._in_force and not busy:
            self._work = Worker("govern", lambda: self._step(decision), self._on_failure)
            self._work.start()
        elif decision.set_aside:
            self._set_aside(settings.governor.queue_age_s)

    def _begin(self, settings: Settings) -> None:
        """At the top of the ladder of the engine that is in force."""
        engine = settings.engine
        if isinstance(engine, AutoSettings):  # what it means was found out before anything was loaded
            return
        self._ladder = create_ladder(settings, engine)
        limits = Limits(
            queue_age_s=settings.governor.queue_age_s,
            hot_c=settings.telemetry.hot_c,
            down_after_s=settings.governor.down_after_s,
            up_after_s=settings.governor.up_after_s,
        )
        self._governor = Governor(tuple(level.cost for level in self._ladder), limits)
        self._reach.governed.top, self._reach.governed.level = engine, None
        self._put_in_force(0, None)

    def _begin_again(self) -> None:
        """The settings or a command asked for another engine, and got it."""
        with self._reach.changing:
            self._reach.keeper.another_engine()
            self._begin(self._reach.settings())
            self._reach.tell()

    def _step(self, decision: Decision) -> None:
        """The work of the thread `govern`: another level takes over, or the one in force stays."""
        reach, governed = self._reach, self._reach.governed
        with reach.changing:
            settings = reach.settings()
            if settings.engine != governed.top:
                return  # a command was faster
            before, level = self._ladder[self._in_force], self._ladder[decision.level]
            try:
                if level.engine != before.engine:
                    reach.transcriber.exchange(reach.load_engine(on_level(settings, level)))
                    reach.keeper.another_engine()
            except AgentError as error:
                log.warning(f"governor: {level.model} cannot take over: {error}")
                self._refused.set()
                return
            governed.level = level if decision.level else None
            self._put_in_force(decision.level, decision)
            reach.tell()
        log.info(f"governor: {_in_words(decision, level)}")

    def _put_in_force(self, number: int, decision: Decision | None) -> None:
        reach, level = self._reach, self._ladder[number]
        self._in_force = number
        reach.transcriber.eager = level.eager
        reason = decision.reason if decision else None
        reach.governed.state = GovernorState(
            level=number, levels=len(self._ladder) - 1, reason=reason.value if reason else None, eager=level.eager
        )
        reach.conditions(CONDITION, (f"{CONDITION}{reason}",) if reason else ())

    # What nobody has time for.

    def _set_aside(self, older_than_s: float) -> None:
        """Make room for what is said now."""
        for utterance in self._reach.transcriber.set_aside(older_than_s):
            self._reach.keeper.dropped(utterance)

    def _catch_up(self, now_s: float) -> None:
        """Begin on what was kept, if there is some, and the engine has had nothing to do for a moment."""
        reach = self._reach
        if not reach.spool or not reach.spool.ready or reach.transcriber.waiting or reach.transcriber.under_way:
            self._idle_since_s = None
            return
        self._idle_since_s = now_s if self._idle_since_s is None else self._idle_since_s
        running = self._late is not None and self._late.alive
        if now_s - self._idle_since_s >= IDLE_S and not running and not self._closed:
            self._late = Worker("late", self._transcribe_kept, self._on_failure)
            self._late.start()

    def _transcribe_kept(self) -> None:
        """The work of the thread `late`: as long as nobody else wants anything of the engine."""
        reach = self._reach
        while reach.spool and not reach.transcriber.waiting and not self._closed and (kept := reach.spool.oldest()):
            utterance = kept.utterance
            if isinstance(kept, Lost):
                reach.keeper.lost(utterance, kept.why)
                reach.spool.remove(kept.path)
                continue
            try:
                transcript = reach.transcriber.probe(utterance, LATE_S)
            except NoTimeError:
                return  # what is said now goes first; it stays where it is
            except EngineError as error:
                self._try_later(kept, error)
                return
            age_s = (time.monotonic_ns() - utterance.started_ns) / 1e9
            waited_s = max(0.0, age_s - utterance.duration_s)
            queue_s = max(0.0, waited_s - transcript.inference_s)
            reach.keeper.recognised(Recognition(utterance, transcript, queue_s, waited_s, late=True))
            reach.spool.remove(kept.path)

    def _try_later(self, kept: Kept, error: EngineError) -> None:
        """Give up what the engine has failed on twice."""
        failures = self._failures.pop(kept.utterance.id, 0) + 1
        if failures < ATTEMPTS:
            self._failures[kept.utterance.id] = failures
            return
        self._reach.keeper.failed(kept.utterance, error)
        if self._reach.spool:
            self._reach.spool.remove(kept.path)


def _in_words(decision: Decision, level: Level) -> str:
    how = level.model if level.eager else f"{level.model}, without decoding ahead"
    return f"{decision.reason or 'fine again'}: {how} (level {decision.level})"
