"""An engine in a process of its own, and what may happen to it: real processes, real signals."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from agent.asr.engine_process import EngineProcess, ProcessEngine
from agent.asr.transcriber import Transcriber
from agent.asr.transcript import Transcript
from agent.audio.frames import Utterance
from agent.channel import Overflow
from agent.config.settings import EngineSettings, FasterWhisperSettings, ScriptedSettings, WhisperCppSettings
from agent.errors import EngineError, ModelError
from agent.segmenter import Ended
from tests.support.clips import clip

SLOW_S = 0.4
DEADLY = [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGILL, signal.SIGBUS]

Start = Callable[..., ProcessEngine]


@pytest.fixture
def losses() -> list[str]:
    """Why processes were lost."""
    return []


@pytest.fixture
def start(losses: list[str]) -> Iterator[Start]:
    """Starts engines, closed afterwards; without settings, one that takes 0.4 s to answer from a list."""
    engines: list[ProcessEngine] = []

    def start_one(
        settings: EngineSettings | None = None, find_model: Callable[[], Path | None] = lambda: None, **options: Any
    ) -> ProcessEngine:
        chosen = settings or ScriptedSettings(**{"delay_s": SLOW_S, **options})
        engines.append(ProcessEngine(chosen, find_model, losses.append))
        return engines[-1]

    yield start_one
    for engine in engines:
        engine.close()


def utterance(name: str = "01ISOLATED", seconds: float = 0.1) -> Utterance:
    """Silence, for an engine that does not listen."""
    pcm = np.zeros(round(seconds * 16_000), np.int16)
    return Utterance(name, pcm, 0, 0, speech_end=len(pcm), closed_at=len(pcm))


def signal_soon(engine: ProcessEngine, number: signal.Signals, after_s: float = SLOW_S / 2) -> threading.Timer:
    """Send a signal to the engine's process in a moment."""
    assert engine.pid is not None
    timer = threading.Timer(after_s, os.kill, (engine.pid, number))
    timer.start()
    return timer


def files_open() -> int:
    """How many descriptors this process holds."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("number", DEADLY, ids=lambda number: number.name)
def test_what_kills_the_engine_costs_a_second_attempt(number: signal.Signals, start: Start, losses: list[str]) -> None:
    """The utterance that was under way gets its words from the next process."""
    engine = start()
    first = engine.pid
    signal_soon(engine, number)
    assert engine.transcribe([utterance()])[0].text == "turn on the light"
    assert engine.pid != first
    assert losses == [f"died while transcribing ({number.name}{', as when memory runs out' * (number == 9)})"]


def test_an_inference_that_hangs_is_killed_within_its_budget(start: Start, losses: list[str]) -> None:
    """A process that no longer answers, stopped or in an endless loop, is not waited for."""
    engine = start(budget_s=1.0)
    first = engine.pid
    signal_soon(engine, signal.SIGSTOP, 0.1)
    assert engine.transcribe([utterance()])[0].text == "turn on the light"
    assert losses == ["hung while transcribing: killed after 1 s of its own time"]
    assert first is not None
    assert not psutil.pid_exists(first)


def test_an_engine_that_waits_for_a_processor_is_waited_for(
    start: Start, losses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its budget is over by the wall clock, and none of that time was its own."""
    engine = start(budget_s=0.1, delay_s=3.0)
    monkeypatch.setattr("agent.asr.engine_process.OwnTime", lambda _processes: lambda: 0.0)
    assert engine.transcribe([utterance()])[0].text == "turn on the light"
    assert losses == []


def test_a_process_that_loads_can_be_told_already(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor has to see that it waits for a processor, before it has answered for the first time."""
    engine = start()
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    seen: list[int | None] = []
    load = EngineProcess.load

    def look(offspring: EngineProcess, settings: EngineSettings) -> None:
        seen.extend([offspring.pid, engine.pid])
        load(offspring, settings)

    monkeypatch.setattr(EngineProcess, "load", look)
    engine.transcribe([utterance()])[0]
    assert seen == [engine.pid] * 2


def test_a_long_utterance_has_a_larger_budget(start: Start) -> None:
    """Four times its length on top: what is slow because there is much of it is not killed."""
    engine = start(budget_s=0.1, delay_s=1.0)
    assert engine.transcribe([utterance(seconds=2.0)])[0].text == "turn on the light"


def test_what_fails_twice_is_given_up_and_the_next_is_tried(start: Start, losses: list[str]) -> None:
    """An utterance that the engine cannot survive does not hold up those behind it."""
    engine = start(budget_s=0.5, delay_s=2.0)
    with pytest.raises(EngineError, match=r"while it transcribed 01POISON; the last time it hung while transcribing"):
        engine.transcribe([utterance("01POISON")])[0]
    assert len(losses) == 2
    with pytest.raises(EngineError, match="lost 2 times while it transcribed 01POISON"):
        engine.transcribe([utterance("01POISON")])[0]  # as a draft and then as an utterance: the same samples
    assert len(losses) == 2
    assert engine.transcribe([utterance(seconds=2.0)])[0].text == "turn on the light"


def test_a_process_that_died_between_two_utterances_costs_neither_an_attempt(start: Start, losses: list[str]) -> None:
    """The utterance that finds it dead still has its own two attempts."""
    engine = start()
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    # Dead to who waits for it: it is a zombie as soon as its first thread is, while others of them still die.
    os.waitid(os.P_PID, engine.pid, os.WEXITED | os.WNOWAIT)
    assert engine.transcribe([utterance()])[0].text == "turn on the light"
    assert losses == ["died while idle"]


def test_a_model_that_is_gone_at_the_restart_is_an_error_and_may_come_back(start: Start) -> None:
    """The agent lives through an exchange of its model: each utterance says what is wrong, until it is there again."""
    found: list[Path | None] = [None]

    def find() -> Path | None:
        if not found:
            raise ModelError("tiny.en-q8_0 is not on this device")
        return found[0]

    engine = start(find_model=find)
    found.clear()
    signal_soon(engine, signal.SIGKILL, 0.1)
    with pytest.raises(EngineError, match="is not on this device"):
        engine.transcribe([utterance()])[0]
    found.append(None)
    assert engine.transcribe([utterance()])[0].text == "turn on the light"


def test_settings_that_the_engine_refuses_are_told_in_its_own_words(start: Start, tmp_path: Path) -> None:
    """What the engine says in the other process is what the operator reads here."""
    broken = tmp_path / "ggml.bin"
    broken.write_bytes(b"no model at all")
    with pytest.raises(ModelError, match=r"ggml\.bin cannot be loaded"):
        start(WhisperCppSettings(), lambda: broken)


def test_it_inherits_no_secrets(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither settings nor credentials nor foreign descriptors are handed to it."""
    monkeypatch.setenv("EDGESCRIBE_MQTT__PASSWORD", "hunter2")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/edgescribe.service")
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    pid = start().pid
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"OMP_WAIT_POLICY=PASSIVE" in environment
    assert b"hunter2" not in environment
    assert b"CREDENTIALS" not in environment
    assert len(list(Path(f"/proc/{pid}/fd").iterdir())) <= 4  # in, out, errors, and the socket


@pytest.fixture
def tight() -> Iterator[Path]:
    """A memory cgroup with room for a megabyte; skips where this process may make none."""
    root = Path("/sys/fs/cgroup")
    unified = (root / "cgroup.controllers").exists()
    group = (root if unified else root / "memory") / f"edgescribe-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.max" if unified else "memory.limit_in_bytes")).write_text("1048576", encoding="ascii")
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        pytest.skip(f"may make no memory cgroup here: {error}")
    yield group
    with suppress(OSError):
        group.rmdir()


@pytest.mark.weights
def test_an_engine_that_runs_out_of_memory_costs_a_second_attempt(
    pulled: Callable[[str], Path], start: Start, losses: list[str], tight: Path
) -> None:
    """The kernel's own out-of-memory killer takes the process, and nobody else; the words come from the next one."""
    engine = start(FasterWhisperSettings(), lambda: pulled("tiny.en-ct2"))
    (tight / "cgroup.procs").write_text(str(engine.pid), encoding="ascii")
    pcm = clip("en_dir-intro")
    heard = engine.transcribe([Utterance("01OOM", pcm, 0, 0, speech_end=len(pcm), closed_at=len(pcm))])[0]
    assert "Welcome to the directory" in heard.text
    assert losses == ["died while transcribing (SIGKILL, as when memory runs out)"]
    events = [tight / "memory.events", tight / "memory.oom_control"]
    counted = next(path for path in events if path.exists()).read_text(encoding="ascii")
    assert "oom_kill 1" in counted


@pytest.mark.weights
def test_the_engines_own_library_stays_out_of_the_agent(pulled: Callable[[str], Path]) -> None:
    """Memory is not paid for twice: only the process loads the engine."""
    code = (
        "import sys; from pathlib import Path; from agent.config.settings import WhisperCppSettings\n"
        "from agent.asr.engine_process import ProcessEngine\n"
        f"engine = ProcessEngine(WhisperCppSettings(), lambda: Path({str(pulled('tiny.en-q8_0'))!r}))\n"
        "mapped = Path('/proc/self/maps').read_text(), Path(f'/proc/{engine.pid}/maps').read_text()\n"
        "engine.close()\n"
        "print(['whisper' in text for text in mapped], 'pydantic' in mapped[1])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.strip() == "[False, True] False"


@pytest.mark.weights
@pytest.mark.parametrize("settings", [WhisperCppSettings(), FasterWhisperSettings()], ids=lambda each: each.kind)
def test_real_engines_hear_the_same_in_a_process_before_and_after_a_crash(
    settings: WhisperCppSettings | FasterWhisperSettings, pulled: Callable[[str], Path], start: Start
) -> None:
    """Confinement takes nothing from the engine that it needs."""
    engine = start(settings, lambda: pulled(settings.model))
    pcm = clip("en_dir-intro")
    spoken = Utterance("01REAL", pcm, 0, 0, speech_end=len(pcm), closed_at=len(pcm))
    before = engine.transcribe([spoken])[0]
    signal_soon(engine, signal.SIGSEGV, 0.05)
    after = engine.transcribe([spoken])[0]
    assert "Welcome to the directory" in before.text
    assert replace(after, inference_s=0.0) == replace(before, inference_s=0.0)


class _Notebook:
    """Writes down what became of each utterance."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.failed_ids: list[str] = []

    def recognised(self, utterance: Utterance, *_words: object, **_late: object) -> None:
        self.ids.append(utterance.id)

    def partial(self, utterance: Utterance, transcript: Transcript) -> None:
        pass

    def failed(self, utterance: Utterance, error: EngineError) -> None:
        del error
        self.failed_ids.append(utterance.id)

    def dropped(self, utterance: Utterance) -> None:
        self.failed_ids.append(utterance.id)


def _kill_often(engine: ProcessEngine, notebook: _Notebook, kills: int, over: threading.Event) -> None:
    """Kill each process once, at a random moment after its first answer: two kills would fail one utterance."""
    chance = random.Random(7)  # noqa: S311 - no secret
    killed = None
    for _ in range(kills):
        while engine.pid in {None, killed}:
            time.sleep(0.005)
        answered = len(notebook.ids)
        while len(notebook.ids) == answered:
            time.sleep(0.005)
        time.sleep(chance.uniform(0.0, 0.1))
        if (killed := engine.pid) is not None:
            os.kill(killed, chance.choice(DEADLY))
    over.set()


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("kills", [20, pytest.param(500, marks=pytest.mark.slow)])
def test_kills_at_random_moments_lose_no_utterance(kills: int, start: Start, losses: list[str]) -> None:
    """Every utterance is answered, in order; descriptors, threads and memory are what they were."""
    engine = start(delay_s=0.03)
    notebook = _Notebook()
    transcriber = Transcriber(engine, notebook, 4, Overflow.WAIT)
    over = threading.Event()
    worker = threading.Thread(target=transcriber.run, daemon=True)
    killer = threading.Thread(target=_kill_often, args=(engine, notebook, kills, over), daemon=True)
    worker.start()
    before = (files_open(), threading.active_count(), psutil.Process().memory_info().rss)
    killer.start()
    submitted = 0
    while not over.is_set():
        transcriber.heard(Ended(utterance(f"{submitted:06}")))
        submitted += 1
    killer.join()
    after = (files_open(), threading.active_count() + 1, psutil.Process().memory_info().rss)
    transcriber.close()
    worker.join(60.0)
    assert notebook.failed_ids == []
    assert notebook.ids == [f"{number:06}" for number in range(submitted)]
    assert len(losses) >= kills * 0.9  # a kill may hit a process that is on its way out already
    assert abs(after[0] - before[0]) <= 1
    assert after[1] <= before[1] + 1
    assert after[2] <= before[2] * 1.02 + 1_000_000
