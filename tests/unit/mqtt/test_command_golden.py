from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.asr.engine_process import ProcessDied, ProcessEngine
from agent.asr.transcript import Transcript
from agent.audio.frames import Utterance
from agent.config.settings import ScriptedSettings
from agent.mqtt.command_handlers import SENTENCE, listen_to_it


class Sick:
    """What would be a process: it is lost over everything while `sick`, and hears the sentence when it is well."""

    sick = True
    pid, alive, batch_size, confined = 1, True, 1, dict[str, bool]()

    def __init__(self, _model: Path | None) -> None:
        """Start."""

    def load(self, _settings: ScriptedSettings) -> None:
        """There is nothing to load."""

    def transcribe(self, utterances: Sequence[Utterance], _deadline_s: float) -> list[Transcript]:
        """Die, or answer."""
        if self.sick:
            raise ProcessDied("was killed by SIGKILL (out of memory)")
        return [Transcript(one.id, SENTENCE, "en", (), "scripted", "scripted", 1.0, 0) for one in utterances]


def listener(transcribe: Callable[[Utterance], Transcript]) -> Any:
    """A transcriber that has time."""
    return cast("Any", SimpleNamespace(probe=lambda utterance, _timeout_s: transcribe(utterance)))


def test_an_engine_that_is_well_again_hears_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What became of the last proof is not held against the next one, though the sound is the same."""
    monkeypatch.setattr("agent.asr.engine_process.EngineProcess", Sick)
    engine = ProcessEngine(ScriptedSettings(), lambda: None)
    transcriber = listener(lambda utterance: engine.transcribe([utterance])[0])
    assert listen_to_it(transcriber).code == "failed"
    monkeypatch.setattr(Sick, "sick", False)
    assert [listen_to_it(transcriber).code for _ in range(2)] == ["ok", "ok"]
