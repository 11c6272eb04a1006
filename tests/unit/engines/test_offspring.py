"""What keeps a process from starting; what a running one may suffer is in `tests/integration/engines`."""

import errno
import subprocess
from typing import Any

import pytest

from agent.config import ScriptedSettings
from agent.engines.offspring import Lost, Offspring
from agent.engines.process import ProcessEngine
from agent.errors import EngineError
from tests.starved import no_descriptors


def test_without_descriptors_no_process_starts_and_that_is_an_error_of_the_engine() -> None:
    """Whoever wants one tries again later: so it is with every process that is lost."""
    with no_descriptors():
        with pytest.raises(Lost, match=r"could not be started \(Too many open files\)"):
            Offspring(None)
        with pytest.raises(EngineError, match="the engine process could not be started"):
            ProcessEngine(ScriptedSettings(), lambda: None)


def test_without_memory_for_a_fork_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOMEM, as a small board has it; the socket that was there already is closed."""

    def popen(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(Lost, match=r"could not be started \(Cannot allocate memory\)"):
        Offspring(None)
