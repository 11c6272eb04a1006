"""The whole agent talks while its broker, its process, its network and its disk are broken under it.

What the agent promises ends with the broker's acknowledgement. A broker without persistence takes with it what it has
acknowledged and not passed on, so these tests see to it that it passes on first: the subscriber is there before the
agent is let in, and subscribes with QoS 0, where mosquitto writes to it before it answers the agent.

`EDGESCRIBE_TEST_FULL=1` runs them at full length: 500 utterances, 20 kills, a keep-alive of 30 s.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent_process import AgentProcess
from tests.support.endurance import chatter, chattering, each_once, heard, problems, said
from tests.support.gate import Gate
from tests.support.mosquitto import Mosquitto, StartMosquitto
from tests.support.receiver import LIMIT_S, Receiver, eventually

pytestmark = [pytest.mark.mosquitto, pytest.mark.timeout(600)]

FULL = bool(os.environ.get("EDGESCRIBE_TEST_FULL"))
UTTERANCES, KILLS = (500, 20) if FULL else (100, 4)
KEEPALIVE_S, HELD_S, AFTER_S = (30, 75.0, 60.0) if FULL else (5, 15.0, 15.0)
NOTICED_S = 60.0

WINDOW = 8
"""Messages that may be on their way at once."""

Start = Callable[..., AgentProcess]
"""Starts another agent on the same state folder; settings with `__` for dots."""


@pytest.fixture
def start_agent(tmp_path: Path) -> Iterator[Start]:
    """Agents that follow one another; killed at the end. None may have failed in a way that leaves a traceback."""
    agents: list[AgentProcess] = []

    def start_one(settings: dict[str, Any]) -> AgentProcess:
        folder = tmp_path / f"agent-{len(agents)}"
        folder.mkdir()
        agents.append(AgentProcess(folder, {"state_dir": tmp_path / "state", **settings}))
        return agents[-1]

    yield start_one
    for agent in agents:
        agent.kill()
        assert "Traceback" not in agent.stderr


@pytest.fixture
def gate(start_mosquitto: StartMosquitto) -> Iterator[Gate]:
    """The door of a broker; shut at first."""
    door = Gate(start_mosquitto().port)
    yield door
    door.shut()


def tell(figures: str) -> None:
    """For docs/reliability.md: `pytest -rP` shows it."""
    sys.stdout.write(f"{figures}\n")


def moments(count: int, among: int) -> list[int]:
    """When to strike: after so many utterances. The first and the last few are spared; seeded."""
    return sorted(random.Random(count).sample(range(5, among - among // 5), count))  # noqa: S311 - repeatable


def test_a_broker_that_is_killed_and_comes_back_empty_loses_nothing(
    start_mosquitto: StartMosquitto, start_agent: Start, tmp_path: Path
) -> None:
    """Every transcript arrives, unchanged; duplicates are the same; the numbers are 1 to n in order, without a gap."""
    broker = start_mosquitto()
    gate = Gate(broker.port)
    recording = chatter(tmp_path / "chatter.wav", UTTERANCES)
    with Receiver(broker.port, qos=0) as receiver:
        gate.open()
        agent = start_agent(chattering(recording, mqtt__port=gate.port, engine__delay_s=0.12))
        for turn, moment in enumerate(moments(KILLS, UTTERANCES)):
            _await_words(agent, moment)
            if turn % 2:
                # What arrives now is not acknowledged any more, and has to come again.
                _await_new_arrival(agent, receiver)  # so it is connected: a handshake, too, wants an answer
                gate.hold_answers()
                _await_new_arrival(agent, receiver)
            _kill_and_restart(broker, gate, receiver)
        assert agent.wait() == 0, agent.stderr
        spoken = said(agent)
        assert eventually(lambda: len({one.seq for one in heard(receiver)}) == len(spoken))
        arrived = heard(receiver)
    gate.shut()
    first = each_once(arrived)
    old = agent.stderr.count("(MQTT 3.1.1)")
    tell(f"{KILLS} kills, {len(spoken)} said, {len(first)} arrived, {len(arrived) - len(first)} duplicates, {old} old")
    assert first == spoken
    assert [one.seq for one in first] == list(range(1, UTTERANCES + 1))
    assert len({one.boot_id for one in first}) == 1
    assert agent.stderr.count("mqtt: connected to") >= KILLS // 2
    assert len(arrived) > len(first), "no acknowledgement was ever lost: this is too easy"


def _await_words(agent: AgentProcess, count: int) -> None:
    """Wait until it has said so many; it must not be through before."""
    assert eventually(lambda: len(said(agent)) >= count or not agent.running, limit_s=4 * LIMIT_S)
    assert agent.running, f"it ended before its time: {agent.stderr}"


def _await_new_arrival(agent: AgentProcess, receiver: Receiver) -> None:
    """Wait until something arrives that was not yet said when this was called; the agent may be reconnecting now."""
    known = len(said(agent))
    assert eventually(lambda: any(one.seq > known for one in heard(receiver))), f"nothing new arrived: {agent.stderr}"
    assert agent.running, f"it ended before its time: {agent.stderr}"


def _kill_and_restart(broker: Mosquitto, gate: Gate, receiver: Receiver) -> None:
    """The agent finds the door shut until the subscriber is back."""
    broker.kill()
    gate.shut()
    assert eventually(lambda: not receiver.subscribed)
    broker.start()
    receiver.await_subscription()
    gate.open()


def test_an_agent_that_is_killed_loses_nothing_that_strict_had_accepted(
    start_agent: Start, gate: Gate, tmp_path: Path
) -> None:
    """What it had accepted arrives, once restarted, numbers go on without a gap; the door is shut now and then."""
    recording = chatter(tmp_path / "chatter.wav", 4 * UTTERANCES // KILLS)
    chance = random.Random(5)  # noqa: S311 - repeatable
    settings = chattering(recording, mqtt__port=gate.port, mqtt__outbox__mode="strict", engine__delay_s=0.02)
    accepted: set[str] = set()
    with Receiver(gate.upstream_port, qos=0) as receiver:
        for _ in range(KILLS):
            reachable = chance.random() < 0.6
            if reachable:
                gate.open()
            agent = start_agent(settings)
            _await_words(agent, chance.randint(1, 2 * UTTERANCES // KILLS))
            time.sleep(chance.uniform(0.0, 0.05))
            agent.kill()
            gate.shut()
            # The last one may have been printed and not stored; one is stored before the next is printed.
            accepted |= {one.id for one in said(agent)[:-1]}
        gate.open()
        last = start_agent(settings)
        assert last.wait() == 0, last.stderr
        accepted |= {one.id for one in said(last)}
        assert eventually(lambda: accepted <= {one.id for one in heard(receiver)})
        arrived = heard(receiver)
    first = each_once(arrived)
    tell(f"{KILLS} kills, {len(accepted)} accepted, {len(first)} arrived, {len(arrived) - len(first)} duplicates")
    assert accepted <= {one.id for one in first}
    assert sorted(one.seq for one in first) == list(range(1, len(first) + 1))
    assert len(first) >= UTTERANCES // 2
    assert len({one.boot_id for one in first}) == 1


def test_a_half_open_connection_is_noticed_and_what_was_said_meanwhile_follows(
    start_agent: Start, gate: Gate, tmp_path: Path
) -> None:
    """Packets vanish for a while: the agent notices within a minute, talks on, and then delivers all, live first."""
    recording = chatter(tmp_path / "chatter.wav", round((HELD_S + AFTER_S) / 0.5))
    settings = chattering(recording, mqtt__port=gate.port, mqtt__keepalive_s=KEEPALIVE_S, engine__delay_s=0.5)
    with Receiver(gate.upstream_port, qos=0) as receiver:
        gate.open()
        agent = start_agent(settings)
        _await_words(agent, 5)
        gate.hold()
        held_s = time.monotonic()
        agent.await_log("mqtt: lost the broker", NOTICED_S)
        noticed_s = time.monotonic() - held_s
        time.sleep(max(0.0, HELD_S - noticed_s))
        before_heal = len(said(agent))
        gate.shut()
        gate.open()
        assert agent.wait() == 0, agent.stderr
        assert eventually(lambda: len({one.seq for one in heard(receiver)}) == len(said(agent)))
        arrived = heard(receiver)
        late = [json.loads(payload)["seq"] for payload in receiver.payloads("transcript/backlog")]
        live = [json.loads(payload)["seq"] for payload in receiver.payloads("transcript")]
    first = each_once(arrived)
    tell(f"noticed after {noticed_s:.1f} s, {before_heal} said until it healed, {len(late)} late, {len(live)} live")
    assert {one.seq for one in first} == set(range(1, len(said(agent)) + 1))
    assert list(dict.fromkeys(live)) == sorted(set(live))
    assert late == sorted(late)
    if FULL:
        assert late, "some of it must have waited for more than a minute"
        order = [one.seq for one in first]
        assert order.index(before_heal) < order.index(late[-1]), "what was said last went first"


LONG = "word " * 1_500
"""A transcript of 7.5 kB: a small disk is soon full of them."""


def test_a_disk_of_2_mb_keeps_nobody_from_speaking(
    start_agent: Start, gate: Gate, mount: Callable[..., Path], tmp_path: Path
) -> None:
    """Through an outage that it has no room for it listens on: `health` knows, drops are counted, the newest arrive."""
    small = mount("-t", "tmpfs", "-o", "size=2m", "tmpfs")
    recording = chatter(tmp_path / "chatter.wav", 120)
    settings = chattering(recording, mqtt__port=gate.port, state_dir=small, engine__texts=[LONG], engine__delay_s=0.1)
    with Receiver(gate.upstream_port, qos=0) as receiver:
        gate.open()
        agent = start_agent(settings)
        _await_words(agent, 10)
        assert eventually(lambda: len(heard(receiver)) >= 10)  # what is under way when the link goes may be dropped
        gate.shut()
        _await_words(agent, 80)
        gate.open()
        assert agent.wait() == 0, agent.stderr
        assert eventually(lambda: receiver.payloads("status")[-1] == "offline")
        first = each_once(heard(receiver))
        spoken = said(agent)
        dropped = counted_drops(receiver)
        codes = problems(receiver)
    tell(f"{len(spoken)} said, {len(first)} arrived, {dropped} counted as dropped")
    assert len(spoken) == 120
    assert set(first) <= set(spoken)
    assert spoken[-30:] == first[-30:]
    assert spoken[:10] == first[:10]
    lost = len(spoken) - len(first)
    # What got through, but not its acknowledgement, counts as dropped where it had to make room.
    assert 0 < lost <= dropped <= lost + WINDOW
    assert codes == {"outbox_disk_full"}


def counted_drops(receiver: Receiver) -> int:
    """Messages that the last telemetry says were given up."""
    last: dict[str, Any] = json.loads(receiver.payloads("telemetry")[-1])
    return int(last["mqtt"]["dropped"])


@pytest.mark.parametrize("mode", ["balanced", "strict"])
def test_a_disk_that_is_read_only_keeps_nobody_from_speaking(
    start_agent: Start, gate: Gate, mount: Callable[..., Path], tmp_path: Path, mode: str
) -> None:
    """What is said arrives, through an outage too; what was stored before follows when the disk works; none is lost."""
    card = mount("-t", "tmpfs", "-o", "size=64m", "tmpfs")
    outbox = {"mqtt__port": gate.port, "mqtt__outbox__mode": mode, "state_dir": card}
    before = start_agent(chattering(chatter(tmp_path / "before.wav", 10), **outbox))
    assert before.wait() != 0, "it could deliver nothing, and is to say so"
    subprocess.run(["mount", "-o", "remount,ro", card], check=True)
    with Receiver(gate.upstream_port, qos=0) as receiver:
        agent = start_agent(chattering(chatter(tmp_path / "chatter.wav", 90), engine__delay_s=0.2, **outbox))
        _await_words(agent, 10)
        gate.open()
        _await_words(agent, 15)
        gate.shut()
        _await_words(agent, 20)
        gate.open()
        _await_words(agent, 30)
        assert eventually(lambda: {one.seq for one in heard(receiver)} >= set(range(11, 31)))
        subprocess.run(["mount", "-o", "remount,rw", card], check=True)
        assert agent.wait() == 0, agent.stderr
        assert eventually(lambda: receiver.payloads("status")[-1] == "offline")
        spoken = said(before) + said(agent)
        first = each_once(heard(receiver))
        healths = [json.loads(payload)["codes"] for payload in receiver.payloads("health")]
        dropped = counted_drops(receiver)
    tell(f"{mode}: {len(spoken)} said, {len(first)} arrived, {dropped} counted as dropped")
    assert sorted(first, key=lambda one: one.seq) == spoken
    assert [one.seq for one in spoken] == list(range(1, 101))
    assert dropped == 0
    assert list(dict.fromkeys(tuple(codes) for codes in healths)) == [("outbox_read_only",), ()]


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_damaged_database_keeps_nobody_from_speaking(
    start_agent: Start, gate: Gate, tmp_path: Path, share: float
) -> None:
    """What is said now arrives live, what can be saved of before comes unaltered, and `health` knows."""
    settings = chattering(chatter(tmp_path / "chatter.wav", 60), mqtt__port=gate.port, engine__delay_s=0.05)
    before = start_agent(settings)
    assert before.wait() != 0, "it could deliver nothing, and is to say so"
    damage(tmp_path / "state" / "outbox.db", share)
    with Receiver(gate.upstream_port, qos=0) as receiver:
        gate.open()
        agent = start_agent(settings)
        assert agent.wait() == 0, agent.stderr
        assert eventually(lambda: receiver.payloads("status")[-1] == "offline")
        first = each_once(heard(receiver))
        codes = problems(receiver)
    saved = [one for one in first if one in said(before)]
    tell(f"garbage at {share:.0%}: {len(saved)} of {len(said(before))} saved, {len(first) - len(saved)} new arrived")
    assert [one for one in first if one not in saved] == said(agent), "in order and unaltered, like those saved"
    assert len(said(agent)) == 60
    # Of 60: it depends on which page of a small database the garbage hits. Without the first page nothing can be read.
    assert len(saved) >= (20 if share else 0)
    assert codes == {"outbox_corrupt"}


def damage(path: Path, share: float) -> None:
    """Overwrite 3,000 bytes, `share` of the way into the file."""
    with path.open("r+b") as file:
        file.seek(int(share * path.stat().st_size))
        file.write(random.Random(share).randbytes(3_000))  # noqa: S311 - repeatable
