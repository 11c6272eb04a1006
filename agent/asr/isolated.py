"""An engine in a process of its own: what kills it costs a second attempt at one utterance, and nothing else.

utterance ─▶ process ─▶ transcript
                │ dies, hangs, answers nonsense: kill, start anew, load
                └─▶ new process ─▶ transcript
                        │ again
                        └─▶ EngineError: this one is given up, the next is tried

several utterances at once ─▶ process ─▶ transcripts
                                  └─▶ EngineError, at once: whoever asked tries each by itself, as above
"""

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.asr.engine_process import LOAD_S, Crashed, Lost, Offspring
from agent.audio.frames import Utterance
from agent.errors import AgentError, EngineError, ModelError
from agent.messages.transcript import Transcript

if TYPE_CHECKING:
    from agent.config.settings import EngineIsolation, EngineSettings

log = logging.getLogger(__name__)

ATTEMPTS: Final = 2
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 10.0
"""Between attempts to start a process that does not even start. Short enough for the queue to hold what is said."""


def longest_inference_s(settings: "EngineIsolation", duration_s: float) -> float:
    """Return the seconds of own time that an engine may take at most for an utterance of `duration_s` seconds.

    A process that hangs is killed, so only restarts, pauses and a second attempt come on top.
    """
    deadline_s = settings.deadline_s(duration_s)
    return ATTEMPTS * (deadline_s + LOAD_S + LONGEST_PAUSE_S) if settings.isolation == "process" else deadline_s


class ProcessEngine:
    """Runs the engine that `settings` describe in a child process; implements `agent.asr.BatchEngine`.

    Args:
        settings: Engine, `budget_s` included.
        find_model: Returns the verified path of the model, None for an engine without; asked at every start, since the
            file may have changed since the last.
        on_loss: Told, from the thread that transcribes, why a process was lost. To be quick, and to raise nothing.

    Raises:
        AgentError: whatever `find_model` raises.
        ModelError: the engine refuses the model, or crashes while it loads it.
        EngineError: the engine cannot be started.
    """

    def __init__(
        self,
        settings: "EngineSettings",
        find_model: Callable[[], Path | None],
        on_loss: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        self._settings = settings
        self._find_model = find_model
        self._on_loss = on_loss
        self._closed = threading.Event()
        self._failed_starts = 0
        self._given_up: tuple[str, int] | None = None
        """Id and samples of the last utterance that the engine did not survive."""
        self._offspring: Offspring | None = None
        try:
            self._start()
        except Crashed as crash:
            raise ModelError(f"the engine process {crash}: check the model with `edgescribe models verify`") from crash
        except Lost as loss:
            raise EngineError(f"the engine process {loss}: run `edgescribe doctor`") from loss

    @property
    def pid(self) -> int | None:
        """Of the process that is running or loading; None between two. Any thread may ask."""
        return self._offspring.pid if self._offspring else None

    @property
    def batch_size(self) -> int:
        """What the engine in it says; 1 while there is none."""
        return self._offspring.batch_size if self._offspring else 1

    def transcribe(self, utterance: Utterance) -> Transcript:
        """Return the words of `utterance` (at most 30 s).

        Raises:
            EngineError: inference failed; or the process was lost twice, or cannot be started. The engine stays usable.
        """
        this, reason = (utterance.id, len(utterance.pcm)), ""
        if this == self._given_up:  # as a draft, inside the pause; it has had its two attempts
            raise EngineError(f"the engine process was lost {ATTEMPTS} times over {utterance.id}")
        for _ in range(ATTEMPTS):
            try:
                return self._ready().transcribe(utterance, self._settings.deadline_s(utterance.duration_s))
            except Lost as loss:
                reason = self._lost(loss)
        self._given_up = this
        raise EngineError(f"the engine process was lost {ATTEMPTS} times over {utterance.id}, at last it {reason}")

    def transcribe_many(self, utterances: Sequence[Utterance]) -> Sequence[Transcript]:
        """Return the words of each of `utterances` (at most 30 s each), in their order, within the budget of them all.

        Raises:
            EngineError: inference failed; or the process was lost, or cannot be started. The engine stays usable, and
                each of them has its own two attempts.
        """
        deadline_s = self._settings.deadline_s(sum(utterance.duration_s for utterance in utterances))
        try:
            return self._ready().transcribe_many(utterances, deadline_s)
        except Lost as loss:
            raise EngineError(f"the engine process {self._lost(loss)}") from loss

    def close(self) -> None:
        """End the process; idempotent."""
        self._closed.set()
        if self._offspring:
            self._offspring.close()
            self._offspring = None

    def _lost(self, loss: Lost) -> str:
        reason = str(loss)
        self._offspring = None
        log.warning(f"the engine process {reason}")
        self._on_loss(reason)
        return reason

    def _ready(self) -> Offspring:
        """The process, started anew if it is gone.

        One that died of itself between two utterances is replaced without counting against the next of them.
        """
        if self._closed.is_set():
            raise EngineError("the engine is closed: create a new one")
        if self._offspring and not self._offspring.alive:
            log.warning("the engine process died while it had nothing to do")
            self._on_loss("died while idle")
            self._offspring.kill()
            self._offspring = None
        return self._offspring or self._restart()

    def _restart(self) -> Offspring:
        """Start a process after the pause that is due; a model that is gone meanwhile is an EngineError."""
        if self._failed_starts:
            self._closed.wait(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (self._failed_starts - 1)))
        try:
            return self._start()
        except EngineError:
            raise
        except AgentError as error:  # the model is missing or damaged now; the agent goes on, as it may come back
            raise EngineError(str(error)) from error

    def _start(self) -> Offspring:
        self._failed_starts += 1
        self._offspring = started = Offspring(self._find_model())
        try:
            started.load(self._settings)
        except (AgentError, Lost):
            self._offspring = None
            raise
        self._failed_starts = 0
        given_up = [name for name, done in started.confined.items() if done]
        log.debug(f"the engine runs in process {started.pid}, without {' and '.join(given_up) or 'any confinement'}")
        return started
