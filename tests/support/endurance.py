"""Long speech, and what an agent said of it: for tests that break things while somebody talks."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.agent_process import AgentProcess, write_wav
from tests.support.clips import clip, silence
from tests.support.receiver import Receiver

BURST_S = 1.0
PAUSE_S = 1.0
"""More than the hang-over, so that every burst is an utterance of its own."""


def chatter(path: Path, utterances: int) -> Path:
    """Write a recording of so many short utterances in a quiet room."""
    speech = clip("en_pls-hold-while-try")[: round(BURST_S * 16_000)]
    once = np.concatenate([speech, silence(PAUSE_S)])
    return write_wav(path, np.concatenate([silence(3.0), np.tile(once, utterances)]))


def chattering(recording: Path, **further: Any) -> dict[str, Any]:
    """Settings of an agent that hears `recording` as fast as it can be transcribed, and prints what it publishes."""
    return {
        "device__id": "pi-1",
        "source__kind": "wav",
        "source__path": recording,
        "source__pace": "flat_out",
        "vad__kind": "energy",
        "vad__gate": False,
        "engine__kind": "scripted",
        "mqtt__host": "127.0.0.1",
        "mqtt__reconnect_max_s": 1,
        "stdout__enabled": True,
        "telemetry__interval_s": 1,
        **further,
    }


@dataclass(frozen=True, slots=True)
class Said:
    """A transcript, as it was handed to the sinks or came out of the broker."""

    boot_id: str
    seq: int
    id: str
    content: str
    """All of the payload but `replayed`, as JSON."""

    @classmethod
    def of(cls, payload: dict[str, Any]) -> "Said":
        """From a payload."""
        content = {key: value for key, value in payload.items() if key != "replayed"}
        return cls(payload["boot_id"], payload["seq"], payload["id"], json.dumps(content, sort_keys=True))


def said(agent: AgentProcess) -> list[Said]:
    """What the agent has transcribed so far. It prints each before it goes into the outbox.

    A line that a kill has cut short does not count.
    """
    lines = [line for line in agent.stdout.splitlines(keepends=True) if line.endswith("\n")]
    messages = [json.loads(line) for line in lines if '/transcript"' in line]
    return [Said.of(message["payload"]) for message in messages]


def heard(receiver: Receiver) -> list[Said]:
    """What has arrived, live and late, duplicates included, in order of arrival."""
    kinds = ("/transcript", "/transcript/backlog")
    messages = list(receiver.messages)
    return [Said.of(json.loads(message.payload)) for message in messages if message.topic.endswith(kinds)]


def each_once(arrived: list[Said]) -> list[Said]:
    """First arrivals only; the test fails if two transcripts share a number, or a duplicate is not what came first."""
    first: dict[tuple[str, int], Said] = {}
    for one in arrived:
        assert first.setdefault((one.boot_id, one.seq), one) == one
    assert len({one.id for one in first.values()}) == len(first)
    return list(first.values())


def problems(receiver: Receiver) -> set[str]:
    """Every code that `health` has ever shown."""
    return {code for payload in receiver.payloads("health") for code in json.loads(payload)["codes"]}
