from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.audio import Utterance
from agent.config import ScriptedSettings
from agent.controls.golden import SENTENCE, listen_to_it
from agent.engines.offspring import Lost
from agent.engines.process import ProcessEngine
from agent.transcript import Transcript


class Sick:
    """What would be a process: it is lost over everything while `sick`, and hears the sentence when it is well."""

    sick = True
    pid, alive, batch_size, confined = 1, True, 1, dict[str, bool]()

    def __init__(self, _model: Path | None) -> None:
        """Start."""

    def load(self, _settings: ScriptedSettings) -> None:
        """There is nothing to load."""

    def transcribe(self, utterance: Utterance, _deadline_s: float) -> Transcript:
        """Die, or answer."""
        if self.sick:
            raise Lost("was killed by SIGKILL (out of memory)")
        return Transcript(utterance.id, SENTENCE, "en", (), "scripted", "scripted", 1.0, 0)


def listener(transcribe: Callable[[Utterance], Transcript]) -> Any:
    """A transcriber that has time."""
    return cast("Any", SimpleNamespace(probe=lambda utterance, _timeout_s: transcribe(utterance)))


def test_an_engine_that_is_well_again_hears_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What became of the last proof is not held against the next one, though the sound is the same."""
    monkeypatch.setattr("agent.engines.process.Offspring", Sick)
    transcriber = listener(ProcessEngine(ScriptedSettings(), lambda: None).transcribe)
    assert listen_to_it(transcriber).code == "failed"
    monkeypatch.setattr(Sick, "sick", False)
    assert [listen_to_it(transcriber).code for _ in range(2)] == ["ok", "ok"]
