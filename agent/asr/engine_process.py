"""An engine in a process of its own: a crash costs a second attempt at one utterance, and no more.

utterance ─▶ process ─▶ transcript
                │ dies, hangs, sends a bad answer: kill, start again, load
                └─▶ new process ─▶ transcript
                        │ again
                        └─▶ EngineError: this utterance is given up, the next one is tried

several utterances at once ─▶ process ─▶ transcripts
                                  └─▶ EngineError at once: the caller tries each alone, as above
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import TypeAdapter

from agent.asr.own_time import OwnTime
from agent.asr.pipe import Expired, Packet, pack, receive, send
from agent.asr.transcript import Transcript
from agent.audio.frames import Utterance
from agent.errors import AgentError, EngineError, ModelError

if TYPE_CHECKING:
    from agent.config.settings import EngineIsolation, EngineSettings

log = logging.getLogger(__name__)

ATTEMPTS: Final = 2
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 10.0
"""Between attempts to start a process that fails to start. The queue can hold the speech of this time."""
LOAD_S: Final = 120.0
"""Of own time (`asr/own_time.py`), for the interpreter and the largest model, from an SD card."""
_REAP_S: Final = 10.0
_INHERITED: Final = (
    *("CT2_", "CUDA_", "GGML_", "GOMP_", "KMP_", "LC_"),
    *("MALLOC_", "MKL_", "NVIDIA_", "OMP_", "OPENBLAS_", "QEMU_"),
)
_INHERITED_EXACTLY: Final = ("HOME", "LANG", "LD_LIBRARY_PATH", "TZ")
_FAULTS: Final = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGTRAP})
"""Signals that end native code on a damaged file. Not SIGKILL: memory may be enough the next time."""
_TRANSCRIPTS: Final = TypeAdapter(list[Transcript])


class ProcessDied(Exception):  # noqa: N818 - an event; never leaves this package
    """The process died, hung, or sent a bad answer. It is dead now."""


class ProcessCrashed(ProcessDied):
    """The process crashed while it loaded the model; it would crash again."""


class EngineProcess:
    """A process with an engine in it, after `load`. Used by one thread at a time.

    Its limits are in its own time: a process that waits for a processor does not hang.

    Raises:
        ProcessDied: there is not enough memory, or no free descriptor, to start it.
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
        """Of the engine, see `agent.asr.Engine`."""

    def load(self, settings: "EngineSettings", limit_s: float = LOAD_S) -> None:
        """Wait until it has confined itself and loaded its engine.

        Raises:
            EngineError: the engine refuses the settings, or has not enough memory.
            ModelError: the engine refuses the model; another attempt would not help.
            ProcessCrashed: it crashed while it loaded the model.
            ProcessDied: it was killed while it loaded, or took more than `limit_s` seconds of own time.
        """
        try:
            with self._within(limit_s, f"loading {self._model or 'the engine'}") as expired:
                send(self._channel, Packet(settings.model_dump(mode="json")), expired)
                answer = receive(self._channel, expired).head
        except ProcessDied as loss:
            if -(self._process.returncode or 0) in _FAULTS:
                raise ProcessCrashed(str(loss)) from loss
            raise
        if "ready" not in answer:
            self.kill()
            kind = ModelError if answer.get("model") else EngineError
            raise kind(str(answer.get("refused", "the engine process sent a bad answer: reinstall")))
        self.confined = answer["ready"]
        self.batch_size = answer["batch_size"]

    @property
    def alive(self) -> bool:
        """False after its death."""
        return self._process.poll() is None

    def transcribe(self, utterances: Sequence[Utterance], deadline_s: float) -> list[Transcript]:
        """Return the words of each of `utterances`, in their order.

        Raises:
            EngineError: the engine failed on one of them or on their number, and is still usable.
            ProcessDied: no valid answer came within `deadline_s` seconds of own time.
        """
        with self._within(deadline_s, "transcribing") as expired:
            for packet in pack(utterances, deadline_s):
                send(self._channel, packet, expired)
            answer = receive(self._channel, expired).head
            if "error" in answer:
                raise EngineError(str(answer["error"]))
            transcripts = _TRANSCRIPTS.validate_python(answer.get("transcripts"))
            if [transcript.utterance_id for transcript in transcripts] != [utterance.id for utterance in utterances]:
                raise ValueError("for another utterance")
            return transcripts

    def close(self) -> None:
        """Let it end by itself, within a second; idempotent."""
        self._channel.close()
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill it; idempotent."""
        self._channel.close()
        self._process.kill()
        # Inside a driver call (CUDA) a process may be slow to die even now. Do not wait for it for ever.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_REAP_S)

    @contextmanager
    def _within(self, limit_s: float, doing: str) -> Iterator[Expired]:
        """Watch the packets inside: the process dies after a failure, or after `limit_s` seconds of own time."""
        own_time_s = OwnTime(lambda: self.pid)
        try:
            yield lambda: own_time_s() > limit_s
        except TimeoutError as error:
            self.kill()
            raise ProcessDied(f"hung while {doing}: killed after {limit_s:.0f} s of its own time") from error
        except (EOFError, OSError) as error:
            raise ProcessDied(f"died while {doing} ({self._cause()})") from error
        except ValueError as error:  # pydantic's ValidationError, too, with several lines
            self.kill()
            raise ProcessDied(f"sent a bad answer while {doing} ({str(error).splitlines()[0]})") from error

    def _cause(self) -> str:
        """Return how it ended; it has closed the socket, so it ends soon."""
        try:
            status = self._process.wait(_REAP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return "it closed the socket"
        self.kill()
        if status >= 0:
            return f"exit status {status}"
        name = signal.Signals(-status).name
        return f"{name}, as when memory runs out" if -status == signal.SIGKILL else name


def _start(model: Path | None) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Return the agent's end of the socket, and the process."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = subprocess.Popen(
                _command(theirs.fileno(), model),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # stderr is inherited: the report of a crash belongs into the journal
                env=_environment(),
                cwd="/",
                pass_fds=(theirs.fileno(),),
            )
        except OSError:
            ours.close()
            raise
    return ours, process


def _command(descriptor: int, model: Path | None) -> list[str]:
    """Return the command of a fresh interpreter: a fork would inherit locks that no thread releases.

    -I: no settings from the environment or the working folder; faulthandler: a crash leaves a stack trace.
    """
    command = [sys.executable, "-I", "-X", "faulthandler", "-m", "agent.asr.sandbox", str(descriptor)]
    return [*command, str(model.absolute())] if model else command


def _environment() -> dict[str, str]:
    """Return the variables that an engine needs: for threads, memory and CUDA. No secrets, no settings."""
    return {
        name: value for name, value in os.environ.items() if name in _INHERITED_EXACTLY or name.startswith(_INHERITED)
    }


def longest_inference_s(settings: "EngineIsolation", duration_s: float) -> float:
    """Return the longest own time, in seconds, that an engine may take for an utterance of `duration_s` seconds.

    With a process it includes restarts, pauses and the second attempt.
    """
    deadline_s = settings.deadline_s(duration_s)
    return ATTEMPTS * (deadline_s + LOAD_S + LONGEST_PAUSE_S) if settings.isolation == "process" else deadline_s


class ProcessEngine:
    """Runs the engine of `settings` in a child process; implements `agent.asr.Engine`.

    Args:
        settings: Engine, `budget_s` included.
        find_model: Returns the verified path of the model, None for an engine without; called at every start, because
            the file may have changed.
        on_loss: Called from the thread that transcribes, with the reason for the loss of a process. Must be quick, and
            raise no exception.

    Raises:
        AgentError: the errors of `find_model`.
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
        """Id and samples of the last utterance that was given up."""
        self._process: EngineProcess | None = None
        try:
            self._start()
        except ProcessCrashed as crash:
            raise ModelError(f"the engine process {crash}: check the model with `edgescribe models verify`") from crash
        except ProcessDied as loss:
            raise EngineError(f"the engine process {loss}: run `edgescribe doctor`") from loss

    @property
    def pid(self) -> int | None:
        """Of the process that runs or loads; None between two. Any thread may read."""
        return self._process.pid if self._process else None

    @property
    def batch_size(self) -> int:
        """Of the engine in the process; 1 without a process."""
        return self._process.batch_size if self._process else 1

    def transcribe(self, utterances: Sequence[Utterance]) -> list[Transcript]:
        """See `agent.asr.Engine`. Several have one attempt, within the budget of them all; one alone has two attempts.

        Raises:
            EngineError: also if the process was lost, or cannot be started. The engine stays usable.
        """
        ids, several = ", ".join(utterance.id for utterance in utterances), len(utterances) > 1
        deadline_s = self._settings.deadline_s(sum(utterance.duration_s for utterance in utterances))
        this = (ids, sum(len(utterance.pcm) for utterance in utterances))
        if this == self._given_up:  # speculatively, inside the pause
            raise EngineError(f"the engine process was lost {ATTEMPTS} times while it transcribed {ids}")
        for _ in range(ATTEMPTS):
            try:
                return self._running().transcribe(utterances, deadline_s)
            except ProcessDied as loss:
                reason = str(loss)
                self._lost(reason)
                if several:
                    raise EngineError(f"the engine process {reason}") from loss
        self._given_up = this
        raise EngineError(
            f"the engine process was lost {ATTEMPTS} times while it transcribed {ids}; the last time it {reason}"
        )

    def close(self) -> None:
        """End the process; idempotent."""
        self._closed.set()
        if self._process:
            self._process.close()
            self._process = None

    def _lost(self, reason: str) -> None:
        self._process = None
        log.warning(f"the engine process {reason}")
        self._on_loss(reason)

    def _running(self) -> EngineProcess:
        """Return the process; start one if it is gone, after the pause that is due.

        The death of a process between two utterances does not count as an attempt at the next one. A model that is
        missing or damaged now is an EngineError: the agent goes on, because the model may come back.
        """
        if self._closed.is_set():
            raise EngineError("the engine is closed: create a new one")
        if self._process and not self._process.alive:
            self._process.kill()
            self._lost("died while idle")
        if self._process:
            return self._process
        if self._failed_starts:
            self._closed.wait(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (self._failed_starts - 1)))
        try:
            return self._start()
        except AgentError as error:
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
