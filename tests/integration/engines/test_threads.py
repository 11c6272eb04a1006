"""How the threads of the real engines wait, and behind whom they stand."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.asr import Engine
from agent.asr.engine_process import ProcessEngine
from agent.asr.loading import ENGINE_NICE, load_engine
from agent.audio.frames import Utterance
from agent.config.settings import FasterWhisperSettings, ModelsSettings, Settings, WhisperCppSettings
from agent.worker import Worker
from tests.support.clips import clip

KINDS: dict[str, tuple[Any, str]] = {
    "whisper_cpp": (WhisperCppSettings, "tiny.en-q8_0"),
    "faster_whisper": (FasterWhisperSettings, "tiny.en-ct2"),
}


@pytest.mark.parametrize("library", ["_pywhispercpp", "ctranslate2"])
def test_idle_threads_of_the_engines_do_not_spin(library: str) -> None:
    """What the entry point sets reaches the OpenMP that each library brings along: it says so itself."""
    script = f"import agent.__main__, {library}"
    environment = {key: text for key, text in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**environment, "OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
    assert "GOMP_SPINCOUNT = '0'" in done.stderr


@pytest.mark.weights
@pytest.mark.parametrize("isolation", ["thread", "process"])
@pytest.mark.parametrize("kind", KINDS)
def test_all_that_computes_for_an_engine_stands_behind_capture(
    kind: str, isolation: str, pulled: Callable[[str], Path]
) -> None:
    """Pools of threads included, whether the library starts them with the model or with the first inference."""
    model_settings, model = KINDS[kind]
    store = (pulled(model) if kind == "faster_whisper" else pulled(model).parent).parent
    own = niceness(os.getpid())
    settings = Settings(
        models=ModelsSettings(dir=store), engine=model_settings(model=model, threads=2, isolation=isolation)
    )
    engine = load_engine(settings)
    try:
        seen = while_transcribing(engine)
    finally:
        engine.close()
    theirs = {thread: nice for thread, nice in seen.items() if thread not in own}
    assert len(theirs) >= 2, "two threads were asked for"
    main = own[os.getpid()]
    assert set(theirs.values()) == {main + ENGINE_NICE}
    assert niceness(os.getpid())[os.getpid()] == main, "nobody else is to get slower"


def while_transcribing(engine: Engine) -> dict[int, int]:
    """Niceness of all threads, of the engine process too, after an inference in a stage like the agent's."""
    pcm = clip("en_conf-waitforleader")
    utterance = Utterance("one", pcm, position=0, started_ns=0, speech_end=len(pcm), closed_at=len(pcm))
    seen: dict[int, int] = {}

    def work() -> None:
        assert "conference" in engine.transcribe([utterance])[0].text
        seen.update(niceness(os.getpid()))
        if isinstance(engine, ProcessEngine) and engine.pid:
            seen.update(niceness(engine.pid))

    worker = Worker("transcribe", work, lambda _worker: None, nice=ENGINE_NICE)
    worker.start()
    assert worker.join(60)
    assert worker.failure is None
    return seen


def niceness(pid: int) -> dict[int, int]:
    """By thread, as proc(5) has it: field 19 of stat, the 17th behind the name."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return {int(task.name): int((task / "stat").read_bytes().rpartition(b")")[2].split()[16]) for task in tasks}
