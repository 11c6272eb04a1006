"""A system's child process, seen from its parent; and as many of them as fit into memory."""

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import agent
from agent.audio.frames import SAMPLE_RATE_HZ, Pcm16
from agent.bench import usage
from agent.bench.child import Answer, PeerError, PeerMissing, Setup, receive, send, tied
from agent.bench.records import Journal, SystemStart
from agent.bench.systems import System
from agent.models.languages import is_english_only

LOAD_LIMIT_S = 300.0
CLIP_LIMIT_S = 120.0
"""Plus 60 times the length of the clip: PyTorch with a beam of 5 on a small board takes that long."""
CLIP_LIMIT_RTF = 60.0
_STOP_LIMIT_S = 10.0
_MOST_DEATHS = 3
"""A system whose process died this often is left out of the rest."""
_BOOT = "import sys; sys.path.append(sys.argv[1]); from agent.bench.child import main; main()"
"""Also for an interpreter without this package: its folder comes *behind* whatever that interpreter has itself."""
OURS_ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "1"}
"""As `agent/__main__.py` sets them. Peers run with what their users have: nothing."""


class SystemProcess:
    """Runs `system`; between clips it is stopped (SIGSTOP), so that no idle thread spins at the others' expense.

    It ends with the thread that made it, whatever ends that one.

    Raises (constructor and `transcribe`):
        PeerError: it cannot be loaded, failed on the clip, died, or took too long; `alive` tells which.
    """

    def __init__(
        self, system: System, model_path: Path, python: Path | None = None, limit_s: float = LOAD_LIMIT_S
    ) -> None:
        self._name = system.name
        self._process = subprocess.Popen(
            tied([str(python or sys.executable), "-P", "-c", _BOOT, str(Path(agent.__file__).resolve().parents[1])]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(ours=system.adapter.ours),
            start_new_session=True,
        )
        path, english_only = str(model_path.resolve()), is_english_only(system.model)
        setup = Setup(system.adapter, system.model, path, dict(system.options), english_only)
        try:
            self.load_s: float = self._ask(asdict(setup), limit_s)["load_s"]
            """Seconds until it had answered its first, untimed clip."""
        except (PeerError, KeyboardInterrupt):
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Process and process group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """False once the process has ended."""
        return self._process.poll() is None

    def transcribe(self, pcm: Pcm16, language: str, limit_s: float | None = None) -> Answer:
        """Put one clip through the system; an answer that takes longer than `limit_s` ends it."""
        if limit_s is None:
            limit_s = CLIP_LIMIT_S + CLIP_LIMIT_RTF * len(pcm) / SAMPLE_RATE_HZ
        return Answer(**self._ask({"samples": len(pcm), "language": language}, limit_s, pcm))

    def close(self) -> None:
        """End the process and everything that it has started; idempotent."""
        self._signal(signal.SIGCONT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.communicate(timeout=_STOP_LIMIT_S)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _ask(self, request: dict[str, Any], limit_s: float, pcm: Pcm16 | None = None) -> dict[str, Any]:
        requests: Any = self._process.stdin
        answers: Any = self._process.stdout
        self._signal(signal.SIGCONT)
        try:
            send(requests, request, pcm)
            # A line comes whole or not at all, and never more than one: nothing can hide in the stream's own buffer.
            if not select.select([answers], [], [], max(0.0, limit_s))[0]:
                self._signal(signal.SIGKILL)
                self._process.wait()
                raise PeerError(f"{self._name}: no answer within {limit_s:.0f} s")
            if (reply := receive(answers)) is None:
                raise self._death()
        except BrokenPipeError:
            raise self._death() from None
        except KeyboardInterrupt:
            self._signal(signal.SIGKILL)  # the answer is not awaited any more
            raise
        finally:
            self._signal(signal.SIGSTOP)
        if "answer" not in reply:
            raise (PeerMissing if reply["missing"] else PeerError)(reply["failure"])
        answer: dict[str, Any] = reply["answer"]
        return answer

    def _death(self) -> PeerError:
        status = self._process.wait(_STOP_LIMIT_S)
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return PeerError(f"{self._name}: its process {how}")

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


class ProcessPool:
    """The systems that are in memory; the one that was used longest ago goes first.

    Args:
        journal: Is told of every system that is loaded.
        resident: How many systems may be in memory at once.
        peer_python: Interpreter for peers that ours does not have; None if there is no other.
    """

    def __init__(self, journal: Journal, resident: int, peer_python: Path | None) -> None:
        self._journal = journal
        self._resident = resident
        self._peer_python = peer_python
        self._running: dict[str, SystemProcess] = {}
        self._deaths: Counter[str] = Counter()
        self.given_up: set[str] = set()
        """Names of systems that do not load, or have died too often."""

    def transcribe(self, system: System, model_path: Path, pcm: Pcm16, language: str) -> Answer:
        """Put one clip through `system`, which is loaded if need be.

        Raises:
            PeerError: see `SystemProcess`.
        """
        name, process = system.name, self.load(system, model_path)
        try:
            return process.transcribe(pcm, language)
        except PeerError:
            if not process.alive:
                self._running.pop(name).close()
                self._deaths[name] += 1
                if self._deaths[name] >= _MOST_DEATHS:
                    self.given_up.add(name)
            raise

    def load(self, system: System, model_path: Path) -> SystemProcess:
        """Load `system` if need be.

        Raises:
            PeerError: it cannot be loaded.
        """
        process = self._running.pop(system.name, None) or self._start(system, model_path)
        self._running[system.name] = process  # last in the row: used most recently
        return process

    def close(self) -> None:
        """End all processes; idempotent."""
        while self._running:
            self._running.popitem()[1].close()

    def _start(self, system: System, model_path: Path) -> SystemProcess:
        while len(self._running) >= self._resident:
            self._running.pop(next(iter(self._running))).close()
        try:
            process = self._load(system, model_path)
        except PeerError:
            self.given_up.add(system.name)
            raise
        self._journal.write(SystemStart(system.name, process.load_s, usage.file_bytes(model_path)))
        return process

    def _load(self, system: System, model_path: Path) -> SystemProcess:
        try:
            return SystemProcess(system, model_path)
        except PeerMissing:
            if self._peer_python is None or system.adapter.ours:
                raise
            return SystemProcess(system, model_path, self._peer_python)


def _environment(*, ours: bool) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if key not in OURS_ENVIRONMENT}
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    return inherited | quiet | (OURS_ENVIRONMENT if ours else {})
