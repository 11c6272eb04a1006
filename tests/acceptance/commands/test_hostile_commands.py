"""Hostile commands to a whole agent through a real mosquitto: it stays alive, small, brief in its log, and obeys."""

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import soundfile
from paho.mqtt.client import Client, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.acceptance.commands.conftest import CMD, StartAgent
from tests.support.agent_process import AgentProcess
from tests.support.clips import SAMPLE_RATE_HZ, silence
from tests.support.commander import Commander
from tests.support.contract_reader import command_names
from tests.support.hostile import DEVICE, GROUP, HostileCommand, drawn
from tests.support.mosquitto import Mosquitto
from tests.support.receiver import Receiver, eventually

pytestmark = pytest.mark.mosquitto

BURST = 16
"""Half of what the agent lets wait, so that it drops none."""
LARGEST_BYTES = 16_000
"""Nearly the Maximum Packet Size that the agent announces."""
LINES_A_MINUTE = 20
"""How many lines of a kind the agent may log in a minute."""
ALLOWED = [name for name in command_names() if name != "restart"]


class Attacker:
    """Publishes by MQTT 5, and connects again where the broker has hung up on what it sent."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._gone = threading.Event()
        self._client = self._connected()
        self.delivered = 0
        """Messages that the broker has taken."""

    def _connected(self) -> Client:
        client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5, reconnect_on_failure=False)
        self._gone.clear()
        client.on_disconnect = lambda *_: self._gone.set()
        client.connect("localhost", self._port)
        client.loop_start()
        assert eventually(client.is_connected)
        return client

    def send(self, incoming: HostileCommand) -> None:
        """Publish, and wait until the broker has taken it or hangs up; not what it could not deliver to the agent."""
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho has not annotated it
        try:
            # First, as paho counts a message that it cannot encode as one on its way for ever.
            names = f"{incoming.topic}{incoming.response_topic}".encode()
            if len(names) + len(incoming.payload) + len(incoming.correlation or b"") > LARGEST_BYTES:
                return
            if incoming.response_topic is not None:
                properties.ResponseTopic = incoming.response_topic
            if incoming.correlation is not None:
                properties.CorrelationData = incoming.correlation
            sent = self._client.publish(incoming.topic, incoming.payload, 1, incoming.retained, properties)
        except ValueError:  # a pattern, a zero byte or half a surrogate pair
            return
        assert eventually(lambda: self._gone.is_set() or _is_taken(sent))
        if self._gone.is_set():
            self.close()
            self._client = self._connected()
        else:
            self.delivered += 1

    def close(self) -> None:
        """Hang up."""
        self._client.disconnect()
        self._client.loop_stop()


def _is_taken(sent: MQTTMessageInfo) -> bool:
    with suppress(RuntimeError):  # so says paho where the broker has hung up before
        return sent.is_published()
    return False


@pytest.fixture
def attacker(broker: Mosquitto) -> Iterator[Attacker]:
    """Somebody who may command, and means no good."""
    one = Attacker(broker.port)
    yield one
    one.close()


def rss_mb(agent: AgentProcess) -> float:
    """What the agent takes, without a calibration that may just be under way in a process of its own."""
    return float(psutil.Process(agent.pid).memory_info().rss) / 2**20


def start(start_agent: StartAgent, tmp_path: Path) -> AgentProcess:
    """An agent that listens to an hour of silence, and whose engine is no process that takes seconds to start."""
    quiet = tmp_path / "quiet.flac"
    soundfile.write(quiet, silence(3_600.0), SAMPLE_RATE_HZ)
    return start_agent(
        source__kind="wav",
        source__path=str(quiet),
        source__pace="realtime",
        engine__isolation="thread",
        commands__allow=ALLOWED,
        commands__groups=[GROUP],
    )


def attack(attacker: Attacker, commander: Commander, number: int) -> None:
    """Deliver drawn commands, a burst at a time: after each, both threads of the agent must answer a valid one."""
    goal = attacker.delivered + number
    for chance in itertools.count(number):
        for incoming in drawn(500, chance):
            attacker.send(incoming)
            if attacker.delivered % BURST == 0 or attacker.delivered == goal:
                assert commander.ask("identify")["ok"]
                assert commander.ask("listen")["ok"]
            if attacker.delivered == goal:
                return


@pytest.mark.parametrize("number", [200, pytest.param(5_000, marks=[pytest.mark.slow, pytest.mark.timeout(3_600)])])
def test_an_agent_survives_hostile_commands(
    number: int, start_agent: StartAgent, commander: Commander, attacker: Attacker, tmp_path: Path
) -> None:
    """The agent is alive, has its size, and obeys, after everything that mosquitto has delivered."""
    agent = start(start_agent, tmp_path)
    attack(attacker, commander, 100)  # so that everything is loaded that commands need
    before_mb = rss_mb(agent)
    attack(attacker, commander, number)
    after_mb = rss_mb(agent)
    print(f"{attacker.delivered} commands; agent {before_mb:.1f} MB after 100, {after_mb:.1f} MB after all")  # noqa: T201
    assert agent.running
    assert "internal_error" not in agent.stderr
    assert commander.ask("vad_threshold", {"args": {"value": 0.6}})["ok"]
    assert after_mb < 1.1 * before_mb


def test_half_a_surrogate_pair_is_refused_by_a_device_and_by_a_group(
    start_agent: StartAgent, commander: Commander, tmp_path: Path
) -> None:
    """JSON may hold one, and no text may; it ends no agent."""
    agent = start(start_agent, tmp_path)
    for topic in (f"{CMD}identify", f"edgescribe/v1/_group/{GROUP}/cmd/identify"):
        asked = commander.send(topic, '{"id": "a", "args": {"\\ud800": 1}}')
        assert eventually(lambda: asked in commander.answers)  # noqa: B023 - it runs at once
        (answer,) = commander.answers[asked]
        assert (answer["device"], answer["id"], answer["code"]) == (DEVICE, "a", "invalid")
    assert commander.ask("identify")["ok"]
    assert agent.running


def test_a_message_that_cannot_be_read_is_passed_over(
    start_agent: StartAgent, commander: Commander, attacker: Attacker, tmp_path: Path
) -> None:
    """Paho hangs up on the sign U+FEFF in a property, and the broker would deliver the message on every connection."""
    agent = start(start_agent, tmp_path)
    attacker.send(
        HostileCommand(f"{CMD}identify", b"", retained=False, response_topic="answers/\ufeff", correlation=None)
    )
    assert attacker.delivered == 1
    assert commander.ask("identify")["ok"]
    agent.await_log("ignored a message")
    assert "lost the broker" not in agent.stderr


def test_a_flood_of_commands_writes_few_lines(
    start_agent: StartAgent, commander: Commander, receiver: Receiver, tmp_path: Path
) -> None:
    """Refused, dropped and obeyed commands alike; the agent still answers."""
    agent = start(start_agent, tmp_path)
    before = len(agent.stderr.splitlines())
    for number in range(2_000):
        commander.publish(f"{CMD}x{number}", json.dumps({"id": str(number)}))
        commander.publish(f"{CMD}identify")
    assert commander.ask("identify")["ok"]
    assert eventually(lambda: len(receiver.of("reply")) > 2 * LINES_A_MINUTE)
    assert len(agent.stderr.splitlines()) - before <= 5 * LINES_A_MINUTE
