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
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import TypeAdapter, ValidationError

from agent.asr.own_time import OwnTime
from agent.asr.pipe import Packet, pack, receive, send
from agent.asr.transcript import Transcript
from agent.audio.frames import Utterance
from agent.errors import AgentError, EngineError, ModelError

if TYPE_CHECKING:
    from agent.config.settings import EngineIsolation, EngineSettings

log = logging.getLogger(__name__)

ATTEMPTS: Final = 2
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 10.0
"""Between attempts to start a process that does not even start. Short enough for the queue to hold what is said."""
LOAD_S: Final = 120.0
"""Of own time (`asr/own_time.py`), for the interpreter and the largest model, from an SD card."""
_REAP_S: Final = 10.0
_INHERITED: Final = (
    *("CT2_", "CUDA_", "GGML_", "GOMP_", "KMP_", "LC_"),
    *("MALLOC_", "MKL_", "NVIDIA_", "OMP_", "OPENBLAS_", "QEMU_"),
)
_INHERITED_EXACTLY: Final = ("HOME", "LANG", "LD_LIBRARY_PATH", "TZ")
_FAULTS: Final = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGTRAP})
"""Signals that end native code when a damaged file misleads it. Not SIGKILL: the next time memory may suffice."""
_TRANSCRIPTS: Final = TypeAdapter(list[Transcript])


class ProcessDied(Exception):  # noqa: N818 - reads as what happened; never leaves this package
    """The process died, hung, or answered nonsense. It is dead now."""


class ProcessCrashed(ProcessDied):
    """The process crashed while it loaded the model; it would crash again."""


class EngineProcess:
    """A process that has an engine in it once `load` has returned. Used by one thread at a time.

    Its limits are in its own time: a process that waits for a processor does not hang.

    Raises:
        ProcessDied: it could not be started for want of memory or descriptors.
    """

    def __init__(self, model: Path | None) -> None:
        try:
            self._channel, self._process = _start(model)
        except OSError as error:
            raise ProcessDied(f"could not be started ({error.strerror})") from error
        self.pid = self._process.pid
        self._model = model
        self.confined: Mapping[str, bool] = {}
        self.batch_size = 1
        """Utterances that are worth while at once, as the engine says."""

    def load(self, settings: "EngineSettings", limit_s: float = LOAD_S) -> None:
        """Let it confine itself and load its engine.

        Raises:
            EngineError: the engine refuses the settings, or has not enough memory.
            ModelError: it refuses the model; to try again would not help.
            ProcessCrashed: it did not survive the model.
            ProcessDied: it was killed while it loaded, as when memory runs out, or took more than `limit_s` seconds.
        """
        doing = f"loading {self._model or 'the engine'}"
        try:
            answer = self._ask([Packet(settings.model_dump(mode="json"))], limit_s, doing)
        except ProcessDied as loss:
            if -(self._process.returncode or 0) in _FAULTS:
                raise ProcessCrashed(str(loss)) from loss
            raise
        if "ready" not in answer.head:
            self.kill()
            kind = ModelError if answer.head.get("model") else EngineError
            raise kind(str(answer.head.get("refused", "the engine process said nothing sensible: reinstall")))
        self.confined = answer.head["ready"]
        self.batch_size = answer.head["batch_size"]

    @property
    def alive(self) -> bool:
        """False if it has died meanwhile."""
        return self._process.poll() is None

    def transcribe(self, utterances: Sequence[Utterance], deadline_s: float) -> list[Transcript]:
        """Return the words of each of `utterances`, in their order.

        Raises:
            EngineError: the engine failed on one of them or on their number, and is still usable.
            ProcessDied: no sensible answer came within `deadline_s` seconds of own time.
        """
        answer = self._ask(pack(utterances, deadline_s), deadline_s, "transcribing").head
        if "error" in answer:
            raise EngineError(str(answer["error"]))
        try:
            transcripts = _TRANSCRIPTS.validate_python(answer.get("transcripts"))
        except ValidationError as error:
            self.kill()
            raise ProcessDied(f"answered nonsense ({error.error_count()} wrong fields)") from error
        if [transcript.utterance_id for transcript in transcripts] != [utterance.id for utterance in utterances]:
            self.kill()
            raise ProcessDied("answered for another utterance")
        return transcripts

    def close(self) -> None:
        """Let it end in good order, for a moment; idempotent."""
        self._channel.close()
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once, whatever it does; idempotent."""
        self._channel.close()
        self._process.kill()
        # In the midst of a driver call (CUDA) a process may be slow to die even now. The agent has better things to do.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_REAP_S)

    def _ask(self, question: Sequence[Packet], limit_s: float, doing: str) -> Packet:
        own_time_s = OwnTime(lambda: self.pid)

        def expired() -> bool:
            return own_time_s() > limit_s

        try:
            for packet in question:
                send(self._channel, packet, expired)
            return receive(self._channel, expired)
        except TimeoutError as error:
            self.kill()
            raise ProcessDied(f"hung while {doing}: killed after {limit_s:.0f} s of its own time") from error
        except (EOFError, OSError) as error:
            raise ProcessDied(f"died while {doing} ({self._cause()})") from error
        except ValueError as error:
            self.kill()
            raise ProcessDied(f"answered nonsense while {doing} ({error})") from error

    def _cause(self) -> str:
        """How it ended; it has hung up, and so has but a moment left."""
        try:
            status = self._process.wait(_REAP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return "hung up"
        self.kill()
        if status >= 0:
            return f"exit status {status}"
        name = signal.Signals(-status).name
        return f"{name}, as when memory runs out" if -status == signal.SIGKILL else name


def _start(model: Path | None) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Return our end of its channel, and the process."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = subprocess.Popen(
                _command(theirs.fileno(), model),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # stderr is ours: what a crash leaves behind belongs into the journal
                env=inherited(os.environ),
                cwd="/",
                pass_fds=(theirs.fileno(),),
            )
        except OSError:
            ours.close()
            raise
    return ours, process


def _command(descriptor: int, model: Path | None) -> list[str]:
    """A fresh interpreter, as a fork of a process with threads inherits locks that no thread will ever release.

    -I: nothing from the environment or the working folder; faulthandler: a crash leaves a stack behind.
    """
    command = [sys.executable, "-I", "-X", "faulthandler", "-m", "agent.asr.engine_child", str(descriptor)]
    return [*command, str(model.absolute())] if model else command


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """What of `environment` an engine needs: how libraries thread, allocate and find CUDA. No secrets, no settings."""
    return {
        name: value for name, value in environment.items() if name in _INHERITED_EXACTLY or name.startswith(_INHERITED)
    }


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
        self._process: EngineProcess | None = None
        try:
            self._start()
        except ProcessCrashed as crash:
            raise ModelError(f"the engine process {crash}: check the model with `edgescribe models verify`") from crash
        except ProcessDied as loss:
            raise EngineError(f"the engine process {loss}: run `edgescribe doctor`") from loss

    @property
    def pid(self) -> int | None:
        """Of the process that is running or loading; None between two. Any thread may ask."""
        return self._process.pid if self._process else None

    @property
    def batch_size(self) -> int:
        """What the engine in it says; 1 while there is none."""
        return self._process.batch_size if self._process else 1

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
                return self._ready().transcribe([utterance], self._settings.deadline_s(utterance.duration_s))[0]
            except ProcessDied as loss:
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
            return self._ready().transcribe(utterances, deadline_s)
        except ProcessDied as loss:
            raise EngineError(f"the engine process {self._lost(loss)}") from loss

    def close(self) -> None:
        """End the process; idempotent."""
        self._closed.set()
        if self._process:
            self._process.close()
            self._process = None

    def _lost(self, loss: ProcessDied) -> str:
        reason = str(loss)
        self._process = None
        log.warning(f"the engine process {reason}")
        self._on_loss(reason)
        return reason

    def _ready(self) -> EngineProcess:
        """The process, started anew if it is gone.

        One that died of itself between two utterances is replaced without counting against the next of them.
        """
        if self._closed.is_set():
            raise EngineError("the engine is closed: create a new one")
        if self._process and not self._process.alive:
            log.warning("the engine process died while it had nothing to do")
            self._on_loss("died while idle")
            self._process.kill()
            self._process = None
        return self._process or self._restart()

    def _restart(self) -> EngineProcess:
        """Start a process after the pause that is due; a model that is gone meanwhile is an EngineError."""
        if self._failed_starts:
            self._closed.wait(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (self._failed_starts - 1)))
        try:
            return self._start()
        except EngineError:
            raise
        except AgentError as error:  # the model is missing or damaged now; the agent goes on, as it may come back
            raise EngineError(str(error)) from error

    def _start(self) -> EngineProcess:
        self._failed_starts += 1
        self._process = started = EngineProcess(self._find_model())
        try:
            started.load(self._settings)
        except (AgentError, ProcessDied):
            self._process = None
            raise
        self._failed_starts = 0
        given_up = [name for name, done in started.confined.items() if done]
        log.debug(f"the engine runs in process {started.pid}, without {' and '.join(given_up) or 'any confinement'}")
        return started
