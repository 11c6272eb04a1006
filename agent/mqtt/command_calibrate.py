"""Runs `edgescribe calibrate` by command, in a process of its own: the microphone does not wait for it."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import psutil
from pydantic import TypeAdapter, ValidationError

from agent.models.calibration import Calibration
from agent.mqtt.commands import Outcome
from agent.worker import lower_priority

MINUTES: Final = 3.0
LIMIT_S: Final = 230.0
"""For the whole process; the reply comes within four minutes."""
COMMAND: Final = (sys.executable, "-m", "agent", "calibrate", "--json", "--minutes", f"{MINUTES:g}")
_NICE: Final = 5
"""Below the agent; the verb itself goes 5 steps lower still, and then stands below the agent's engine."""
_OOM_SCORE_ADJ: Final = 1_000
"""If memory runs out, the kernel ends the measuring, not the listening (proc_pid_oom_score_adj(5))."""
_NOT_INHERITED: Final = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"})
_CALIBRATION: Final = TypeAdapter(Calibration)


class Calibrator:
    """Measures once at a time. `measure` is called from the thread `calibrate`, `close` once from the main thread."""

    def __init__(self, command: Sequence[str] = COMMAND, limit_s: float = LIMIT_S) -> None:
        self._command = command
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._closed = False
        self._process: subprocess.Popen[str] | None = None

    def measure(self, options: Sequence[str]) -> Outcome:
        """Measure with the settings that the command line `options` lead to. Lowers the priority of its thread."""
        lower_priority(_NICE)
        try:
            process = self._start(options)
        except OSError as error:
            return Outcome(f"a process for measuring cannot be started ({error.strerror})", "failed")
        if process is None:
            return Outcome("the agent is stopping", "failed")
        try:
            printed, said = process.communicate(timeout=self._limit_s)
        except subprocess.TimeoutExpired:
            _kill(process)
            process.communicate()
            return Outcome(f"it took longer than {self._limit_s:g} s, and was ended", "failed")
        finally:
            with self._lock:
                self._process = None
        return _outcome(process.returncode, printed, said)

    def close(self) -> None:
        """Kill the running process with all its children, and start no more."""
        with self._lock:
            self._closed = True
            if self._process:
                _kill(self._process)

    def _start(self, options: Sequence[str]) -> "subprocess.Popen[str] | None":
        with self._lock:
            if self._closed:
                return None
            self._process = subprocess.Popen(
                (*self._command, *options),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                env={name: text for name, text in os.environ.items() if name not in _NOT_INHERITED},
                # Ctrl-C in a terminal is for the agent. Not a session: niceness may count within one only (autogroup).
                process_group=0,
            )
        with contextlib.suppress(OSError):  # it has ended already, or the sandbox forbids it
            Path(f"/proc/{self._process.pid}/oom_score_adj").write_text(str(_OOM_SCORE_ADJ), encoding="ascii")
        return self._process


def _kill(process: "subprocess.Popen[str]") -> None:
    """Kill `process` and all its descendants: some have sessions of their own, and are stopped between two clips."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        parent.suspend()  # it must not start another child meanwhile
        for child in (*parent.children(recursive=True), parent):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


def _outcome(status: int, printed: str, said: str) -> Outcome:
    if status < 0:
        return Outcome(f"the measuring was ended by {signal.Signals(-status).name}", "failed")
    if status > 0:
        lines = said.strip().splitlines() or [f"the measuring failed with status {status}"]
        return Outcome(lines[-1].removeprefix("edgescribe: "), "failed")
    try:
        calibration = _CALIBRATION.validate_json(printed)
    except ValidationError:
        return Outcome("what was measured cannot be read", "failed")
    choice = calibration.choice
    verdict = "chosen" if choice.keeps_up else "chosen for want of a better one"
    msg = f"{verdict}: {choice.candidate}; `auto` goes by it from the next reload or restart"
    return Outcome(msg, result=_result(calibration))


def _result(calibration: Calibration) -> dict[str, Any]:
    choice = calibration.choice
    measurements = [
        {
            **asdict(one.candidate),
            "words": one.words,
            "errors": one.errors,
            "rtf_p95": round(one.rtf_p95, 3),
            "latency_p50_s": round(one.latency_p50_s, 3),
            "peak_mb": one.peak_mb,
        }
        for one in calibration.measurements
    ]
    return {
        **asdict(choice.candidate),
        "keeps_up": choice.keeps_up,
        "reasons": list(choice.reasons),
        "language": calibration.language,
        "others_cpu_pct": calibration.others_cpu_pct,
        "measurements": measurements,
    }
