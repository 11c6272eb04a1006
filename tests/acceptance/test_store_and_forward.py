"""Words that wait on disk through an outage, a restart and a reboot."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.agent_process import AgentProcess
from tests.support.another_boot import in_another_boot
from tests.support.endurance import chatter, chattering, said
from tests.support.mosquitto import Mosquitto, StartMosquitto, free_port
from tests.support.receiver import Receiver, eventually

pytestmark = pytest.mark.mosquitto

StartAgent = Callable[..., AgentProcess]


@pytest.fixture
def start_agent(tmp_path: Path) -> Iterator[StartAgent]:
    """Starts agents that follow one another on one state folder; killed at the end."""
    agents: list[AgentProcess] = []

    def start(recording: Path, port: int, *, former_boot: bool = False, **further: object) -> AgentProcess:
        folder = tmp_path / f"agent-{len(agents)}"
        folder.mkdir()
        settings = chattering(recording, mqtt__port=port, state_dir=tmp_path / "state", **further)
        under = in_another_boot(tmp_path) if former_boot else []
        agents.append(AgentProcess(folder, settings, under=under))
        return agents[-1]

    yield start
    for agent in agents:
        agent.kill()
        assert "Traceback" not in agent.stderr


def numbers(receiver: Receiver, kind: str) -> list[int]:
    """The numbers that arrived on a topic, each once, in order of their first arrival."""
    return list(dict.fromkeys(json.loads(payload)["seq"] for payload in receiver.payloads(kind)))


@pytest.mark.parametrize("mode", ["balanced", "strict"])
def test_words_from_before_a_restart_are_delivered_after_it(
    start_mosquitto: StartMosquitto, start_agent: StartAgent, tmp_path: Path, mode: str
) -> None:
    """A stop without a broker loses nothing; the words are still live when the agent is back in time."""
    broker = start_mosquitto(start=False)
    before = start_agent(chatter(tmp_path / "before.wav", 20), broker.port, mqtt__outbox__mode=mode)
    assert before.wait() == 69, before.stderr
    assert len(said(before)) == 20
    broker.start()
    with Receiver(broker.port) as receiver:
        after = start_agent(chatter(tmp_path / "after.wav", 5), broker.port, mqtt__outbox__mode=mode)
        assert after.wait() == 0, after.stderr
        assert eventually(lambda: "offline" in receiver.payloads("status"))
        assert numbers(receiver, "transcript") == list(range(1, 26))
        assert numbers(receiver, "transcript/backlog") == []


def test_after_a_reboot_live_words_overtake_the_backlog(
    broker: Mosquitto, receiver: Receiver, start_agent: StartAgent, tmp_path: Path
) -> None:
    """Words from after the reboot arrive at once; words from before it come marked, in order, slowly."""
    kept = 40  # 8 s of backlog: it may begin at once, and the first live words take some seconds
    before = start_agent(chatter(tmp_path / "before.wav", kept), free_port(), former_boot=True)
    assert before.wait() == 69, before.stderr
    after = start_agent(chatter(tmp_path / "after.wav", 60), broker.port, source__pace="realtime")
    assert eventually(lambda: len(numbers(receiver, "transcript/backlog")) == kept), after.stderr
    after.stop()
    assert after.wait() == 0, after.stderr
    assert eventually(lambda: "offline" in receiver.payloads("status"))
    live = numbers(receiver, "transcript")
    assert live == list(range(kept + 1, kept + 1 + len(said(after))))
    assert numbers(receiver, "transcript/backlog") == list(range(1, kept + 1))
    order = [json.loads(message.payload)["seq"] for message in receiver.messages if "/transcript" in message.topic]
    assert order.index(live[0]) < order.index(kept)
    late = receiver.of("transcript/backlog")[0]
    assert json.loads(late.payload)["replayed"] is True
    assert 86_400 < late.properties["MessageExpiryInterval"] <= 7 * 86_400
