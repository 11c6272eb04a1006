"""Commands to a whole agent through a real mosquitto: what is obeyed, what is not, and what is answered."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.commands.conftest import CMD, StartAgent, becomes, state
from tests.support.commander import Commander
from tests.support.mosquitto import Mosquitto
from tests.support.receiver import Receiver, eventually

pytestmark = pytest.mark.mosquitto


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
    again = start_agent()
    assert becomes(receiver, vad_threshold=0.65, listening=False)
    again.await_log("/applied.json): the microphone stays closed until cmd/listen ON")
    assert "listening to" not in again.stderr


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
