"""Carries out what the policy decides: loads and exchanges engines while the microphone stays open, and reports.

[main] tick ─▶ policy ─▶ another profile? ──▶ thread `govern`: load, exchange, report
                      └▶ far behind? ───────▶ what waits goes to the spool
               idle, and something kept? ───▶ thread `late`: transcribe it, publish it, delete it
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
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
"""For the engine to have time for an utterance from the spool; then it is tried again later."""
IDLE_S: Final = 3.0
"""The engine must be idle for so long before the spool is taken up."""
ATTEMPTS: Final = 2
CONDITION: Final = "governor_"
"""Before the reason, in the codes of `health`."""


class Governed:
    """The profile that is in force. Read by any thread, changed by the holder of the lock `changing`."""

    def __init__(self) -> None:
        self.top: EngineSettings | None = None
        """What the settings and commands asked for when the ladder was made."""
        self.profile: Profile | None = None
        """None while it is what the settings ask for."""
        self.state: GovernorState | None = None
        """For the topic `state`; None where the governor is off."""

    def overlay(self, settings: Settings) -> Settings:
        """Return `settings` with the engine of the profile, unless they ask for something new."""
        profile = self.profile
        if profile is None or settings.engine != self.top:
            return settings
        return settings.model_copy(update={"engine": profile.engine})


class BacklogRecipient(Recipient, Protocol):
    """Receives the outcomes of utterances from the spool, too."""

    def lost(self, utterance: Utterance, why: str) -> None:
        """Called from the thread `late`: this utterance was kept until there was time, and cannot be read any more."""


class GovernorRunner:
    """Owned by the main thread, which calls `tick` about once a second, and `close` once.

    Args:
        governed: The profile in force.
        settings: Returns what is in force by the configuration and commands, without the governor.
        changing: Is held while what is in force changes.
        load_engine: Loads exactly what the settings say; raises ModelError or EngineError.
        transcriber: Its engine is exchanged.
        recipient: Receives the outcomes of utterances from the spool.
        spool: Holds the utterances that the engine had no time for.
        conditions: Publishes what is wrong, all codes with one prefix.
        applied: Publishes what is in force now.
        on_failure: Receives a worker that failed.
    """

    def __init__(
        self,
        governed: Governed,
        *,
        settings: Callable[[], Settings],
        changing: AbstractContextManager[object],
        load_engine: Callable[[Settings], Engine],
        transcriber: Transcriber,
        recipient: BacklogRecipient,
        spool: Spool,
        conditions: Callable[[str, Sequence[str]], None],
        applied: Callable[[], None],
        on_failure: Callable[[Worker], None],
    ) -> None:
        self._governed = governed
        self._settings = settings
        self._changing = changing
        self._load_engine = load_engine
        self._transcriber = transcriber
        self._recipient = recipient
        self._spool = spool
        self._conditions = conditions
        self._applied = applied
        self._on_failure = on_failure
        self._ladder: tuple[Profile, ...] = ()
        self._governor: Governor | None = None
        self._level = 0
        self._refused = threading.Event()
        self._work: Worker | None = None
        self._late: Worker | None = None
        self._idle_since_s: float | None = None
        self._failures: dict[str, int] = {}
        self._closed = False

    def open(self) -> None:
        """Make the ladder, before anything is published.

        Raises:
            ModelError: `governor.models` or `governor.floor` names an unknown model.
        """
        if (settings := self._settings()).governor.enabled:
            self._begin(settings)

    def tick(self, vitals: Vitals) -> None:
        """Look, decide, and start the work that follows from it."""
        settings, now_s = self._settings(), time.monotonic()
        if settings.governor.enabled:
            self._govern(settings, vitals, now_s)
        self._catch_up(now_s)

    def close(self) -> None:
        """Begin nothing new. The spool stays for the next start."""
        self._closed = True

    # Profiles.

    def _govern(self, settings: Settings, vitals: Vitals, now_s: float) -> None:
        busy, transcriber = self._work is not None and self._work.alive, self._transcriber
        if settings.engine != self._governed.top:
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
        self._work = Worker("govern", work, self._on_failure)
        self._work.start()

    def _begin(self, settings: Settings) -> None:
        """Start at the top of the ladder of the engine that is in force."""
        engine, governor = settings.engine, settings.governor
        if isinstance(engine, AutoSettings):  # it is resolved before anything is loaded
            return
        self._ladder = create_ladder(settings, engine)
        limits = Limits(
            queue_age_s=governor.queue_age_s,
            hot_c=settings.telemetry.hot_c,
            down_after_s=governor.down_after_s,
            up_after_s=governor.up_after_s,
        )
        self._governor = Governor(tuple(profile.cost for profile in self._ladder), limits)
        self._governed.top = engine
        self._put_in_force(0, None)

    def _begin_again(self) -> None:
        """The settings or a command asked for another engine, and got it."""
        with self._changing:
            self._begin(self._settings())
            self._applied()

    def _step(self, decision: Decision) -> None:
        """The work of the thread `govern`: another profile takes over, or the one in force stays."""
        with self._changing:
            settings = self._settings()
            if settings.engine != self._governed.top:
                return  # a command was faster
            before, profile = self._ladder[self._level], self._ladder[decision.level]
            try:
                if profile.engine != before.engine:
                    engine = self._load_engine(settings.model_copy(update={"engine": profile.engine}))
                    self._transcriber.exchange(engine)
            except AgentError as error:
                log.warning(f"governor: {profile.model} cannot take over: {error}")
                self._refused.set()
                return
            self._put_in_force(decision.level, decision.reason)
            self._applied()
        how = "" if profile.speculative else ", without decoding ahead"
        log.info(f"governor: {decision.reason or 'fine again'}: {profile.model}{how} (level {decision.level})")

    def _put_in_force(self, level: int, reason: Reason | None) -> None:
        profile = self._ladder[level]
        self._level = level
        self._transcriber.speculative = profile.speculative
        self._governed.profile = profile if level else None
        self._governed.state = GovernorState(
            level=level, levels=len(self._ladder) - 1, reason=reason and reason.value, eager=profile.speculative
        )
        self._conditions(CONDITION, (f"{CONDITION}{reason}",) if reason else ())

    # The spool.

    def _catch_up(self, now_s: float) -> None:
        """Begin on the spool, if there is something in it, and the engine is idle for a moment."""
        transcriber = self._transcriber
        if not self._spool.ready or transcriber.waiting or transcriber.under_way:
            self._idle_since_s = None
            return
        self._idle_since_s = now_s if self._idle_since_s is None else self._idle_since_s
        running = self._late is not None and self._late.alive
        if now_s - self._idle_since_s >= IDLE_S and not running and not self._closed:
            self._late = Worker("late", self._transcribe_kept, self._on_failure)
            self._late.start()

    def _transcribe_kept(self) -> None:
        """The work of the thread `late`, for as long as the engine is idle otherwise."""
        transcriber, spool = self._transcriber, self._spool
        while not transcriber.waiting and not self._closed and (kept := spool.oldest()):
            try:
                self._report_kept(kept)
            except NoTimeError:
                return  # utterances that are said now go first; it stays where it is
            except EngineError as error:
                failures = self._failures.pop(kept.utterance.id, 0) + 1
                if failures < ATTEMPTS:
                    self._failures[kept.utterance.id] = failures
                    return
                transcriber.report(kept.utterance, partial(self._recipient.failed, kept.utterance, error))
            spool.remove(kept.path)

    def _report_kept(self, kept: Kept) -> None:
        utterance = kept.utterance
        if kept.lost:
            self._transcriber.report(utterance, lambda: self._recipient.lost(utterance, kept.lost))
            return
        transcript = self._transcriber.probe(utterance, LATE_S)
        waited_s = max(0.0, (time.monotonic_ns() - utterance.started_ns) / 1e9 - utterance.duration_s)
        queue_s = max(0.0, waited_s - transcript.inference_s)
        words = partial(self._recipient.recognised, utterance, transcript, queue_s, waited_s, late=True)
        self._transcriber.report(utterance, words)
