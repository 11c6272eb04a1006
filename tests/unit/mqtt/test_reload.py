import threading
from pathlib import Path
from typing import Any, cast

import pytest

from agent.asr import Engine
from agent.asr.loading import load_engine
from agent.asr.scripted import Scripted
from agent.asr.transcriber import Transcriber
from agent.channel import Overflow
from agent.config.commanded import Applied
from agent.config.settings import ScriptedSettings, Settings, WhisperCppSettings
from agent.errors import ModelError
from tests.support.controlled import Switch, controlled, execute

LIMIT_S = 30.0


@pytest.fixture(autouse=True)
def _no_log_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """The level of the log belongs to the whole process."""
    monkeypatch.setattr("agent.mqtt.remote.set_level", lambda _level: None)


class Loads:
    """Loads engines, the first one only when it is let go; counts how many are being loaded at once."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.go = threading.Event()
        self.settings: list[Settings] = []

    def __call__(self, settings: Settings) -> Engine:
        """Load one."""
        self.settings.append(settings)
        self.began.release()
        assert self.go.wait(LIMIT_S)
        return Scripted(ScriptedSettings())


def test_a_reload_and_a_command_change_the_engine_one_after_the_other(tmp_path: Path) -> None:
    """The command waits until the reload is in force and builds on it: neither change is lost. Mute does not wait."""
    loads, microphone = Loads(), Switch()
    transcriber = Transcriber(Scripted(ScriptedSettings()), cast("Any", None), 8, Overflow.DROP_OLDEST)
    transcribing = threading.Thread(target=transcriber.run)
    transcribing.start()
    before = Settings(engine=WhisperCppSettings(threads=1))
    device = controlled(before, Applied(tmp_path), source=microphone, transcriber=transcriber, load_engine=loads)

    def wanted() -> Settings:
        return Settings(engine=WhisperCppSettings(threads=2))

    reloading = threading.Thread(target=device.reload, args=(wanted,))
    commanding = threading.Thread(target=lambda: execute(device, "initial_prompt", value="Glarus"))
    try:
        reloading.start()
        assert loads.began.acquire(timeout=LIMIT_S)
        commanding.start()
        assert not loads.began.acquire(timeout=0.5)
        execute(device, "mute")
        assert not microphone.listening
        loads.go.set()
        reloading.join(LIMIT_S)
        commanding.join(LIMIT_S)
    finally:
        loads.go.set()
        transcriber.close()
        transcribing.join(LIMIT_S)
    assert device.settings.engine == WhisperCppSettings(threads=2, initial_prompt="Glarus")
    assert loads.settings[-1].engine == device.settings.engine
    assert len(loads.settings) == 2


def test_a_reload_with_a_language_that_the_model_does_not_know_leaves_all_as_it_was(tmp_path: Path) -> None:
    """And says so, in the words of `check`."""
    transcriber = Transcriber(Scripted(ScriptedSettings()), cast("Any", None), 8, Overflow.DROP_OLDEST)
    before = Settings(engine=WhisperCppSettings(), state_dir=tmp_path)
    wanted = before.model_copy(update={"engine": WhisperCppSettings(language="de")})
    device = controlled(before, Applied(tmp_path), transcriber=transcriber, load_engine=load_engine)
    with pytest.raises(ModelError, match=r'engine\.model = "tiny.en-q8_0" knows English only'):
        device.reload(lambda: wanted)
    assert device.settings == before
