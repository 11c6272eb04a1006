"""The child process: one system, loaded once, that answers clip by clip. Here is also what it says to its parent.

    parent → child   {"adapter": …, "model_path": …, "options": {…}, …}      first: what to load
                     {"samples": n, "language": "en"}  and 2n bytes of s16le  then: a clip
    child → parent   {"answer": {…}} · {"failure": "one line", "missing": false}

It may run under an interpreter without this package, see `process.py`: this module, `usage` and `peers` need numpy,
the peer, and nothing else.
"""

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import numpy as np

from agent.audio.frames import SAMPLE_RATE_HZ, Pcm16
from agent.bench import usage
from agent.errors import AgentError
from agent.install import extras

OUR_ENGINES = ("whisper_cpp", "faster_whisper", "scripted")
BUSY_OPTION = "busy"
"""Of every system: so many other processes compete for the cores while it works."""
_WARM_UP_S = 2
_RIVAL = (sys.executable, "-S", "-c", "print(flush=True)\nwhile True: pass")
"""Its CPU time is not counted; like all of the group it is stopped between clips."""
_TIE = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]): os._exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""1 is PR_SET_PDEATHSIG, 9 is SIGKILL. The request survives an exec; the second line notices a parent that has died."""


class PeerError(AgentError):
    """A system cannot be measured: a package is not installed, a model does not load."""


class PeerMissing(PeerError):  # noqa: N818 - a condition, not a mistake: the next interpreter may have it
    """Its package is not installed in this interpreter."""


@dataclass(frozen=True, slots=True)
class Setup:
    """The system that a child loads."""

    adapter: str
    model: str
    """Catalogue name or path, as the user wrote it."""
    model_path: str
    """ggml file or CTranslate2 folder; verified by the store where it came from there."""
    options: Mapping[str, str]
    english_only: bool = False

    def number(self, option: str, default: int) -> int:
        """Return an option that is a number.

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
    """What a system makes of a clip."""

    text: str
    rejected: int = 0
    """Utterances that the system's own evidence kept from being published."""
    doubtful: int = 0
    """Transcripts published with that verdict."""
    retries: int = 0
    after_sound_s: float = 0.0
    """Seconds from the last of the sound to the words, of a system that takes the sound bit by bit."""
    pieces: tuple[tuple[int, int, str], ...] = ()
    """Published utterances: first sample, sample behind the last, text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Heard):
    """What one clip gave and cost."""

    wall_s: float
    cpu_s: float
    """User and system time of the child with everything that it has started."""
    peak_rss_bytes: int
    """Highest resident set so far, helpers' added up."""
    pss_bytes: int
    """Proportional set just after the clip, helpers' added up."""


class Driver:
    """One system in its child. `prepare` is called outside the clock, `transcribe` within it."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.language: str | None = None
        """Of the next clips; None to detect it."""

    def prepare(self, language: str) -> None:
        """Get ready for clips in `language` (ISO 639-1), unless an option says another."""
        fixed = self.setup.options.get("language", language)
        self.language = None if fixed == "auto" else fixed

    def transcribe(self, pcm: Pcm16) -> Heard:
        """Transcribe a clip of any length, shape (n,)."""
        raise NotImplementedError

    def close(self) -> None:
        """Release everything."""


def create_driver(setup: Setup) -> Driver:
    """Load the system, model and all.

    Raises:
        PeerMissing: its package is not installed.
        PeerError: an option is malformed, or the model does not fit.
        AgentError: our engine does not start.
    """
    try:
        module = importlib.import_module(f"agent.bench.{'ours' if setup.adapter in OUR_ENGINES else 'peers'}")
        driver: Driver = module.create(setup)
    except ImportError as error:
        raise PeerMissing(
            f"{setup.adapter} is not installed ({error.name} is missing): {extras.missing('peers')}, "
            "or name an interpreter that has it with --peer-python"
        ) from None
    return driver


class _Child:
    def __init__(self, setup: Setup) -> None:
        started_s = time.monotonic()
        self._driver = create_driver(setup)
        self._driver.prepare("en")
        # Not silence: a peer with a filter of its own would then leave its engine cold.
        noise = np.random.default_rng(0).normal(0.0, 300.0, _WARM_UP_S * SAMPLE_RATE_HZ)
        self._driver.transcribe(noise.astype(np.int16))
        self._helpers = usage.descendants(os.getpid())
        self._rivals = [_rival() for _ in range(setup.number(BUSY_OPTION, 0))]
        self.load_s = time.monotonic() - started_s

    def transcribe(self, pcm: Pcm16, language: str) -> Answer:
        self._driver.prepare(language)
        cpu_s, wall_s = usage.own_cpu_s(self._helpers), time.perf_counter()
        heard = self._driver.transcribe(pcm)
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
        for rival in self._rivals:
            rival.kill()
            rival.communicate()
        self._driver.close()


def _rival() -> "subprocess.Popen[bytes]":
    """It is at work when this returns: stopped before it is tied to us, it would outlive us."""
    rival = subprocess.Popen(tied(_RIVAL), stdout=subprocess.PIPE)
    if rival.stdout:
        rival.stdout.readline()
    return rival


def tied(command: Sequence[str]) -> list[str]:
    """Return `command`, to be started by the calling thread: the kernel kills it as soon as that thread is gone.

    A process that is stopped between clips (SIGSTOP) would never see that its pipe is closed. It cannot miss this.
    """
    return [sys.executable, "-I", "-S", "-c", _TIE, str(os.getpid()), *command]


def send(stream: BinaryIO, message: Mapping[str, object], pcm: Pcm16 | None = None) -> None:
    """Write one message, and its samples."""
    samples = b"" if pcm is None else pcm.astype("<i2").tobytes()
    stream.write(json.dumps(message, ensure_ascii=False).encode() + b"\n" + samples)
    stream.flush()


def receive(stream: BinaryIO) -> dict[str, Any] | None:
    """Read one message; None at the end of the stream."""
    line = stream.readline()
    message: dict[str, Any] | None = json.loads(line) if line.endswith(b"\n") else None
    return message


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until they end."""
    child: _Child | None = None
    while request := receive(requests):
        try:
            if child is None:
                child = _Child(Setup(**request))
                send(answers, {"answer": {"load_s": child.load_s}})
            else:
                pcm = np.frombuffer(requests.read(2 * request["samples"]), dtype="<i2").astype(np.int16)
                send(answers, {"answer": asdict(child.transcribe(pcm, request["language"]))})
        except (AgentError, RuntimeError, ValueError, OSError, MemoryError) as error:
            # A peer's trouble with a clip is an answer, and the run goes on.
            kind = "" if isinstance(error, AgentError) else f"{type(error).__name__}: "
            failure = kind + " ".join(str(error).split())
            send(answers, {"failure": failure, "missing": isinstance(error, PeerMissing)})
    if child:
        child.close()


def main() -> None:
    """Serve on the standard streams; what libraries print goes to standard error."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(requests, answers)
