"""A system's child process, seen from the runner."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import agent
from agent.audio.frames import SAMPLE_RATE_HZ, Pcm16
from agent.bench.lifeline import tied
from agent.bench.systems import System
from agent.bench.wire_format import Answer, Loaded, PeerError, receive, send, unpack
from agent.models.languages import is_english_only

LOAD_LIMIT_S = 300.0
CLIP_LIMIT_S = 120.0
"""Plus 60 times the length of the clip: PyTorch with a beam of 5 on a small board takes that long."""
CLIP_LIMIT_RTF = 60.0
_STOP_LIMIT_S = 10.0
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
        self.system = system
        self._process = subprocess.Popen(
            tied([str(python or sys.executable), "-P", "-c", _BOOT, str(Path(agent.__file__).resolve().parents[1])]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(ours=system.adapter.ours),
            start_new_session=True,
        )
        self.loaded = self._load(model_path, limit_s)
        self._signal(signal.SIGSTOP)

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
        self._signal(signal.SIGCONT)
        request = {"op": "transcribe", "language": language, "samples": len(pcm)}
        if limit_s is None:
            limit_s = CLIP_LIMIT_S + CLIP_LIMIT_RTF * len(pcm) / SAMPLE_RATE_HZ
        try:
            return unpack(self._ask(request, limit_s, pcm), Answer)
        except KeyboardInterrupt:
            self._signal(signal.SIGKILL)  # nobody waits for the answer any more
            raise
        finally:
            self._signal(signal.SIGSTOP)

    def close(self) -> None:
        """End the process and whatever it has started; idempotent."""
        self._signal(signal.SIGCONT)
        if self._process.stdin:
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_LIMIT_S)
        self._signal(signal.SIGKILL)
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def _load(self, model_path: Path, limit_s: float) -> Loaded:
        system = self.system
        request = {
            "op": "load",
            "adapter": system.adapter,
            "model": system.model,
            "model_path": str(model_path.resolve()),
            "options": dict(system.options),
            "english_only": is_english_only(system.model),
        }
        try:
            return unpack(self._ask(request, limit_s), Loaded)
        except PeerError:
            self.close()
            raise
        except KeyboardInterrupt:
            self._signal(signal.SIGKILL)
            self.close()
            raise

    def _ask(self, request: dict[str, Any], limit_s: float, pcm: Pcm16 | None = None) -> dict[str, Any]:
        requests, answers = _streams(self._process)
        try:
            send(requests, request, pcm)
        except BrokenPipeError:
            return self._death()
        deadline = time.monotonic() + limit_s
        # A line comes whole or not at all, and never more than one: nothing can hide in the stream's own buffer.
        if not select.select([answers], [], [], max(0.0, deadline - time.monotonic()))[0]:
            self._signal(signal.SIGKILL)
            self._process.wait()
            raise PeerError(f"{self.system.name}: no answer within {limit_s:.0f} s")
        return receive(answers) or self._death()

    def _death(self) -> dict[str, Any]:
        status = self._process.wait(_STOP_LIMIT_S)
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        raise PeerError(f"{self.system.name}: its process {how}")

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return


def _streams(process: subprocess.Popen[bytes]) -> tuple[BinaryIO, BinaryIO]:
    if not (process.stdin and process.stdout):
        msg = "a system's process is started with pipes"
        raise RuntimeError(msg)
    return process.stdin, process.stdout  # type: ignore[return-value]


def _environment(*, ours: bool) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if key not in OURS_ENVIRONMENT}
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    return inherited | quiet | (OURS_ENVIRONMENT if ours else {})
