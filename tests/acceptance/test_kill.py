"""The agent is killed -9 while it speaks and no broker is there.

`EDGESCRIBE_TEST_FULL=1` kills it 20 times.
"""

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent_process import AgentProcess
from tests.support.endurance import Said, chatter, chattering, each_once, heard, said
from tests.support.mosquitto import Mosquitto, free_port
from tests.support.receiver import Receiver, eventually

pytestmark = [pytest.mark.mosquitto, pytest.mark.timeout(600)]

KILLS = 20 if os.environ.get("EDGESCRIBE_TEST_FULL") else 6
PAUSE_S = 0.05
GRACE_S = 2.0
"""Balanced keeps the words of so many seconds in memory only."""

StartAgent = Callable[..., AgentProcess]


@pytest.fixture
def start_agent(tmp_path: Path) -> Iterator[StartAgent]:
    """Starts agents that follow one another on one state folder; killed at the end."""
    agents: list[AgentProcess] = []
    memory = tmp_path / "memory"
    memory.mkdir()
    recording = chatter(tmp_path / "chatter.wav", 400)

    def start(port: int, **further: Any) -> AgentProcess:
        folder = tmp_path / f"agent-{len(agents)}"
        folder.mkdir()
        defaults = {"mqtt__port": port, "state_dir": tmp_path / "state", "engine__delay_s": PAUSE_S}
        settings = chattering(recording, **{**defaults, **further})
        agents.append(AgentProcess(folder, settings, RUNTIME_DIRECTORY=str(memory)))
        return agents[-1]

    yield start
    for agent in agents:
        agent.kill()
        assert "Traceback" not in agent.stderr


def speak_until_killed(agent: AgentProcess, for_s: float) -> list[Said]:
    """Let it speak for a while from its first word, kill it, and return what it has said."""
    assert eventually(lambda: bool(said(agent)) or not agent.running)
    time.sleep(for_s)
    assert agent.running, agent.stderr
    agent.kill()
    return said(agent)


def delivered(start_agent: StartAgent, broker: Mosquitto, folder: Path, **settings: Any) -> list[Said]:
    """Let another agent deliver what is there, with one more word; in order of arrival."""
    with Receiver(broker.port) as receiver:
        last = start_agent(broker.port, source__path=chatter(folder / "last.wav", 1), **settings)
        assert last.wait() == 0, last.stderr
        assert eventually(lambda: "offline" in receiver.payloads("status"))
        return each_once(heard(receiver))


def test_strict_loses_nothing_and_counts_without_gaps(
    start_agent: StartAgent, broker: Mosquitto, tmp_path: Path
) -> None:
    """Every accepted transcript is there after kills at random moments, and so is every number."""
    chance, nowhere = random.Random(4), free_port()  # noqa: S311 - repeatable
    strict: dict[str, Any] = {"mqtt__outbox__mode": "strict"}
    accepted: set[str] = set()
    for _ in range(KILLS):
        spoken = speak_until_killed(start_agent(nowhere, **strict), chance.uniform(0.0, 0.5))
        # The last one may have been printed and not stored; one is stored before the next is printed.
        accepted |= {one.id for one in spoken[:-1]}
    arrived = delivered(start_agent, broker, tmp_path, **strict)
    assert accepted <= {one.id for one in arrived}
    assert [one.seq for one in arrived] == list(range(1, len(arrived) + 1))


def test_balanced_loses_at_most_two_seconds_and_uses_no_number_twice(
    start_agent: StartAgent, broker: Mosquitto, tmp_path: Path
) -> None:
    """A kill takes the newest words at most; a missing number is a lost transcript."""
    nowhere = free_port()
    spoken = [speak_until_killed(start_agent(nowhere), GRACE_S + 0.6) for _ in range(3)]
    kept = {one.id for one in delivered(start_agent, broker, tmp_path)}
    for one_run in spoken:
        lost = [one.seq for one in one_run if one.id not in kept]
        assert lost == [one.seq for one in one_run][len(one_run) - len(lost) :]
        assert 0 < len(lost) <= (GRACE_S + 0.5) / PAUSE_S
    numbers = [one.seq for one_run in spoken for one in one_run]
    assert len(set(numbers)) == len(numbers)
    # An agent that is killed between counting and printing may have used one more number.
    assert max(numbers) <= len(numbers) + len(spoken)


def test_a_second_agent_on_the_same_folder_is_refused_and_told_why(start_agent: StartAgent) -> None:
    """One line names the first one's process; the first one goes on undisturbed."""
    nowhere = free_port()
    first = start_agent(nowhere)
    assert eventually(lambda: bool(said(first)))
    second = start_agent(nowhere)
    assert second.wait() == 78, second.stderr
    (line,) = second.stderr.splitlines()
    assert f"in use by another edgescribe (process {first.pid}): stop that one, or" in line
    count = len(said(first))
    assert eventually(lambda: len(said(first)) > count)
