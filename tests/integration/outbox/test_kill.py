"""The agent is killed -9 while it speaks."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import ConfigError
from agent.outbox.clock import Stamp
from tests.clock import FakeClock
from tests.integration.outbox.conftest import Open, deliver_all, say

ROOT = Path(__file__).parents[3]
KILLS = 20


def speak_until_killed(mode: str, folder: Path, memory: Path, for_s: float, pause_s: float = 0.0) -> list[int]:
    """Run the writer for `for_s` from its first word, kill it, and return the numbers it had put."""
    command = [sys.executable, str(Path(__file__).with_name("writer.py")), mode, str(folder), str(memory), str(pause_s)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout
        first = child.stdout.readline()
        assert first, "the writer has not come to its first word"
        time.sleep(for_s)
        child.kill()
        rest = child.stdout.read().splitlines(keepends=True)
    return [int(line) for line in [first, *rest] if line.endswith(b"\n")]


@pytest.fixture
def real_now() -> Callable[[FakeClock], None]:
    """Brings the test's clock to the boot of the writers."""

    def set_clock(clock: FakeClock) -> None:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        clock.now = Stamp(boot_id, time.monotonic(), time.time(), synced=True)

    return set_clock


def test_strict_loses_nothing_and_counts_without_gaps_through_20_kills(
    tmp_path: Path, open_outbox: Open, clock: FakeClock, real_now: Callable[[FakeClock], None]
) -> None:
    """Every transcript whose `put` had returned is there after 20 kills at random moments, and so is every number."""
    chance = random.Random(4)  # noqa: S311 - repeatable
    accepted: list[int] = []
    for _ in range(KILLS):
        accepted += speak_until_killed("strict", tmp_path, tmp_path, chance.uniform(0.0, 0.3))
    real_now(clock)
    outbox = open_outbox(tmp_path, mode="strict")
    kept = deliver_all(outbox, clock)
    assert set(accepted) <= set(kept)
    assert kept == list(range(1, len(kept) + 1))
    assert outbox.next_seq() == len(kept) + 1
    assert outbox.dropped == 0
    assert outbox.conditions == ()


def test_balanced_loses_at_most_two_seconds_and_a_missing_number_is_a_lost_transcript(
    tmp_path: Path, open_outbox: Open, clock: FakeClock, real_now: Callable[[FakeClock], None]
) -> None:
    """What a kill took from memory is as long as the grace at most; no number is used again for other words."""
    memory = tmp_path / "memory"
    memory.mkdir()
    accepted = [speak_until_killed("balanced", tmp_path, memory, 2.6, pause_s=0.05) for _ in range(3)]
    real_now(clock)
    kept = set(deliver_all(open_outbox(tmp_path), clock))
    for numbers in accepted:
        lost = [number for number in numbers if number not in kept]
        assert lost == numbers[len(numbers) - len(lost) :]
        assert 0 < len(lost) <= 2.5 / 0.05
    everything = [number for numbers in accepted for number in numbers]
    assert len(set(everything)) == len(everything)
    # Killed between counting and telling us, a writer may have used one number more than it told.
    assert max(everything) <= len(everything) + len(accepted)


def test_a_second_agent_on_the_same_folder_is_refused_and_told_why(
    tmp_path: Path, open_outbox: Open, clock: FakeClock
) -> None:
    """Two agents in one folder would steal each other's messages; the first goes on undisturbed."""
    first = open_outbox(tmp_path)
    with pytest.raises(
        ConfigError, match=rf"in use by another edgescribe \(process {os.getpid()}\): stop that one, or"
    ):
        open_outbox(tmp_path)
    assert say(first, clock, 1) == [1]
    first.close()
    assert say(open_outbox(tmp_path), clock, 1) == [2]
