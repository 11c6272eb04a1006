"""Messages far larger than any command, by a real mosquitto: they cost no memory, and commands work afterwards."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from tests.acceptance.commands.conftest import CMD, StartAgent
from tests.support.commander import Commander
from tests.support.mosquitto import Mosquitto
from tests.support.receiver import LIMIT_S, Receiver, eventually

pytestmark = [pytest.mark.mosquitto, pytest.mark.timeout(300)]

LARGE = bytes(20 << 20)
TOO_LARGE = "mqtt_message_too_large"


@pytest.fixture
def receiver(broker: Mosquitto) -> Iterator[Receiver]:
    """A subscriber to what devices publish, and not to what they are told: those messages are large here."""
    with Receiver(broker.port, "edgescribe/v1/pi-1/+") as subscriber:
        yield subscriber


def peak_bytes(pid: int) -> int:
    """The most memory that a process ever had (proc(5), VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    (kilobytes,) = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return kilobytes << 10


def shout(broker: Mosquitto, *, retain: bool) -> None:
    """Publish a large message where the device takes commands, and wait until the broker has it."""
    client = Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    client.publish(f"{CMD}mute", LARGE, 1, retain).wait_for_publish(LIMIT_S)
    client.disconnect()
    client.loop_stop()


def codes(receiver: Receiver) -> list[str]:
    """What is wrong, as it was last said."""
    said = receiver.payloads("health")
    last: list[str] = json.loads(said[-1])["codes"] if said else []
    return last


def test_mqtt_5_brokers_keep_large_messages_to_themselves(
    broker: Mosquitto, receiver: Receiver, start_agent: StartAgent, commander: Commander
) -> None:
    """The Maximum Packet Size in CONNECT: the connection holds, the memory stays, the next command is obeyed."""
    agent = start_agent(mqtt__protocol="5")
    before_bytes = peak_bytes(agent.pid)
    shout(broker, retain=True)
    assert commander.ask("identify")["ok"]
    assert peak_bytes(agent.pid) - before_bytes < len(LARGE) // 4
    assert receiver.payloads("status") == ["online"]


def test_mqtt_3_ends_the_connection_once_and_obeys_afterwards(
    broker: Mosquitto, receiver: Receiver, start_agent: StartAgent, commander: Commander
) -> None:
    """The fixed header is enough to hang up: no memory, a code in `health`, and a reply to the next command."""
    agent = start_agent(mqtt__protocol="3.1.1", mqtt__reconnect_max_s=1)
    before_bytes = peak_bytes(agent.pid)
    shout(broker, retain=False)
    assert eventually(lambda: TOO_LARGE in codes(receiver))
    assert eventually(lambda: receiver.payloads("status")[-1] == "online")
    commander.publish(f"{CMD}identify")
    assert eventually(lambda: len(receiver.payloads("reply")) == 1)
    assert peak_bytes(agent.pid) - before_bytes < len(LARGE) // 4
    assert agent.stderr.count("connected to") == 2


def test_mqtt_3_leaves_out_the_topic_of_a_retained_message(
    broker: Mosquitto, receiver: Receiver, start_agent: StartAgent
) -> None:
    """It is there before the agent is, and would come with every subscription: the agent is online without it."""
    shout(broker, retain=True)
    agent = start_agent(mqtt__protocol="3.1.1", mqtt__reconnect_max_s=1)
    assert eventually(lambda: "not subscribing to" in agent.stderr)
    assert eventually(lambda: TOO_LARGE in codes(receiver))
    assert eventually(lambda: receiver.payloads("status")[-1] == "online")
    assert agent.stderr.count("hung up on") == 1
