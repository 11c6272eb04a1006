"""Commands to a whole agent through a real mosquitto: what is obeyed, what is not, and what is answered."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest

from agent.wire import Keyword
from tests.clips import clip, silence
from tests.integration.agent_process import AgentProcess, write_wav
from tests.integration.commander import Commander
from tests.integration.conftest import StartMosquitto
from tests.integration.mosquitto import Mosquitto
from tests.integration.receiver import Receiver, eventually
from tests.integration.virtual_microphone import VirtualMicrophone

pytestmark = pytest.mark.mosquitto

CMD = "edgescribe/v1/pi-1/cmd/"


class StartAgent(Protocol):
    """Starts `edgescribe run` that listens to minutes of silence; settings with `__` for dots."""

    def __call__(self, folder: str = "agent", **settings: Any) -> AgentProcess:
        """Return the process, once it is online. The same folder is the same device with the same state."""


@pytest.fixture
def broker(start_mosquitto: StartMosquitto) -> Mosquitto:
    """A real mosquitto that lets everybody in."""
    return start_mosquitto()


@pytest.fixture
def receiver(broker: Mosquitto) -> Iterator[Receiver]:
    """Somebody who sees everything."""
    with Receiver(broker.port) as subscriber:
        yield subscriber


@pytest.fixture
def commander(broker: Mosquitto) -> Iterator[Commander]:
    """Somebody who commands."""
    with Commander(broker.port) as somebody:
        yield somebody


@pytest.fixture
def start_agent(tmp_path: Path, broker: Mosquitto, receiver: Receiver) -> Iterator[StartAgent]:
    """Agents of the device `pi-1`, killed at the end."""
    agents: list[AgentProcess] = []
    quiet = write_wav(tmp_path / "quiet.wav", silence(300.0))

    def start_one(folder: str = "agent", **settings: Any) -> AgentProcess:
        (tmp_path / folder).mkdir(exist_ok=True)
        defaults: dict[str, Any] = {
            "device__id": "pi-1",
            "engine__kind": "scripted",
            "mqtt__host": "127.0.0.1",
            "mqtt__port": broker.port,
        }
        source = {"source__kind": "wav", "source__path": str(quiet), "source__pace": "realtime"}
        if "source__kind" in settings:
            source = {}
        variables = settings.pop("variables", {})
        births = receiver.payloads("status").count("online")
        agents.append(AgentProcess(tmp_path / folder, {**defaults, **source, **settings}, **variables))
        assert eventually(lambda: receiver.payloads("status").count("online") > births, 60.0), agents[-1].stderr
        return agents[-1]

    yield start_one
    for agent in agents:
        agent.kill()


def state(receiver: Receiver) -> dict[str, Any]:
    """The applied values, as they were last published."""
    payloads = receiver.payloads("state")
    values: dict[str, Any] = json.loads(payloads[-1]) if payloads else {}
    return values


def becomes(receiver: Receiver, **values: Any) -> bool:
    """Whether `state` comes to say this."""
    return eventually(lambda: values.items() <= state(receiver).items())


def test_what_was_asked_is_applied_published_and_answered(
    start_agent: StartAgent, commander: Commander, receiver: Receiver
) -> None:
    """The answer comes by Response Topic with its Correlation Data, and `state` tells everybody."""
    start_agent()
    answer = commander.ask("vad_threshold", {"id": "a", "args": {"value": 0.7}})
    assert answer == {
        "v": 1,
        "device": "pi-1",
        "command": "vad_threshold",
        "id": "a",
        "ok": True,
        "code": "ok",
        "msg": "the threshold is 0.7",
        "result": {"value": 0.7},
    }
    assert becomes(receiver, vad_threshold=0.7)
    assert commander.ask("min_confidence", "0.25")["ok"]
    assert becomes(receiver, vad_threshold=0.7, min_confidence=0.25)
    assert receiver.payloads("reply") == []


def test_who_names_no_response_topic_is_answered_on_reply(
    start_agent: StartAgent, commander: Commander, receiver: Receiver
) -> None:
    """Home Assistant, and all who speak 3.1.1."""
    start_agent()
    commander.publish(CMD + "listen", "OFF")
    assert becomes(receiver, listening=False)
    assert eventually(lambda: bool(receiver.of("reply")))
    (reply,) = receiver.of("reply")
    assert json.loads(reply.payload)["command"] == "listen"
    assert not reply.retained
    assert reply.properties["UserProperty"] == [("schema", "reply/1")]


def test_refusals_say_why_and_change_nothing(start_agent: StartAgent, commander: Commander, receiver: Receiver) -> None:
    """Each with its code; the state stays as it was."""
    start_agent(commands__allow=["vad_threshold", "model", "replay", "calibrate", "language"])
    assert becomes(receiver, vad_threshold=0.5)
    before = len(receiver.payloads("state"))
    asked: list[tuple[str, object, str]] = [
        ("reboot", "", "unknown_command"),
        ("restart", {"id": "r", "args": {}}, "not_allowed"),
        ("vad_threshold", "7", "invalid"),
        ("vad_threshold", {"exp": 1, "args": {"value": 0.6}}, "expired"),
        ("model", "base-q8_0", "unavailable"),
        ("model", "~x", "invalid"),
        ("language", "auto", "invalid"),
        ("replay", {"args": {"from": 1, "to": 2}}, "not_available"),
        ("calibrate", "", "failed"),
    ]
    for name, payload, code in asked:
        answer = commander.ask(name, payload)
        assert (answer["code"], answer["ok"]) == (code, False), answer
        assert answer["msg"]
        assert answer.get("id") == (payload.get("id") if isinstance(payload, dict) else None)
    assert len(receiver.payloads("state")) == before


def test_retained_and_repeated_commands_are_ignored(
    start_agent: StartAgent, commander: Commander, receiver: Receiver
) -> None:
    """A retained one neither at the start nor when it is published, and one id once only."""
    commander.publish(CMD + "vad_threshold", "0.9", retain=True)
    start_agent()
    commander.publish(CMD + "vad_threshold", "0.8", retain=True)
    assert commander.ask("vad_threshold", {"id": "a", "args": {"value": 0.7}})["ok"]
    repeated = commander.send(CMD + "vad_threshold", {"id": "a", "args": {"value": 0.6}})
    assert commander.silence(repeated)
    assert {json.loads(payload)["vad_threshold"] for payload in receiver.payloads("state")} <= {0.5, 0.7}
    assert state(receiver)["vad_threshold"] == 0.7
    commander.publish(CMD + "vad_threshold", "", retain=True)


def test_a_group_hears_as_one_and_each_member_answers(start_agent: StartAgent, commander: Commander) -> None:
    """Members of the group obey, and say who they are; others do not."""
    start_agent("one", device__id="pi-1", commands__groups=["ground"])
    start_agent("two", device__id="pi-2", commands__groups=["ground", "canary"])
    start_agent("three", device__id="pi-3")
    asked = commander.send("edgescribe/v1/_group/ground/cmd/identify", {"id": "g"})
    assert eventually(lambda: len(commander.answers.get(asked, [])) == 2)
    time.sleep(0.5)
    assert sorted(answer["device"] for answer in commander.answers[asked]) == ["pi-1", "pi-2"]


def test_commands_are_heard_again_after_the_broker_was_away(
    start_agent: StartAgent, commander: Commander, receiver: Receiver, broker: Mosquitto
) -> None:
    """A broker that was killed knows nothing of subscriptions; they are made again on every connection."""
    start_agent()
    assert commander.ask("identify")["ok"]
    broker.kill()
    broker.start()
    assert eventually(lambda: receiver.payloads("status").count("online") >= 2)
    commander_again = Commander(broker.port)
    with commander_again:
        assert commander_again.ask("identify")["result"]["device"] == "pi-1"


def test_changes_outlive_a_restart_by_command(
    start_agent: StartAgent, commander: Commander, receiver: Receiver
) -> None:
    """The answer goes out before the end, the status makes systemd start it again, and a mute device stays mute."""
    agent = start_agent()
    assert commander.ask("vad_threshold", "0.65")["ok"]
    assert commander.ask("mute")["ok"]
    assert commander.ask("restart", {"id": "r"})["ok"]
    assert agent.wait() == 75, agent.stderr
    assert eventually(lambda: receiver.payloads("status")[-1] == "offline")
    start_agent()
    assert becomes(receiver, vad_threshold=0.65, listening=False)


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
        time.sleep(1.0)  # what was said before is still published
        before = len(receiver.payloads("transcript"))
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
    (told,) = [Keyword.model_validate_json(payload) for payload in receiver.payloads("keyword")]
    assert told.keyword == "lamp"
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
    agent = start_agent(**source, engine__delay_s=12.0, publish__partials=True)
    assert eventually(lambda: receiver.payloads("vad") == ["ON", "OFF"], 60.0)
    # The engine decodes ahead, since the pause began; the whole utterance waits for it.
    answer = commander.ask("mute", {"args": {"purge": True}})
    assert answer["result"] == {"value": False, "purged": 1}
    agent.stop()
    assert agent.wait() == 0, agent.stderr
    assert eventually(lambda: receiver.payloads("status")[-1] == "offline")
    assert "purged" in agent.stderr
    told = {name: receiver.payloads(name) for name in ("transcript", "transcript/partial", "transcript/failed")}
    assert told == {"transcript": [], "transcript/partial": [], "transcript/failed": []}


def test_a_calibration_is_answered_when_it_is_over_and_others_meanwhile(
    start_agent: StartAgent, commander: Commander, tmp_path: Path
) -> None:
    """The real verb, with the agent's own state folder: where no model is, it says so."""
    start_agent()
    asked = commander.send(CMD + "calibrate", {"id": "c"})
    assert commander.ask("identify")["ok"]
    assert eventually(lambda: asked in commander.answers, 60.0)
    (answer,) = commander.answers[asked]
    assert (answer["code"], answer["id"]) == ("failed", "c")
    assert answer["msg"].startswith("no model is on this device")
    assert not (tmp_path / "agent" / "state" / "calibration.json").exists()


def speech(folder: Path) -> Path:
    """A sentence in a quiet room, for a source that reads at the speed of sound."""
    pcm = np.concatenate([silence(1.5), clip("en_pls-hold-while-try"), silence(2.0)])
    return write_wav(folder / "speech.wav", pcm)


@pytest.mark.weights
def test_a_model_changes_between_utterances_and_the_golden_utterance_proves_it(
    start_agent: StartAgent, commander: Commander, receiver: Receiver, pulled: Callable[[str], Path]
) -> None:
    """With real weights: the old model hears, the new one takes over, and what is not there leaves all as it is."""
    store = pulled("tiny.en-q8_0").parent.parent
    pulled("tiny.en-q5_1")
    agent = start_agent(engine__kind="whisper_cpp", engine__model="tiny.en-q8_0", models__dir=str(store))
    golden = commander.ask("golden_utterance")
    assert golden["ok"], golden
    assert golden["result"]["model"] == "tiny.en-q8_0"
    assert golden["result"]["score"] >= 0.8
    assert golden["result"]["rtf"] > 0
    assert commander.ask("model", "tiny.en-q5_1")["ok"]
    assert becomes(receiver, model="tiny.en-q5_1")
    assert commander.ask("golden_utterance")["result"]["model"] == "tiny.en-q5_1"
    for name, code in [("small-q5_1", "unavailable"), ("no-such-model", "unavailable"), ("../x", "invalid")]:
        assert commander.ask("model", name)["code"] == code
    assert commander.ask("language", "de")["code"] == "unavailable"
    assert state(receiver)["model"] == "tiny.en-q5_1"
    assert json.loads(receiver.payloads("info")[-1])["model"] == "tiny.en-q5_1"
    assert agent.running
