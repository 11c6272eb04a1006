import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.support.agent_process import AgentProcess, write_wav
from tests.support.clips import silence
from tests.support.commander import Commander
from tests.support.mosquitto import Mosquitto
from tests.support.receiver import Receiver, eventually

CMD = "edgescribe/v1/pi-1/cmd/"


class StartAgent(Protocol):
    """Starts `edgescribe run` that listens to minutes of silence; settings with `__` for dots."""

    def __call__(self, folder: str = "agent", **settings: Any) -> AgentProcess:
        """Return the process, once it is online. The same folder is the same device with the same state."""


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
        assert eventually(lambda: receiver.payloads("status").count("online") > births), agents[-1].stderr
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
