"""Commands and settings that keep speech in, with a whole agent: what is closed, taken back, or never said."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.acceptance.commands.conftest import CMD, StartAgent, becomes
from tests.support.agent_process import AgentProcess, write_wav
from tests.support.clips import clip, silence
from tests.support.commander import Commander
from tests.support.receiver import Receiver, eventually
from tests.support.virtual_microphone import VirtualMicrophone

pytestmark = pytest.mark.mosquitto


def test_mute_closes_the_microphone_and_listen_opens_it(
    start_agent: StartAgent, commander: Commander, receiver: Receiver, tmp_path: Path
) -> None:
    """With a real libasound: the agent's descriptor of the device is gone while mute, and words come again after."""
    microphone = VirtualMicrophone(tmp_path)
    agent = start_agent(source__kind="alsa", source__device=microphone.device, variables=microphone.environment)
    fifo = str(tmp_path / "microphone.fifo")
    spoken = np.concatenate([silence(0.5), clip("en_pls-hold-while-try"), silence(1.5)])
    over = threading.Event()

    def room() -> None:
        while not over.is_set():
            microphone.play(spoken)

    # A device that delivers nothing would hold libasound, and with it its descriptor.
    talking = threading.Thread(target=room)
    talking.start()
    try:
        assert eventually(lambda: fifo in open_files(agent))
        assert commander.ask("mute")["msg"] == "mute: the microphone is closed"
        assert becomes(receiver, listening=False)
        assert eventually(lambda: fifo not in open_files(agent))
        before = settled(receiver)  # what was said before is still published
        time.sleep(8.0)
        assert len(receiver.payloads("transcript")) == before
        assert receiver.payloads("vad")[-1:] != ["ON"]
        assert commander.ask("listen")["ok"]
        assert eventually(lambda: len(receiver.payloads("transcript")) > before)
        assert fifo in open_files(agent)
        assert agent.running
    finally:
        over.set()
        talking.join()
        microphone.unplug()


def settled(receiver: Receiver) -> int:
    """How many transcripts there are when none has come for three seconds."""
    while True:
        count = len(receiver.payloads("transcript"))
        if not eventually(lambda count=count: len(receiver.payloads("transcript")) > count, 3.0):  # type: ignore[misc]
            return count


def test_mute_waits_for_nothing_else(start_agent: StartAgent, commander: Commander, receiver: Receiver) -> None:
    """Not for the engine, which has a golden utterance to transcribe; that is answered when it is done."""
    start_agent(engine__delay_s=10.0)
    asked = commander.send(CMD + "golden_utterance")
    assert commander.ask("mute")["ok"]
    assert becomes(receiver, listening=False)
    assert asked not in commander.answers
    assert eventually(lambda: asked in commander.answers, 60.0)
    (answer,) = commander.answers[asked]
    assert answer["command"] == "golden_utterance"


def open_files(agent: AgentProcess) -> set[str]:
    """What the process has open."""
    folder = Path(f"/proc/{agent.pid}/fd")
    found = set()
    for link in folder.iterdir():
        try:
            found.add(str(link.readlink()))
        except FileNotFoundError:
            continue
    return found


def test_keywords_are_told_and_nothing_else(start_agent: StartAgent, receiver: Receiver, tmp_path: Path) -> None:
    """`privacy = keywords`: the name of what was said, no transcript, no word of the text anywhere."""
    recording = speech(tmp_path)
    agent = start_agent(
        source__kind="wav",
        source__path=str(recording),
        engine__texts=["Please switch the secret lamp on."],
        publish__privacy="keywords",
        publish__keywords=["lamp=/lamp (on|off)/", "heater"],
    )
    assert agent.wait() == 0, agent.stderr
    assert eventually(lambda: receiver.payloads("status")[-1] == "offline")
    (told,) = [json.loads(payload) for payload in receiver.payloads("keyword")]
    assert told["keyword"] == "lamp"
    assert receiver.payloads("transcript") == []
    everything = " ".join(message.payload for message in receiver.messages) + agent.stderr
    assert "secret" not in everything
    assert json.loads(receiver.payloads("state")[0])["privacy"] == "keywords"


def test_with_privacy_off_nothing_is_transcribed(start_agent: StartAgent, receiver: Receiver, tmp_path: Path) -> None:
    """`vad` and the state of the device remain."""
    agent = start_agent(source__kind="wav", source__path=str(speech(tmp_path)), publish__privacy="off")
    assert agent.wait() == 0, agent.stderr
    assert eventually(lambda: receiver.payloads("status")[-1] == "offline")
    assert receiver.payloads("transcript") == []
    assert receiver.payloads("vad") == ["ON", "OFF"]
    assert "rtf" not in agent.stderr


def test_what_was_delivered_is_replayed_unless_it_was_purged(
    start_agent: StartAgent, commander: Commander, receiver: Receiver, tmp_path: Path
) -> None:
    """The same transcript, marked, on the backlog's topic; after a purge there is nothing left of it."""
    pcm = np.concatenate([silence(1.5), clip("en_pls-hold-while-try"), silence(300.0)])
    recording = write_wav(tmp_path / "once.wav", pcm)
    start_agent(source__kind="wav", source__path=str(recording), source__pace="realtime")
    assert eventually(lambda: bool(receiver.payloads("transcript")), 60.0)
    first = json.loads(receiver.payloads("transcript")[0])
    seq = first["seq"]
    answer = commander.ask("replay", {"args": {"from": seq, "to": seq + 5}})
    assert answer["code"] == "partial"
    assert answer["result"] == {
        "replayed": 1,
        "missing": [{"from": seq + 1, "to": seq + 5}],
        "available": {"from": seq, "to": seq},
    }
    assert eventually(lambda: bool(receiver.payloads("transcript/backlog")), 60.0)
    assert json.loads(receiver.payloads("transcript/backlog")[0]) == first | {"replayed": True}
    assert commander.ask("mute", {"args": {"purge": True}})["ok"]
    assert "available" not in commander.ask("replay", {"args": {"from": seq, "to": seq}})["result"]


def test_mute_with_purge_takes_back_what_is_not_transcribed_yet(
    start_agent: StartAgent, commander: Commander, receiver: Receiver, tmp_path: Path
) -> None:
    """Neither what waits for the engine gets out, nor what the engine makes of what it was working on."""
    recording = speech(tmp_path)
    source: dict[str, Any] = {"source__kind": "wav", "source__path": str(recording), "source__pace": "realtime"}
    # Long enough for the command to come first, however busy the machine is.
    agent = start_agent(**source, engine__delay_s=30.0, engine__budget_s=300.0, publish__partials=True)
    assert eventually(lambda: receiver.payloads("vad") == ["ON", "OFF"])
    # The engine decodes ahead, since the pause began; the whole utterance waits for it.
    answer = commander.ask("mute", {"args": {"purge": True}})
    assert answer["result"] == {"value": True, "purged": 1}
    agent.await_log("purged")
    agent.stop()
    assert agent.wait() == 0, agent.stderr
    assert eventually(lambda: receiver.payloads("status")[-1] == "offline")
    told = {name: receiver.payloads(name) for name in ("transcript", "transcript/partial", "transcript/failed")}
    assert told == {"transcript": [], "transcript/partial": [], "transcript/failed": []}


def speech(folder: Path) -> Path:
    """A sentence in a quiet room, for a source that reads at the speed of sound."""
    pcm = np.concatenate([silence(1.5), clip("en_pls-hold-while-try"), silence(2.0)])
    return write_wav(folder / "speech.wav", pcm)
