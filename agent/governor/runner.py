"""Carries out the decisions of the policy: loads and exchanges engines while the microphone stays open, and reports.

[main] tick ─▶ policy ─▶ another profile? ──▶ thread `govern`: load, exchange, report
                      └▶ far behind? ───────▶ waiting utterances go to the spool
               idle, and the spool holds some? ─▶ thread `late`: transcribe, publish, delete
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from agent.asr import Engine
from agent.asr.transcriber import NoTimeError, Recipient, Transcriber
from agent.audio.frames import Utterance
from agent.config.settings import AutoSettings, EngineSettings, Settings
from agent.errors import AgentError, EngineError
from agent.governor.ladder import Profile, create_ladder
from agent.governor.policy import Decision, Governor, Limits, Reason, Signals
from agent.governor.spool import Kept, Spool
from agent.messages import GovernorState
from agent.telemetry.vitals import Vitals
from agent.worker import Worker

log = logging.getLogger(__name__)

LATE_S: Final = 120.0
"""Time for the engine to take an utterance from the spool. After that, the runner tries again later."""
IDLE_S: Final = 3.0
"""The engine must be idle for this time before the runner reads the spool."""
ATTEMPTS: Final = 2
CONDITION: Final = "governor_"
"""Prefix of the reason in the codes of `health`."""


@dataclass(slots=True)
class Governed:
    """The profile in force. Any thread reads it; only the holder of the lock `changing` writes it."""

    top: EngineSettings | None = None
    """The engine of the settings and commands when the ladder was made."""
    profile: Profile | None = None
    """None on the first level of the ladder."""
    state: GovernorState | None = None
    """For the topic `state`; None if the governor is off."""

    def overlay(self, settings: Settings) -> Settings:
        """Return `settings` with the engine of the profile, unless they want an engine other than `top`."""
        if self.profile is None or settings.engine != self.top:
            return settings
        return settings.model_copy(update={"engine": self.profile.engine})


class BacklogRecipient(Recipient, Protocol):
    """Receives the outcomes of utterances from the spool, too."""

    def lost(self, utterance: Utterance, why: str) -> None:
        """Report that an utterance from the spool cannot be read any more. Called from the thread `late`."""


@dataclass(slots=True)
class GovernorRunner:
    """Owned by the main thread, which calls `open` once, `tick` about once a second, and `close` once."""

    governed: Governed
    settings: Callable[[], Settings]
    """Returns the settings in force by configuration and commands, without the governor."""
    changing: AbstractContextManager[object]
    """The lock to hold while the settings in force change."""
    load_engine: Callable[[Settings], Engine]
    """Loads exactly the engine of the settings; raises ModelError or EngineError."""
    transcriber: Transcriber
    recipient: BacklogRecipient
    spool: Spool
    """Holds the utterances for which the engine has no time."""
    conditions: Callable[[str, Sequence[str]], None]
    """Publishes the current codes with a prefix."""
    applied: Callable[[], None]
    """Publishes the settings in force."""
    on_failure: Callable[[Worker], None]
    _ladder: tuple[Profile, ...] = field(default=(), init=False)
    _governor: Governor | None = field(default=None, init=False)
    _level: int = field(default=0, init=False)
    _refused: threading.Event = field(default_factory=threading.Event, init=False)
    _work: Worker | None = field(default=None, init=False)
    _late: Worker | None = field(default=None, init=False)
    _idle_since_s: float | None = field(default=None, init=False)
    _failures: dict[str, int] = field(default_factory=dict, init=False)
    _closed: bool = field(default=False, init=False)

    def open(self) -> None:
        """Make the ladder. Call it before the agent publishes.

        Raises:
            ModelError: `governor.models` or `governor.floor` names an unknown model.
        """
        if (settings := self.settings()).governor.enabled:
            self._begin(settings)

    def tick(self, vitals: Vitals) -> None:
        """Look at the device, decide, and start the work that follows."""
        settings, now_s = self.settings(), time.monotonic()
        if settings.governor.enabled:
            self._govern(settings, vitals, now_s)
        self._catch_up(now_s)

    def close(self) -> None:
        """Start no more work. The spool stays for the next start."""
        self._closed = True

    # Profiles.

    def _govern(self, settings: Settings, vitals: Vitals, now_s: float) -> None:
        busy, transcriber = self._work is not None and self._work.alive, self.transcriber
        if settings.engine != self.governed.top:
            if not busy:
                self._start(self._begin_again)
            return
        if self._governor is None:
            return
        if self._refused.is_set():
            self._refused.clear()
            self._governor.refused(self._level, now_s)
        queue, pace = transcriber.queue, transcriber.pace
        signals = Signals(
            now_s, vitals, queue.age_s, queue.speech_s, rtf=pace.rtf, load=pace.load(now_s), changing=busy
        )
        decision = self._governor.decide(signals)
        transcriber.duty = decision.duty
        if decision.level != self._level and not busy:
            self._start(lambda: self._step(decision))
        elif decision.set_aside:
            transcriber.set_aside(settings.governor.queue_age_s)

    def _start(self, work: Callable[[], None]) -> None:
        self._work = Worker("govern", work, self.on_failure)
        self._work.start()

    def _begin(self, settings: Settings) -> None:
        """Start at the top of the ladder of the engine in force."""
        engine, governor = settings.engine, settings.governor
        if isinstance(engine, AutoSettings):  # never in force: `concrete_engine` resolves it before
            return
        self._ladder = create_ladder(settings, engine)
        limits = Limits(
            queue_age_s=governor.queue_age_s,
            hot_c=settings.telemetry.hot_c,
            down_after_s=governor.down_after_s,
            up_after_s=governor.up_after_s,
        )
        self._governor = Governor(tuple(profile.cost for profile in self._ladder), limits)
        self.governed.top = engine
        self._put_in_force(0, None)

    def _begin_again(self) -> None:
        """Start at the top again: the settings or a command exchanged the engine."""
        with self.changing:
            self._begin(self.settings())
            self.applied()

    def _step(self, decision: Decision) -> None:
        """Exchange the profile. This is the work of the thread `govern`. After an error, the old profile stays."""
        with self.changing:
            settings = self.settings()
            if settings.engine != self.governed.top:
                return  # a command was faster
            before, profile = self._ladder[self._level], self._ladder[decision.level]
            try:
                if profile.engine != before.engine:
                    self.transcriber.exchange(self.load_engine(settings.model_copy(update={"engine": profile.engine})))
            except AgentError as error:
                log.warning(f"governor: {profile.model} cannot take over: {error}")
                self._refused.set()
                return
            self._put_in_force(decision.level, decision.reason)
            self.applied()
        how = "" if profile.speculative else ", without decoding ahead"
        log.info(f"governor: {decision.reason or 'fine again'}: {profile.model}{how} (level {decision.level})")

    def _put_in_force(self, level: int, reason: Reason | None) -> None:
        self._level, profile = level, self._ladder[level]
        self.transcriber.speculative = profile.speculative
        self.governed.profile = profile if level else None
        self.governed.state = GovernorState(
            level=level, levels=len(self._ladder) - 1, reason=reason and reason.value, eager=profile.speculative
        )
        self.conditions(CONDITION, (f"{CONDITION}{reason}",) if reason else ())

    # The spool.

    def _catch_up(self, now_s: float) -> None:
        """Start on the spool if it holds utterances and the engine has been idle for a moment."""
        if not self.spool.ready or self.transcriber.waiting or self.transcriber.under_way:
            self._idle_since_s = None
            return
        self._idle_since_s = now_s if self._idle_since_s is None else self._idle_since_s
        running = self._late is not None and self._late.alive
        if now_s - self._idle_since_s >= IDLE_S and not running and not self._closed:
            self._late = Worker("late", self._transcribe_kept, self.on_failure)
            self._late.start()

    def _transcribe_kept(self) -> None:
        """Transcribe the spool while the engine has no other work. This is the work of the thread `late`."""
        while not self.transcriber.waiting and not self._closed and (kept := self.spool.oldest()):
            try:
                self._report_kept(kept)
            except NoTimeError:
                return  # new utterances go first; this one stays in the spool
            except EngineError as error:
                failures = self._failures.pop(kept.utterance.id, 0) + 1
                if failures < ATTEMPTS:
                    self._failures[kept.utterance.id] = failures
                    return
                self.transcriber.report(kept.utterance, partial(self.recipient.failed, kept.utterance, error))
            self.spool.remove(kept.path)

    def _report_kept(self, kept: Kept) -> None:
        utterance = kept.utterance
        if kept.lost:
            self.transcriber.report(utterance, lambda: self.recipient.lost(utterance, kept.lost))
            return
        transcript = self.transcriber.probe(utterance, LATE_S)
        waited_s = max(0.0, (time.monotonic_ns() - utterance.started_ns) / 1e9 - utterance.duration_s)
        queue_s = max(0.0, waited_s - transcript.inference_s)
        words = partial(self.recipient.recognised, utterance, transcript, queue_s, waited_s, late=True)
        self.transcriber.report(utterance, words)
