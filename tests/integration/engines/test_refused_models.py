"""Models that pass every check of ours, and that only the native loaders refuse, or do not survive."""

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.asr.engine_process import ProcessEngine
from agent.config.settings import FasterWhisperSettings, WhisperCppSettings
from agent.errors import ModelError
from agent.models.ct2 import check_ctranslate2
from agent.models.ggml import write_ggml
from agent.models.whisper import HyperParameters
from tests.model_files import USABLE, ctranslate2_bytes, small_weights, usable_weights
from tests.support.agent_process import AgentProcess, write_wav
from tests.support.clips import silence

Damage = Callable[[Path], None]


def refused(folder: Path) -> None:
    """CTranslate2 raises an exception."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_type": 77}))


def unreadable(folder: Path) -> None:
    """The tokenizer's library raises an exception."""
    document = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**document, "version": "7"}))


@pytest.fixture
def folder(tmp_path: Path, pulled: Callable[[str], Path]) -> Path:
    """A small model that CTranslate2 loads."""
    made = tmp_path / "small-ct2"
    made.mkdir()
    for name in ("tokenizer.json", "vocabulary.txt"):
        (made / name).write_bytes((pulled("tiny.en-ct2") / name).read_bytes())
    config = json.loads((pulled("tiny.en-ct2") / "config.json").read_text())
    (made / "config.json").write_text(json.dumps({**config, "alignment_heads": None}))
    (made / "model.bin").write_bytes(ctranslate2_bytes(usable_weights()))
    return made


def configure(folder: Path, tmp_path: Path) -> None:
    """Let the configuration name the model in `folder`."""
    text = f'engine.kind = "faster_whisper"\nengine.model = "{folder}"\n'
    (tmp_path / "config.toml").write_text(text, encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[Path], AgentProcess]]:
    """Starts agents that hear a quiet room with the model in a folder; they are killed at the end."""
    agents: list[AgentProcess] = []
    room = write_wav(tmp_path / "room.wav", silence(300.0))
    source = {"source__kind": "wav", "source__path": room, "source__pace": "realtime"}

    def start(folder: Path) -> AgentProcess:
        configure(folder, tmp_path)
        agents.append(AgentProcess(tmp_path, {**source, "mqtt__enabled": False, "stdout__enabled": True}))
        return agents[-1]

    yield start
    for agent in agents:
        agent.kill()


@pytest.mark.weights
@pytest.mark.parametrize("damage", [refused, unreadable])
def test_the_agent_ends_with_78_and_one_line(damage: Damage, folder: Path, run: Callable[[Path], AgentProcess]) -> None:
    """The service manager does not start it again (`RestartPreventExitStatus=78`); the line names the model."""
    damage(folder)
    check_ctranslate2(folder)
    agent = run(folder)
    assert agent.wait() == 78, agent.stderr
    (line,) = agent.stderr.splitlines()
    assert str(folder) in line


@pytest.mark.weights
def test_a_reload_leaves_the_old_engine_in_force(
    folder: Path, tmp_path: Path, run: Callable[[Path], AgentProcess]
) -> None:
    """A model that the loader refuses is refused while the agent runs, and nothing else happens."""
    other = tmp_path / "other-ct2"
    shutil.copytree(folder, other)
    refused(other)
    agent = run(folder)
    agent.await_log("listening to")
    configure(other, tmp_path)
    agent.stop(signal.SIGHUP)
    agent.await_log("not reloaded, what was in force stays so")
    assert f"{other} cannot be loaded" in agent.stderr
    assert agent.running
    agent.stop()
    assert agent.wait() == 0, agent.stderr
    assert "Traceback" not in agent.stderr


@pytest.mark.parametrize(
    "hyper",
    [replace(USABLE, n_text_head=3), replace(USABLE, n_audio_head=3), replace(USABLE, n_vocab=60_000)],
    ids=["abort", "abort too", "exception"],
)
def test_a_model_that_crashes_the_loader_is_one_error(
    hyper: HyperParameters, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As a file does that is damaged after it was checked; the native library's stack stays unseen."""
    path = tmp_path / "model.bin"
    write_ggml(small_weights(0, hyper), path)
    with pytest.raises(ModelError, match=r"model\.bin") as caught:
        ProcessEngine(WhisperCppSettings(), lambda: path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.weights
def test_a_small_model_is_loaded(folder: Path) -> None:
    """What the tests above damage is sound before."""
    check_ctranslate2(folder)
    ProcessEngine(FasterWhisperSettings(), lambda: folder).close()
