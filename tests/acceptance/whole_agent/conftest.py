import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest

from tests.support.agent_process import AgentProcess, write_wav
from tests.support.bundled import sentences
from tests.support.clips import clip, silence
from tests.support.contract_reader import promise
from tests.support.receiver import Message, Receiver

SENTENCES = sentences()
LOOPBACK = "127.0.0.1"


class StartAgent(Protocol):
    """Starts `edgescribe run` on a recording, with an engine that answers from a list; settings with `__` for dots."""

    def __call__(self, **settings: Any) -> AgentProcess:
        """Return the process."""


@pytest.fixture
def start_agent(tmp_path: Path) -> Iterator[StartAgent]:
    """Agents of the device `pi-1`, each in a folder of its own; killed at the end."""
    agents: list[AgentProcess] = []

    def start_one(
        *, under: Sequence[str] = (), variables: dict[str, str] | None = None, **settings: Any
    ) -> AgentProcess:
        folder = tmp_path / f"agent-{len(agents)}"
        folder.mkdir()
        defaults = {"device__id": "pi-1", "engine__kind": "scripted", "mqtt__host": LOOPBACK}
        agents.append(AgentProcess(folder, {**defaults, **settings}, under=under, **(variables or {})))
        return agents[-1]

    yield start_one
    for agent in agents:
        agent.kill()


def transcripts(receiver: Receiver, kind: str = "transcript") -> list[dict[str, Any]]:
    """The transcripts that have come in, held against the contract."""
    return [checked(message) for message in receiver.of(kind)]


def checked(message: Message) -> dict[str, Any]:
    """The payload of a message, which keeps the contract."""
    promised = promise(message.topic)
    assert promised
    assert promised.complaints(message.payload) == []
    payload: dict[str, Any] = json.loads(message.payload)
    return payload


def wav(path: Path | str, pace: str = "flat_out") -> dict[str, Any]:
    """Settings of a recording as the source."""
    return {"source__kind": "wav", "source__path": str(path), "source__pace": pace}


def two_sentences(folder: Path) -> Path:
    """Ten seconds: two sentences in a quiet room, with pauses around them."""
    quiet = silence(1.5)
    first, second = clip("en_conf-waitforleader"), clip("en_pls-hold-while-try")
    return write_wav(folder / "two.wav", np.concatenate([quiet, first, quiet, second, quiet]))
