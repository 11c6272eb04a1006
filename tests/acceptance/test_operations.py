"""The agent as a service: what it does when it is told, and when something in it is killed or hangs."""

import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil
import pytest

from tests.support.agent_process import AgentProcess, write_wav
from tests.support.clips import clip, silence
from tests.support.receiver import eventually


class StartAgent(Protocol):
    """Starts `edgescribe run` on a minute of speech in real time; what is published goes to its standard output."""

    def __call__(self, toml: str = "", variables: dict[str, str] | None = None, **settings: Any) -> AgentProcess:
        """Return the process; `toml` is its configuration file."""


@pytest.fixture
def start_agent(tmp_path: Path) -> Iterator[StartAgent]:
    """Agents without a broker, killed at the end."""
    quiet = silence(1.0)
    speech = np.concatenate([quiet, *(part for _ in range(10) for part in (clip("en_vm-msgforwarded"), quiet))])
    recording = write_wav(tmp_path / "speech.wav", speech)
    agents: list[AgentProcess] = []

    def start_one(toml: str = "", variables: dict[str, str] | None = None, **settings: Any) -> AgentProcess:
        (tmp_path / "config.toml").write_text(toml, encoding="utf-8")
        defaults = {
            "mqtt__enabled": False,
            "stdout__enabled": True,
            "source__kind": "wav",
            "source__path": recording,
            "source__pace": "realtime",
        }
        chosen = defaults | ({"engine__kind": "scripted"} if "engine.kind" not in toml else {})
        agents.append(AgentProcess(tmp_path, chosen | settings, **(variables or {})))
        return agents[-1]

    yield start_one
    for agent in agents:
        agent.kill()


def published(agent: AgentProcess, topic: str) -> list[dict[str, Any]]:
    """Payloads on a topic of the device, so far."""
    lines = [json.loads(line) for line in agent.stdout.splitlines() if line.endswith("}")]
    return [line["payload"] for line in lines if line["topic"].endswith(f"/{topic}")]


def engine_of(agent: AgentProcess) -> psutil.Process:
    """The process with the engine."""
    (child,) = psutil.Process(agent.pid).children()
    return child


def test_an_engine_that_is_killed_in_the_middle_costs_no_utterance(start_agent: StartAgent) -> None:
    """Its utterance gets a second attempt; the agent is the same process, and counts what happened."""
    agent = start_agent(engine__delay_s=0.4, telemetry__interval_s=1.0)
    assert eventually(lambda: len(published(agent, "transcript")) >= 1)
    killed = engine_of(agent)
    killed.kill()
    assert eventually(lambda: len(published(agent, "transcript")) >= 4)
    assert engine_of(agent).pid != killed.pid
    numbers = [transcript["seq"] for transcript in published(agent, "transcript")]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert eventually(lambda: published(agent, "telemetry")[-1]["asr"]["engine_restarts"] == 1)
    assert published(agent, "transcript/failed") == []


def test_an_utterance_that_the_engine_does_not_survive_is_published_as_failed(start_agent: StartAgent) -> None:
    """With its id and its place in the order; nothing vanishes in silence, and `health` says so, too."""
    agent = start_agent(engine__delay_s=60.0, engine__budget_s=0.1)
    agent.await_log("lost: the engine process was lost 2 times")
    assert eventually(lambda: len(published(agent, "transcript/failed")) >= 1)
    failure = published(agent, "transcript/failed")[0]
    assert failure["reason"] == "engine"
    assert failure["id"] in agent.stderr
    assert "engine_failed" in published(agent, "health")[-1]["codes"]


def test_an_agent_that_is_killed_leaves_no_engine_behind(start_agent: StartAgent) -> None:
    """A new agent finds the memory free."""
    agent = start_agent()
    assert eventually(lambda: len(psutil.Process(agent.pid).children()) == 1)
    agent.await_log("listening to")
    orphan = engine_of(agent)
    agent.kill()
    assert eventually(lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE)


def test_a_reload_applies_what_it_can_and_names_the_rest(start_agent: StartAgent, tmp_path: Path) -> None:
    """The words change from one utterance to the next, the device's id does not, and the process is the same."""
    texts = 'engine.kind = "scripted"\nengine.texts = ["{}"]\ndevice.id = "{}"\n'
    agent = start_agent(texts.format("before", "one"))
    assert eventually(lambda: len(published(agent, "transcript")) >= 1)
    (tmp_path / "config.toml").write_text(texts.format("after", "two"), encoding="utf-8")
    agent.stop(signal.SIGHUP)
    agent.await_log("reloaded: applied engine.texts; needs a restart: device.id")
    assert eventually(lambda: published(agent, "transcript")[-1]["text"] == "after")
    assert published(agent, "transcript")[0]["text"] == "before"
    assert {line.split('"topic": "', 1)[-1].split("/")[2] for line in agent.stdout.splitlines()} == {"one"}


def test_a_reload_of_wrong_settings_changes_nothing(start_agent: StartAgent, tmp_path: Path) -> None:
    """One line says what is wrong, and what was in force stays so."""
    agent = start_agent()
    assert eventually(lambda: len(published(agent, "transcript")) >= 1)
    (tmp_path / "config.toml").write_text("[vad]\nthreshold = 7\n", encoding="utf-8")
    agent.stop(signal.SIGHUP)
    agent.await_log("not reloaded, what was in force stays so")
    assert "threshold" in agent.stderr
    heard = len(published(agent, "transcript"))
    assert eventually(lambda: len(published(agent, "transcript")) > heard)
    assert agent.running


def test_an_abort_leaves_the_stack_of_every_thread(start_agent: StartAgent) -> None:
    """What systemd's watchdog interrupts is found in the journal."""
    agent = start_agent(engine__isolation="thread")
    agent.await_log("listening to")
    agent.stop(signal.SIGABRT)
    assert agent.wait() == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in agent.stderr
    assert len(re.findall(r"(?m)^(?:Current thread|Thread) 0x", agent.stderr)) >= 3  # main, listen, transcribe


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The end of the notification socket that systemd would hold."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.settimeout(60.0)
        yield end


def test_a_hanging_inference_without_isolation_ends_the_signs_of_life(
    start_agent: StartAgent, manager: socket.socket, tmp_path: Path
) -> None:
    """Until the engine's budget is spent systemd is told that the agent lives; then what hangs, and then no more."""
    variables = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "60000000"}
    start_agent(variables=variables, engine__isolation="thread", engine__delay_s=600.0, engine__budget_s=0.1)
    told: list[str] = []
    while not any("stalled" in line for line in told):
        told += manager.recv(4_096).decode().splitlines()
    assert "READY=1" in told
    assert "WATCHDOG=1" in told
    assert told[-1].startswith("STATUS=stalled: transcribe has been silent for")
    until_s = time.monotonic() + 3.0
    later: list[str] = []
    while time.monotonic() < until_s:
        later += manager.recv(4_096).decode().splitlines()
    assert "WATCHDOG=1" not in later
    assert all(line.startswith("STATUS=stalled") for line in later)
