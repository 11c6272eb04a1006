"""What keeps a process from starting; what a running one may suffer is in `tests/integration/engines`."""

import errno
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.asr import engine_process
from agent.asr.engine_process import EngineProcess, ProcessDied, ProcessEngine
from agent.config.settings import ScriptedSettings
from agent.errors import AgentError, EngineError, ModelError
from tests.starved import no_descriptors


def test_without_descriptors_no_process_starts_and_that_is_an_error_of_the_engine() -> None:
    """Whoever wants one tries again later: so it is with every process that is lost."""
    with no_descriptors():
        with pytest.raises(ProcessDied, match=r"could not be started \(Too many open files\)"):
            EngineProcess(None)
        with pytest.raises(EngineError, match="the engine process could not be started"):
            ProcessEngine(ScriptedSettings(), lambda: None)


def test_without_memory_for_a_fork_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOMEM, as a small board has it; the socket that was there already is closed."""

    def popen(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(ProcessDied, match=r"could not be started \(Cannot allocate memory\)"):
        EngineProcess(None)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (signal.SIGSEGV, ModelError),
        (signal.SIGABRT, ModelError),
        (signal.SIGBUS, ModelError),
        (signal.SIGFPE, ModelError),
        (signal.SIGKILL, EngineError),
        (signal.SIGTERM, EngineError),
    ],
)
def test_a_process_that_dies_of_its_model_is_told_from_one_that_is_killed(
    number: signal.Signals, kind: type[AgentError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that crashes the loader ends the service for good; out of memory (SIGKILL), it is worth another try."""
    code = f"import os, socket, sys; socket.socket(fileno=int(sys.argv[1])).recv(1); os.kill(os.getpid(), {number})"
    monkeypatch.setattr(
        engine_process, "_command", lambda descriptor, _model: [sys.executable, "-S", "-c", code, str(descriptor)]
    )
    with pytest.raises(kind, match=rf"/models/mine\.bin.*{number.name}"):
        ProcessEngine(ScriptedSettings(), lambda: Path("/models/mine.bin"))
