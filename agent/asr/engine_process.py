"""One engine process, from its start to its end, as its parent sees it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import TypeAdapter, ValidationError

from agent.asr.own_time import OwnTime
from agent.asr.pipe import Packet, pack_batch, pack_utterance, receive, send
from agent.audio.frames import Utterance
from agent.errors import EngineError, ModelError
from agent.messages.transcript import Transcript

if TYPE_CHECKING:
    from agent.config.settings import EngineSettings

LOAD_S: Final = 120.0
"""Of own time (`asr/own_time.py`), for the interpreter and the largest model, from an SD card."""
_REAP_S: Final = 10.0
_INHERITED: Final = (
    "CT2_",
    "CUDA_",
    "GGML_",
    "GOMP_",
    "KMP_",
    "LC_",
    "MALLOC_",
    "MKL_",
    "NVIDIA_",
    "OMP_",
    "OPENBLAS_",
    "QEMU_",
)
_INHERITED_EXACTLY: Final = ("HOME", "LANG", "LD_LIBRARY_PATH", "TZ")
_FAULTS: Final = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGTRAP})
"""Signals that end native code when a damaged file misleads it. Not SIGKILL: the next time memory may suffice."""
_TRANSCRIPTS: Final = TypeAdapter(list[Transcript])


class Lost(Exception):  # noqa: N818 - reads as what happened; never leaves this package
    """The process died, hung, or answered nonsense. It is dead now."""


class Crashed(Lost):
    """The process crashed while it loaded the model; it would crash again."""


class Offspring:
    """A process that has an engine in it once `load` has returned. Used by one thread at a time.

    Its limits are in its own time: a process that waits for a processor does not hang.

    Raises:
        Lost: it could not be started for want of memory or descriptors.
    """

    def __init__(self, model: Path | None) -> None:
        try:
            self._channel, self._process = _start(model)
        except OSError as error:
            raise Lost(f"could not be started ({error.strerror})") from error
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
            Crashed: it did not survive the model.
            Lost: it was killed while it loaded, as when memory runs out, or took more than `limit_s` seconds.
        """
        question = [Packet(settings.model_dump(mode="json"))]
        try:
            answer = self._ask(question, limit_s, f"loading {self._model or 'the engine'}")
        except Lost as loss:
            if -(self._process.returncode or 0) in _FAULTS:
                raise Crashed(str(loss)) from loss
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

    def transcribe(self, utterance: Utterance, deadline_s: float) -> Transcript:
        """Return the words of `utterance`.

        Raises:
            EngineError: the engine failed on it, and is still usable.
            Lost: no sensible answer came within `deadline_s` seconds of own time.
        """
        return self._words([pack_utterance(utterance, deadline_s)], [utterance], deadline_s)[0]

    def transcribe_many(self, utterances: Sequence[Utterance], deadline_s: float) -> list[Transcript]:
        """Return the words of each of `utterances`, in their order.

        Raises:
            EngineError: the engine failed on one of them or on their number, and is still usable.
            Lost: no sensible answer came within `deadline_s` seconds of own time.
        """
        return self._words(pack_batch(utterances, deadline_s), utterances, deadline_s)

    def _words(self, question: Sequence[Packet], about: Sequence[Utterance], deadline_s: float) -> list[Transcript]:
        answer = self._ask(question, deadline_s, "transcribing").head
        if "error" in answer:
            raise EngineError(str(answer["error"]))
        try:
            transcripts = _TRANSCRIPTS.validate_python(answer.get("transcripts"))
        except ValidationError as error:
            self.kill()
            raise Lost(f"answered nonsense ({error.error_count()} wrong fields)") from error
        if [transcript.utterance_id for transcript in transcripts] != [utterance.id for utterance in about]:
            self.kill()
            raise Lost("answered for another utterance")
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
            raise Lost(f"hung while {doing}: killed after {limit_s:.0f} s of its own time") from error
        except (EOFError, OSError) as error:
            raise Lost(f"died while {doing} ({self._cause()})") from error
        except ValueError as error:
            self.kill()
            raise Lost(f"answered nonsense while {doing} ({error})") from error

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
    """Our end of its channel, and the process."""
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


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """What of `environment` an engine needs: how libraries thread, allocate and find CUDA. No secrets, no settings."""
    return {
        name: value for name, value in environment.items() if name in _INHERITED_EXACTLY or name.startswith(_INHERITED)
    }


def _command(descriptor: int, model: Path | None) -> list[str]:
    """A fresh interpreter, as a fork of a process with threads inherits locks that nobody will ever release.

    -I: nothing from the environment or the working folder; faulthandler: a crash leaves a stack behind.
    """
    command = [sys.executable, "-I", "-X", "faulthandler", "-m", "agent.asr.engine_child", str(descriptor)]
    return [*command, str(model.absolute())] if model else command
