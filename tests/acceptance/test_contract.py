"""What a real agent says to a real broker, held against the shipped documents."""

import json
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from tests.support.agent_process import AgentProcess, write_wav
from tests.support.bundled import RECORDING
from tests.support.clips import clip, silence
from tests.support.commander import Commander
from tests.support.contract_reader import promise
from tests.support.mosquitto import Mosquitto
from tests.support.receiver import Message, Receiver, eventually

pytestmark = pytest.mark.mosquitto


def settings(port: int, **further: object) -> dict[str, object]:
    """An agent that reads the bundled recording flat out and answers from a list."""
    return {
        "device__id": "pi-1",
        "source__kind": "wav",
        "source__path": RECORDING,
        "source__pace": "flat_out",
        "engine__kind": "scripted",
        "engine__texts": ["heater off", "turn on the light, grüße 🎤"],
        "engine__delay_s": 0.2,
        "mqtt__host": "localhost",
        "mqtt__port": port,
        "telemetry__interval_s": 1,
        **further,
    }


def complaints(message: Message) -> list[str]:
    """What is wrong with a message by the shipped documents; empty if nothing is."""
    found = promise(message.topic)
    if found is None:
        return [f"{message.topic} is not in the contract"]
    wrong = [f"{message.topic}: {complaint}" for complaint in found.complaints(message.payload)]
    if message.qos != found.qos:
        wrong.append(f"{message.topic} came with QoS {message.qos}")
    if message.properties["ContentType"] != found.content_type:
        wrong.append(f"{message.topic} is called {message.properties['ContentType']}")
    if message.properties["UserProperty"] != [("schema", found.schema_name)]:
        wrong.append(f"{message.topic} says {message.properties['UserProperty']}")
    expiry_s = message.properties.get("MessageExpiryInterval")
    if (expiry_s is None) != (found.expiry_s is None) or (expiry_s or 0) > (found.expiry_s or 0):
        wrong.append(f"{message.topic} expires after {expiry_s} s")
    return wrong


def test_everything_that_an_agent_publishes_keeps_the_contract(
    broker: Mosquitto, receiver: Receiver, tmp_path: Path
) -> None:
    """From birth to farewell: topic, QoS, properties, and payload against its schema without room for the unknown."""
    agent = AgentProcess(tmp_path, settings(broker.port))
    try:
        assert agent.wait() == 0, agent.stderr
    finally:
        agent.kill()
    assert eventually(lambda: "offline" in receiver.payloads("status"))
    messages = [message for message in receiver.messages if message.topic.startswith("edgescribe/")]
    assert [complaint for message in messages for complaint in complaints(message)] == []
    kinds = {message.topic.split("/", 3)[3] for message in messages}
    assert kinds >= {"status", "info", "state", "transcript", "vad", "telemetry"}


REQUESTS: Final[dict[str, dict[str, object]]] = {
    "identify": {"id": "a1"},
    "vad_threshold": {"id": "a2", "args": {"value": 0.6}, "exp": "2036-01-01T00:00:00Z"},
    "language": {"id": "a3", "args": {"value": 17}},
    "golden_utterance": {"id": "a4", "exp": 2_082_758_400},
    "mute": {"id": "a5", "args": {"value": "ON", "purge": True}},
    "replay": {"id": "a6", "args": {"from": 1, "to": 2}},
}
"""What is obeyed, what is refused, and what this version cannot do."""


def test_commands_and_replies_keep_the_contract(broker: Mosquitto, receiver: Receiver, tmp_path: Path) -> None:
    """Requests get a reply each, by the shipped schemas; keywords, partials and what is applied keep them as well."""
    pcm = np.concatenate([silence(1.5), clip("en_conf-waitforleader"), silence(300.0)])
    source = {"source__path": write_wav(tmp_path / "speech.wav", pcm), "source__pace": "realtime"}
    agent = AgentProcess(
        tmp_path, settings(broker.port, **source, publish__keywords=["heater off"], publish__partials=True)
    )
    try:
        assert eventually(lambda: bool(receiver.of("keyword")), 60.0), agent.stderr
        with Commander(broker.port) as commander:
            for name, request in REQUESTS.items():
                topic = f"edgescribe/v1/pi-1/cmd/{name}"
                asked = promise(topic, "receive")
                assert asked
                assert asked.complaints(json.dumps(request)) == []
                commander.publish(topic, request)
            assert eventually(lambda: len(receiver.of("reply")) == len(REQUESTS), 60.0), agent.stderr
        agent.stop()
        assert agent.wait() == 0, agent.stderr
    finally:
        agent.kill()
    assert eventually(lambda: "offline" in receiver.payloads("status"))
    assert receiver.of("transcript/partial"), "decoded ahead, and not told"
    answered = {json.loads(payload)["id"] for payload in receiver.payloads("reply")}
    assert answered == {request["id"] for request in REQUESTS.values()}
    sent = [message for message in receiver.messages if "/cmd/" not in message.topic]
    assert [complaint for message in sent for complaint in complaints(message)] == []


def test_what_the_broker_keeps_is_what_the_contract_says_is_retained(
    broker: Mosquitto, receiver: Receiver, tmp_path: Path
) -> None:
    """Who comes later gets the retained topics, all of them and no other."""
    agent = AgentProcess(tmp_path, settings(broker.port))
    try:
        assert agent.wait() == 0, agent.stderr
    finally:
        agent.kill()
    assert eventually(lambda: "offline" in receiver.payloads("status"))
    sent = {message.topic for message in receiver.messages if message.topic.startswith("edgescribe/")}
    expected = {topic for topic in sent if (found := promise(topic)) and found.retained}
    with Receiver(broker.port) as latecomer:
        assert eventually(lambda: {message.topic for message in latecomer.messages} == expected)
        assert all(message.retained for message in latecomer.messages)
