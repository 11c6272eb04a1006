"""The whole agent, with real weights and a real broker, while its board gets hot and its processor is stolen."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.agent_process import AgentProcess, write_wav
from tests.support.clips import clip, silence
from tests.support.mosquitto import StartMosquitto
from tests.support.receiver import Receiver, eventually

pytestmark = [pytest.mark.mosquitto, pytest.mark.weights, pytest.mark.timeout(1_800)]

TOP, FLOOR = "tiny.en-q8_0", "tiny.en-q4_0"
SENTENCES = 12
PATIENCE_S = 600.0
REST_S = 1_800.0
THIEVES = 8
"""Processes that want all of the processor: the engine, with its low priority, gets a few per cent of a core."""


class Zone:
    """A board with one thermal zone, in a folder: `/sys/class/thermal` as a Raspberry Pi has it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folder = root / "sys/class/thermal/thermal_zone0"
        self._folder.mkdir(parents=True)
        (self._folder / "type").write_text("cpu-thermal\n")
        self.is_at(50.0)

    def is_at(self, temp_c: float) -> None:
        """Let it be so warm."""
        fresh = self._folder / "new"
        fresh.write_text(f"{round(temp_c * 1_000)}\n")
        fresh.replace(self._folder / "temp")


def speech(path: Path) -> Path:
    """A recording of the same sentence again and again, and then of a quiet room for as long as it takes."""
    sentence = np.concatenate([clip("en_pls-hold-while-try"), silence(1.0)])
    return write_wav(path, np.concatenate([silence(2.0), np.tile(sentence, SENTENCES), silence(REST_S)]))


def settings(port: int, recording: Path, zone: Zone, pulled: Callable[[str], Path], **further: Any) -> dict[str, Any]:
    """A device that hears `recording` in real time, on the board of `zone`."""
    pulled(FLOOR)
    return {
        "device__id": "pi-1",
        "source__kind": "wav",
        "source__path": recording,
        "engine__model": TOP,
        "models__dir": pulled(TOP).parent.parent,
        "mqtt__host": "127.0.0.1",
        "mqtt__port": port,
        "telemetry__host_root": zone.root,
        "telemetry__hot_c": 80,
        "governor__models": [FLOOR],
        "governor__down_after_s": 2,
        "governor__up_after_s": 6,
        **further,
    }


@contextmanager
def running(folder: Path, chosen: dict[str, Any]) -> Iterator[AgentProcess]:
    """An agent that is stopped in the end, in good order and without a traceback."""
    agent = AgentProcess(folder, chosen)
    try:
        yield agent
        agent.stop()
        assert agent.wait() == 0, agent.stderr
    finally:
        agent.kill()
        assert "Traceback" not in agent.stderr


@contextmanager
def stolen_processor() -> Iterator[None]:
    """Processes that never sleep, as long as this lasts."""
    thieves = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(THIEVES)]
    try:
        yield
    finally:
        for thief in thieves:
            thief.kill()
        for thief in thieves:
            thief.wait()


def arrived(receiver: Receiver) -> int:
    """Transcripts so far, live and late."""
    return len(receiver.payloads("transcript")) + len(receiver.payloads("transcript/backlog"))


def levels(receiver: Receiver) -> list[tuple[int, str | None, str]]:
    """Level, reason and model of every `state`, as far as they changed."""
    states = [json.loads(payload) for payload in receiver.payloads("state")]
    found = [(one["governor"]["level"], one["governor"].get("reason"), one["model"]) for one in states]
    return [one for before, one in zip([None, *found], found, strict=False) if one != before]


def everything_said_once(receiver: Receiver) -> list[dict[str, Any]]:
    """All transcripts, live and late, by their numbers, which have no gap; each utterance is there once."""
    payloads = [*receiver.payloads("transcript"), *receiver.payloads("transcript/backlog")]
    found = sorted((json.loads(payload) for payload in payloads), key=lambda one: one["seq"])
    assert [one["seq"] for one in found] == list(range(1, SENTENCES + 1))
    assert len({one["id"] for one in found}) == SENTENCES
    assert all("hold" in one["text"].lower() for one in found)
    assert receiver.payloads("transcript/failed") == []
    return found


def test_heat_steps_the_model_down_and_back_up(
    start_mosquitto: StartMosquitto, pulled: Callable[[str], Path], tmp_path: Path
) -> None:
    """At 84 °C decoding ahead goes, then the model; cool again, both come back; nothing is lost or doubled."""
    zone = Zone(tmp_path / "board")
    recording = speech(tmp_path / "speech.wav")
    with Receiver(start_mosquitto().port, qos=0) as receiver:
        chosen = settings(receiver.port, recording, zone, pulled, governor__queue_age_s=600)  # only heat counts here
        with running(tmp_path, chosen) as agent:
            assert eventually(lambda: arrived(receiver) > 0, PATIENCE_S), agent.stderr
            zone.is_at(84.0)
            assert eventually(lambda: levels(receiver)[-1] == (2, "hot", FLOOR), PATIENCE_S), agent.stderr
            before = arrived(receiver)
            assert eventually(lambda: arrived(receiver) >= before + 2, PATIENCE_S), agent.stderr
            zone.is_at(60.0)
            assert eventually(lambda: levels(receiver)[-1] == (0, None, TOP), PATIENCE_S), agent.stderr
            assert eventually(lambda: arrived(receiver) >= SENTENCES, PATIENCE_S), agent.stderr
        found = everything_said_once(receiver)
        codes = [tuple(json.loads(payload)["codes"]) for payload in receiver.payloads("health")]
    steps = [level for level, _reason, _model in levels(receiver)]
    top = steps.index(2)  # a machine that is slow to load a model may be two steps on by then
    assert steps[: top + 1] == sorted(steps[: top + 1])
    assert steps[top:] == sorted(steps[top:], reverse=True)
    assert {one["model"] for one in found} == {TOP, FLOOR}
    assert any({"hot", "governor_hot"} <= set(one) for one in codes)
    assert not any(code.startswith("governor_") for code in codes[-1])


def test_a_stolen_processor_costs_steps_and_time_but_no_word(
    start_mosquitto: StartMosquitto, pulled: Callable[[str], Path], tmp_path: Path
) -> None:
    """Behind, it steps down; for what nobody has time for it keeps the sound; left alone again, it goes back up."""
    zone = Zone(tmp_path / "board")
    recording = speech(tmp_path / "speech.wav")
    with Receiver(start_mosquitto().port, qos=0) as receiver:
        chosen = settings(receiver.port, recording, zone, pulled, governor__queue_age_s=2)
        with running(tmp_path, chosen) as agent:
            assert eventually(lambda: arrived(receiver) > 0, PATIENCE_S), agent.stderr
            with stolen_processor():
                assert eventually(lambda: levels(receiver)[-1][:2] == (2, "behind"), PATIENCE_S), agent.stderr
            assert eventually(lambda: levels(receiver)[-1] == (0, None, TOP), PATIENCE_S), agent.stderr
            assert eventually(lambda: arrived(receiver) >= SENTENCES, PATIENCE_S), agent.stderr
        found = everything_said_once(receiver)
    late = [one for one in found if one.get("late")]
    sys.stdout.write(f"{len(late)} of {SENTENCES} late\n")
    assert all(one["replayed"] for one in late)
    assert not list((tmp_path / "state" / "spool").glob("*"))


def test_what_was_kept_is_transcribed_after_a_restart(start_mosquitto: StartMosquitto, tmp_path: Path) -> None:
    """Killed with utterances in its folder: the next start publishes them late, by the same ids, and deletes them."""
    state, recording = tmp_path / "state", speech(tmp_path / "speech.wav")
    with Receiver(start_mosquitto().port, qos=0) as receiver:
        chosen = {
            "device__id": "pi-1",
            "source__kind": "wav",
            "source__path": recording,
            "engine__kind": "scripted",
            "engine__delay_s": 12,
            "mqtt__host": "127.0.0.1",
            "mqtt__port": receiver.port,
            "governor__queue_age_s": 1,
            "state_dir": state,
        }
        (tmp_path / "first").mkdir()
        first = AgentProcess(tmp_path / "first", chosen)
        try:
            assert eventually(lambda: len(list((state / "spool").glob("*.npz"))) >= 2, PATIENCE_S), first.stderr
        finally:
            first.kill()
        kept = {path.stem for path in (state / "spool").glob("*.npz")}
        quiet = write_wav(tmp_path / "quiet.wav", silence(REST_S))
        (tmp_path / "second").mkdir()
        with running(tmp_path / "second", chosen | {"source__path": quiet, "engine__delay_s": 0}) as agent:
            assert eventually(lambda: late_ids(receiver) >= kept, PATIENCE_S), agent.stderr
            assert eventually(lambda: not list((state / "spool").glob("*")), PATIENCE_S)


def late_ids(receiver: Receiver) -> set[str]:
    """Of the transcripts whose sound was kept."""
    found = [json.loads(payload) for payload in receiver.payloads("transcript/backlog")]
    return {one["id"] for one in found if one.get("late")}
