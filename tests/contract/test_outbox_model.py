"""Random steps against the outbox: words come and go, the agent is killed, the disk is full, clocks jump."""

import json
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from agent.config.settings import OutboxSettings
from agent.mqtt.delivery import Outgoing, PublishResult
from agent.mqtt.outbox import StoredOutbox
from agent.mqtt.sequence import BLOCK
from agent.worker import Worker
from tests.clock import FakeClock
from tests.messages import transcript

YEAR_S = 31_536_000.0
MEMORY = Path("/dev/shm")  # noqa: S108 - hundreds of agents start and stop here, and wait for no disk


class Machine(RuleBasedStateMachine):
    """Agents that follow one another on one state folder.

    Invariants: every message waits, is in flight, or has ended and was counted; it comes out as it went in; no number
    is used twice; a message that the disk has taken is delivered, or counted as dropped.
    """

    mode: str

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        (self.root / "memory").mkdir()
        self.clock = FakeClock()
        self.failures: list[Worker] = []
        self.last_seq = self.gap = self.boots = 0
        self.alive: set[int] = set()
        """Numbers of the messages that this agent has, or had and the next one must have."""
        self.safe: set[int] = set()
        """Those that the disk has taken."""
        self.delivered: set[int] = set()
        self.dropped_before = 0
        self.open()

    def open(self) -> None:
        """Start an agent."""
        self.outbox = StoredOutbox(
            OutboxSettings.model_validate({"mode": self.mode, "max_messages": 12, "max_free_pct": 50}),
            self.root / "state",
            self.failures.append,
            memory_folder=self.root / "memory",
            clock=self.clock,
            chance=random.Random(1),  # noqa: S311 - jitter, not a secret
        )
        self.in_flight: dict[int, Outgoing] = {}
        self.accepted, self.ended = self.outbox.pending + self.outbox.dropped, 0

    @rule(count=st.integers(1, 8))
    def put(self, count: int) -> None:
        """Words are said."""
        for _ in range(count):
            seq = self.outbox.next_seq()
            assert self.last_seq < seq <= self.last_seq + 1 + self.gap
            self.last_seq, self.gap = seq, 0
            self.outbox.put(Outgoing.of("pi-1", transcript(seq, f"word {seq}"), self.clock.now.monotonic_s))
            self.accepted += 1
            self.alive.add(seq)
            if self.mode == "strict" and not self.outbox.conditions:
                self.safe.add(seq)

    @rule(count=st.integers(1, 5))
    def take(self, count: int) -> None:
        """The sink publishes, also what it has to wait for a little."""
        for _ in range(count):
            due_in_s = self.outbox.due_in_s()
            self.clock.advance(due_in_s if due_in_s < 60 else 0.0)
            if message := self.outbox.take():
                payload: dict[str, Any] = json.loads(message.payload)
                assert payload["text"] == f"word {payload['seq']}"
                assert payload["seq"] not in self.in_flight
                self.in_flight[payload["seq"]] = message

    @precondition(lambda self: self.in_flight)
    @rule(results=st.lists(st.sampled_from(PublishResult), min_size=1, max_size=5))
    def acknowledge(self, results: list[PublishResult]) -> None:
        """The broker answers the oldest."""
        for result, seq in zip(results, sorted(self.in_flight), strict=False):
            self.outbox.acknowledge(self.in_flight.pop(seq), result)
            if result is PublishResult.DELIVERED:
                self.delivered.add(seq)
                self.ended += 1

    @rule()
    def requeue(self) -> None:
        """The connection is lost."""
        self.outbox.requeue()
        self.in_flight.clear()

    @rule()
    def flush(self) -> None:
        """All is written, if the disk takes it."""
        self.outbox.flush()
        if not self.outbox.conditions:
            self.safe |= self.alive

    @rule(seconds=st.sampled_from([0.5, 3.0, 11.0, 61.0, 901.0]))
    def wait(self, seconds: float) -> None:
        """Time passes, and the outbox does what is due."""
        self.clock.advance(seconds)
        self.outbox._write(everything=False)

    @rule(years=st.sampled_from([-20, -1, 1, 20]))
    def jump(self, years: int) -> None:
        """The wall clock is set."""
        self.clock.jump_wall(years * YEAR_S)

    @rule()
    def fill_disk(self) -> None:
        """The database cannot grow, until the outbox looks for room again."""
        self.pragma("max_page_count = 1")

    @rule(read_only=st.booleans())
    def remount(self, *, read_only: bool) -> None:
        """The database cannot be written, or can be again."""
        self.pragma(f"query_only = {int(read_only)}")

    def pragma(self, text: str) -> None:
        """Set something behind the outbox's back."""
        with self.outbox._store.lock:
            assert self.outbox._store._db
            self.outbox._store._db.execute(f"PRAGMA {text}")

    @rule()
    def purge(self) -> None:
        """All that waits is forgotten."""
        before = self.outbox.pending
        count = self.outbox.purge()
        assert before - count == len(self.in_flight)
        self.ended += count
        self.alive &= self.in_flight.keys()
        self.safe &= self.alive

    @rule()
    def kill(self) -> None:
        """The next agent finds what this one has left at this moment."""
        self.replace_agent()

    @precondition(lambda self: not self.outbox.conditions)
    @rule()
    def cut_power(self) -> None:
        """Likewise, but the memory is lost, and the next agent is in another boot."""
        self.replace_agent(reboot=True)

    def replace_agent(self, *, reboot: bool = False) -> None:
        """Start the next agent on copies of the folders; the end of this one changes nothing of them."""
        with self.outbox._store.lock:
            for folder in ("state", "memory"):
                shutil.copytree(self.root / folder, self.root / "then" / folder)
        self.dropped_before += self.outbox.dropped
        self.outbox.close()
        for folder in ("state", "memory"):
            shutil.rmtree(self.root / folder)
            (self.root / "then" / folder).rename(self.root / folder)
        if reboot:
            self.boots += 1
            self.clock.reboot(f"boot-{self.boots + 1}")
            self.gap = BLOCK if self.mode == "balanced" else 0
        self.alive &= self.safe
        self.open()

    @invariant()
    def every_message_is_accounted_for(self) -> None:
        """None vanishes."""
        assert self.outbox.pending + self.outbox.dropped + self.ended == self.accepted

    def teardown(self) -> None:
        """The disk works again, and all goes: live words first, each kind in order."""
        self.pragma("query_only = 0")
        self.clock.advance(11)
        self.outbox.flush()
        assert self.outbox.conditions == ()
        self.requeue()
        taken: dict[str, list[int]] = {}
        while (due_in_s := self.outbox.due_in_s()) != float("inf"):
            self.clock.advance(due_in_s)
            while message := self.outbox.take():
                taken.setdefault(message.topic, []).append(json.loads(message.payload)["seq"])
                self.outbox.acknowledge(message, PublishResult.DELIVERED)
        assert all(seqs == sorted(set(seqs)) for seqs in taken.values())
        self.delivered.update(*taken.values())
        assert len(self.safe - self.delivered) <= self.dropped_before + self.outbox.dropped
        assert (self.outbox.pending, self.outbox.close()) == (0, 0)
        assert [worker.failure for worker in self.failures] == []
        shutil.rmtree(self.root)


@pytest.mark.parametrize("mode", ["balanced", "strict"])
@pytest.mark.parametrize("examples", [15, pytest.param(500, marks=[pytest.mark.slow, pytest.mark.timeout(1_800)])])
def test_no_message_and_no_number_is_lost_or_doubled(mode: str, examples: int) -> None:
    """Whatever happens in whatever order."""
    machine = type("OutboxMachine", (Machine,), {"mode": mode})
    config = settings(
        max_examples=examples, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(machine, settings=config)
