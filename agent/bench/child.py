"""Load one system in a child process, and answer clip by clip.

    parent → child   a `System`: load it            then for each clip its samples (s16le) and its language
    child → parent   the seconds that loading took  then for each clip an `Answer`; a `PeerError` where that failed

The child may run under an interpreter without this package (see `process.py`). So this module, `usage` and `peers` need
only numpy and the peer.
"""

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from multiprocessing.connection import Connection

import numpy as np

from agent.audio.frames import SAMPLE_RATE_HZ, Pcm16
from agent.bench import usage
from agent.errors import AgentError
from agent.install import extras
from agent.models import ModelFormat

BUSY_OPTION = "busy"
"""Any system takes it: the number of other processes that compete for the cores while the system works."""
_WARM_UP_S = 2
_RIVAL = (sys.executable, "-S", "-c", "print(flush=True)\nwhile True: pass")
"""Its CPU time does not count. Like the rest of the process group it is stopped between clips."""
_TIE = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]): os._exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""1 is PR_SET_PDEATHSIG, 9 is SIGKILL. The request survives an exec. The second line notices a parent that has died."""


class PeerError(AgentError):
    """A system cannot be measured: it does not load, fails on a clip, dies, or takes too long."""


class PeerMissing(PeerError):  # noqa: N818 - a condition, not a mistake: the next interpreter may have it
    """The package of a peer is not installed in this interpreter."""


class Adapter(StrEnum):
    """The engine or library that a system uses, as users write it."""

    WHISPER_CPP = "whisper_cpp"
    FASTER_WHISPER = "faster_whisper"
    SCRIPTED = "scripted"
    """Recognises no words: the result is the cost of measuring itself."""
    STOCK_PYWHISPERCPP = "stock-pywhispercpp"
    STOCK_FASTER_WHISPER = "stock-faster-whisper"
    WYOMING_FASTER_WHISPER = "wyoming-faster-whisper"
    OPENAI_WHISPER = "openai-whisper"
    TRANSFORMERS = "transformers"

    @property
    def ours(self) -> bool:
        """True for the agent's own engines."""
        return self in (Adapter.WHISPER_CPP, Adapter.FASTER_WHISPER, Adapter.SCRIPTED)

    @property
    def model_format(self) -> ModelFormat:
        """The format of its models. The PyTorch peers get their weights from a CTranslate2 folder."""
        ggml = self in (Adapter.WHISPER_CPP, Adapter.STOCK_PYWHISPERCPP)
        return ModelFormat.GGML if ggml else ModelFormat.CTRANSLATE2


@dataclass(frozen=True, slots=True)
class System:
    """One thing to measure."""

    name: str
    """Identity in the results: the text of the user, with only the last part of a path."""
    adapter: Adapter
    model: str
    """Catalogue name or path; empty for `scripted`."""
    options: Mapping[str, str]
    path: str = os.devnull
    """Absolute path of the verified ggml file or CTranslate2 folder."""
    english_only: bool = False

    def number(self, option: str, default: int) -> int:
        """Return an option that is a whole number.

        Raises:
            PeerError: it is not.
        """
        value = self.options.get(option, str(default))
        if not value.isdecimal():
            raise PeerError(f"{self.adapter}: {option} must be a number, not {value!r}")
        return int(value)

    def flag(self, option: str) -> bool:
        """Return an option that is on or off; off by default."""
        return self.options.get(option, "false").lower() in ("1", "true", "yes", "on")


@dataclass(frozen=True, slots=True)
class Heard:
    """The result of a system for one clip."""

    text: str
    rejected: int = 0
    """Utterances with the verdict `rejected`, which are not published."""
    doubtful: int = 0
    """Published transcripts with the verdict `doubtful`."""
    retries: int = 0
    after_sound_s: float = 0.0
    """Seconds from the end of the sound to the words, for a system that takes the sound in chunks."""
    pieces: tuple[tuple[int, int, str], ...] = ()
    """Published utterances: first sample, sample behind the last, text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Heard):
    """The result and the cost of one clip."""

    wall_s: float
    cpu_s: float
    """User and system time of the child and its descendants."""
    peak_rss_bytes: int
    """Highest resident set so far, added up over the same processes."""
    pss_bytes: int
    """Proportional set just after the clip, added up over the same processes."""


Transcribe = Callable[[Pcm16, str], Heard]
"""Transcribes a clip, shape (n,), in a language (ISO 639-1, or `auto` to detect it)."""


class _Child:
    """A loaded system. `close` ends the processes that it has started."""

    def __init__(self, system: System) -> None:
        started_s = time.monotonic()
        self._system, self._language, self._stack = system, "", ExitStack()
        module = importlib.import_module(f"agent.bench.{'ours' if system.adapter.ours else 'peers'}")
        try:
            self._transcribe: Transcribe = self._stack.enter_context(module.load(system))
        except ImportError as error:
            raise PeerMissing(
                f"{system.adapter} is not installed ({error.name} is missing): {extras.missing('peers')}, "
                "or name an interpreter that has it with --peer-python"
            ) from None
        self._rivals: list[int] = []
        self._prepare("en")
        self._rivals += [self._start_rival() for _ in range(system.number(BUSY_OPTION, 0))]
        self.load_s = time.monotonic() - started_s

    def transcribe(self, samples: bytes, language: str) -> Answer:
        pcm = np.frombuffer(samples, dtype="<i2").astype(np.int16)
        self._prepare(language)
        cpu_s, wall_s = usage.own_cpu_s(self._helpers), time.perf_counter()
        heard = self._transcribe(pcm, self._language)
        wall_s = time.perf_counter() - wall_s
        cpu_s = usage.own_cpu_s(self._helpers) - cpu_s
        family = [os.getpid(), *self._helpers]
        return Answer(
            **asdict(heard),
            wall_s=wall_s,
            cpu_s=cpu_s,
            peak_rss_bytes=usage.peak_rss_bytes(family),
            pss_bytes=usage.pss_bytes(family),
        )

    def close(self) -> None:
        self._stack.close()

    def _prepare(self, language: str) -> None:
        """Transcribe noise before the first clip in a language: an engine may load its model again for it.

        The noise is not silence. A peer with a filter of its own would skip silence, and leave its engine cold.
        """
        language = self._system.options.get("language", language)
        if language != self._language:
            self._language = language
            noise = np.random.default_rng(0).normal(0.0, 300.0, _WARM_UP_S * SAMPLE_RATE_HZ)
            self._transcribe(noise.astype(np.int16), language)
            self._helpers = [pid for pid in usage.descendants(os.getpid()) if pid not in self._rivals]

    def _start_rival(self) -> int:
        """Start a rival, and wait until it runs: one that is stopped before it is tied would survive its parent."""
        rival = self._stack.enter_context(subprocess.Popen(tied(_RIVAL), stdout=subprocess.PIPE))
        self._stack.callback(rival.kill)
        if rival.stdout:
            rival.stdout.readline()
        return rival.pid


def tied(command: Sequence[str]) -> list[str]:
    """Return `command` in a form that the kernel kills when the thread that starts it is gone.

    A process that is stopped between clips (SIGSTOP) would never see that its connection is closed.
    """
    return [sys.executable, "-I", "-S", "-c", _TIE, str(os.getpid()), *command]


def serve(parent: Connection) -> None:
    """Answer requests until the connection ends."""
    child: _Child | None = None
    with suppress(EOFError, ConnectionError):
        while True:
            request = parent.recv()
            try:
                if child is None:
                    child = _Child(request)
                    parent.send(child.load_s)
                else:
                    parent.send(child.transcribe(*request))
            except PeerError as error:
                parent.send(error)
            except (AgentError, RuntimeError, ValueError, OSError, MemoryError) as error:
                # A failure on one clip is an answer, and the run goes on.
                kind = "" if isinstance(error, AgentError) else f"{type(error).__name__}: "
                parent.send(PeerError(kind + " ".join(str(error).split())))
    if child:
        child.close()


def main() -> None:
    """Serve on the socket whose number is the last argument."""
    number = int(sys.argv[-1])
    os.set_inheritable(number, False)
    serve(Connection(number))
