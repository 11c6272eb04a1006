"""Run a system in a child process, and keep as many of them as fit into memory."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import agent
from agent.audio.frames import SAMPLE_RATE_HZ, Pcm16
from agent.bench.child import Answer, PeerError, PeerMissing, System, tied
from agent.bench.records import Journal, SystemStart

LOAD_LIMIT_S = 300.0
CLIP_LIMIT_S = 120.0
"""Plus 60 times the length of the clip: PyTorch with a beam of 5 on a small board takes that long."""
CLIP_LIMIT_RTF = 60.0
_STOP_LIMIT_S = 10.0
_MOST_DEATHS = 3
"""After so many deaths of its process, a system gets no more clips."""
_BOOT = "import sys; sys.path.append(sys.argv[1]); from agent.bench.child import main; main()"
"""Also for an interpreter without this package: the folder comes *behind* the packages of that interpreter."""
OURS_ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "1"}
"""As `agent/__main__.py` sets them. Peers run without them, as for their users."""


class SystemProcess:
    """Runs `system` in a process that ends with the thread that made it.

    Between clips the process is stopped (SIGSTOP), so that no idle thread takes CPU time from other systems.

    Raises (constructor and `transcribe`):
        PeerError: it cannot be loaded, failed on the clip, died, or took too long; `alive` tells which.
    """

    def __init__(self, system: System, python: Path | None = None, limit_s: float = LOAD_LIMIT_S) -> None:
        self._name = system.name
        folder = str(Path(agent.__file__).resolve().parents[1])
        environment = {key: value for key, value in os.environ.items() if key not in OURS_ENVIRONMENT}
        environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        self._child, theirs = multiprocessing.Pipe()
        with theirs:
            number = theirs.fileno()
            self._process = subprocess.Popen(
                tied([str(python or sys.executable), "-P", "-c", _BOOT, folder, str(number)]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[number],
                env=environment | (OURS_ENVIRONMENT if system.adapter.ours else {}),
                start_new_session=True,
            )
        try:
            self.load_s: float = self._ask(system, limit_s)
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
        """Put one clip, shape (n,), through the system; an answer that takes longer than `limit_s` ends the process."""
        if limit_s is None:
            limit_s = CLIP_LIMIT_S + CLIP_LIMIT_RTF * len(pcm) / SAMPLE_RATE_HZ
        answer: Answer = self._ask((pcm.astype("<i2").tobytes(), language), limit_s)
        return answer

    def close(self) -> None:
        """End the process and everything that it has started; idempotent."""
        self._child.close()
        self._signal(signal.SIGCONT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_LIMIT_S)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _ask(self, request: object, limit_s: float) -> Any:
        self._signal(signal.SIGCONT)
        try:
            self._child.send(request)
            if not self._child.poll(max(0.0, limit_s)):
                self._signal(signal.SIGKILL)
                self._process.wait()
                raise PeerError(f"{self._name}: no answer within {limit_s:.0f} s")
            reply = self._child.recv()
        except (EOFError, ConnectionError):
            status = self._process.wait(_STOP_LIMIT_S)
            how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            raise PeerError(f"{self._name}: its process {how}") from None
        except KeyboardInterrupt:
            self._signal(signal.SIGKILL)  # do not wait for the answer
            raise
        finally:
            self._signal(signal.SIGSTOP)
        if isinstance(reply, PeerError):
            raise reply
        return reply

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


class ProcessPool:
    """The systems in memory; the least recently used one makes room for another.

    Args:
        journal: Gets a record for every system that is loaded.
        resident: The number of systems that may be in memory at once.
        peer_python: Interpreter for peers that this one does not have; None if there is no other.
    """

    def __init__(self, journal: Journal, resident: int, peer_python: Path | None = None) -> None:
        self._journal = journal
        self._resident = resident
        self._peer_python = peer_python
        self._running: dict[str, SystemProcess] = {}
        self._deaths: Counter[str] = Counter()
        self.given_up: set[str] = set()
        """Names of systems that do not load, or have died too often."""

    def transcribe(self, system: System, pcm: Pcm16, language: str) -> Answer:
        """Put one clip, shape (n,), through `system`, which is loaded if it is not in memory.

        Raises:
            PeerError: see `SystemProcess`.
        """
        name, process = system.name, self.load(system)
        try:
            return process.transcribe(pcm, language)
        except PeerError:
            if not process.alive:
                self._running.pop(name).close()
                self._deaths[name] += 1
                if self._deaths[name] >= _MOST_DEATHS:
                    self.given_up.add(name)
            raise

    def load(self, system: System) -> SystemProcess:
        """Load `system` if it is not in memory.

        Raises:
            PeerError: it cannot be loaded.
        """
        process = self._running.pop(system.name, None) or self._make_room_and_load(system)
        self._running[system.name] = process  # the last one is the most recently used
        return process

    def close(self) -> None:
        """End all processes; idempotent."""
        while self._running:
            self._running.popitem()[1].close()

    def _make_room_and_load(self, system: System) -> SystemProcess:
        while len(self._running) >= self._resident:
            self._running.pop(next(iter(self._running))).close()
        try:
            process = self._start(system)
        except PeerError:
            self.given_up.add(system.name)
            raise
        path = Path(system.path)
        files = path.rglob("*") if path.is_dir() else [path]
        self._journal.write(SystemStart(system.name, process.load_s, sum(file.stat().st_size for file in files)))
        return process

    def _start(self, system: System) -> SystemProcess:
        try:
            return SystemProcess(system)
        except PeerMissing:
            if self._peer_python is None:
                raise
            return SystemProcess(system, self._peer_python)
