"""`edgescribe calibrate` by command: a process of its own, so that the microphone is never kept waiting.

thread `control` ──begin()──▶ thread `calibrate` ──▶ process `edgescribe calibrate --json` ──▶ outcome
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import psutil
from pydantic import TypeAdapter, ValidationError

from agent.models.calibration import Calibration
from agent.mqtt.commands import Later, Outcome, fault
from agent.worker import Worker

MINUTES: Final = 3.0
LIMIT_S: Final = 230.0
"""With what stands around the measuring; who asked is answered within four minutes."""
CLOSE_S: Final = 2.0
COMMAND: Final = (sys.executable, "-m", "agent", "calibrate", "--json", "--minutes", f"{MINUTES:g}")
_NICE: Final = 5
"""Below the agent; the verb itself goes 5 steps lower still, and then stands below the agent's engine."""
_OOM_SCORE_ADJ: Final = 1_000
"""Should memory run out, measuring ends, not listening (proc_pid_oom_score_adj(5))."""
_NOT_INHERITED: Final = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"})
_CALIBRATION: Final = TypeAdapter(Calibration)


class Calibrator:
    """One calibration at a time. `begin` is called from the thread `control`, `close` once from the main thread."""

    def __init__(self, command: Sequence[str] = COMMAND, limit_s: float = LIMIT_S) -> None:
        self._command = tuple(command)
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._closed = False
        self._process: subprocess.Popen[str] | None = None
        self._worker: Worker | None = None

    def begin(self, options: Sequence[str]) -> Outcome | Later:
        """Measure with the settings that `options` of the command line lead to; what came of it is told later."""
        if self._worker and self._worker.alive:
            return Outcome("a calibration is under way", "busy")

        def start(tell: Callable[[Outcome], None]) -> None:
            def failed(worker: Worker) -> None:
                if worker.failure:
                    tell(fault(worker.failure))

            self._worker = Worker("calibrate", lambda: tell(self._measure(options)), failed, nice=_NICE)
            self._worker.start()

        return Later(start)

    def close(self) -> None:
        """End what is under way, with all its processes; nothing is begun any more."""
        with self._lock:
            self._closed = True
            if self._process:
                _end(self._process)
        if self._worker:
            self._worker.join(CLOSE_S)

    def _measure(self, options: Sequence[str]) -> Outcome:
        try:
            process = self._start(options)
        except OSError as error:
            return Outcome(f"a process for measuring cannot be started ({error.strerror})", "failed")
        if process is None:
            return Outcome("the agent is stopping", "failed")
        try:
            printed, said = process.communicate(timeout=self._limit_s)
        except subprocess.TimeoutExpired:
            _end(process)
            printed, said = process.communicate()
            return Outcome(f"it took longer than {self._limit_s:g} s, and was ended", "failed")
        finally:
            with self._lock:
                self._process = None
        return _outcome(process.returncode, printed, said)

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
        with contextlib.suppress(OSError):  # it has ended already, or the sandbox says no
            Path(f"/proc/{self._process.pid}/oom_score_adj").write_text(str(_OOM_SCORE_ADJ), encoding="ascii")
        return self._process


def _end(process: "subprocess.Popen[str]") -> None:
    """Kill it and all that it has started: some of that is in sessions of its own, and stopped between two clips."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        parent.suspend()  # so that it starts nothing more
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
    return Outcome(
        f"{verdict}: {choice.candidate}; `auto` goes by it from the next reload or restart", result=_result(calibration)
    )


def _result(calibration: Calibration) -> dict[str, Any]:
    choice = calibration.choice
    return {
        **asdict(choice.candidate),
        "keeps_up": choice.keeps_up,
        "reasons": list(choice.reasons),
        "language": calibration.language,
        "others_cpu_pct": calibration.others_cpu_pct,
        "measurements": [
            {
                **asdict(one.candidate),
                "words": one.words,
                "errors": one.errors,
                "rtf_p95": round(one.rtf_p95, 3),
                "latency_p50_s": round(one.latency_p50_s, 3),
                "peak_mb": one.peak_mb,
            }
            for one in calibration.measurements
        ],
    }
