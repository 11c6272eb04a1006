"""Power cuts, the real thing but for the plug: `pytest -m power_cut -rP` prints the figures of docs/reliability.md."""

import os
import random
from pathlib import Path

import pytest

from agent.config.settings import OutboxSettings
from agent.mqtt.outbox import StoredOutbox
from agent.worker import Worker
from tests.clock import FakeClock
from tests.deploy.power_cut.machine import Machine, Session, missing
from tests.integration.outbox.conftest import deliver_all

pytestmark = [
    pytest.mark.power_cut,
    pytest.mark.slow,
    pytest.mark.timeout(1_200),
    pytest.mark.skipif(bool(missing()), reason=f"needs user-mode-linux and e2fsprogs: {', '.join(missing())}"),
]

CUTS = int(os.environ.get("EDGESCRIBE_POWER_CUTS", "20"))


def cut(machine: Machine, times: int, within_s: float = 2.0) -> list[Session]:
    """Run and cut at random moments."""
    chance = random.Random(6)  # noqa: S311 - repeatable
    return [machine.run(chance.uniform(0.0, within_s)) for _ in range(times)]


def what_is_left(machine: Machine) -> list[int]:
    """Numbers of all transcripts on the card."""
    failures: list[Worker] = []
    clock = FakeClock()
    outbox = StoredOutbox(OutboxSettings(max_free_pct=50), machine.remove_card(), failures.append, clock=clock)
    kept = deliver_all(outbox, clock)
    outbox.close()
    assert failures == []
    return kept


def test_strict_loses_no_accepted_transcript_in_power_cuts(tmp_path: Path) -> None:
    """After each cut the database is sound and whole, and in the end every accepted number is there, without a gap."""
    machine = Machine(tmp_path, "strict")
    sessions = cut(machine, CUTS)
    kept = what_is_left(machine)
    accepted = [seq for session in sessions for seq in session.accepted]
    lost = sorted(set(accepted) - set(kept))
    print(f"strict: {CUTS} cuts, {len(accepted)} accepted, {len(kept)} kept, {len(lost)} lost")  # noqa: T201 - figures
    assert lost == []
    assert kept == list(range(1, len(kept) + 1))
    assert {session.condition for session in sessions} == {"sound"}
    before = 0
    for session in sessions:
        # One more than was accepted may be on the card: the power went between the commit and the console.
        assert before <= session.found <= before + 1
        assert session.accepted == tuple(range(session.found + 1, session.found + 1 + len(session.accepted)))
        before = session.accepted[-1]
    assert len(accepted) > 5 * CUTS


def test_without_syncs_accepted_transcripts_are_lost(tmp_path: Path) -> None:
    """The rig sees what it is there to see: the same outbox, told not to sync, loses what it had accepted."""
    machine = Machine(tmp_path, "careless")
    accepted = [seq for session in cut(machine, 2) for seq in session.accepted]
    assert set(accepted) - set(what_is_left(machine))


def test_balanced_loses_the_last_seconds_of_an_outage_and_repeats_no_number(tmp_path: Path) -> None:
    """What was longer than the grace ago is there; a number that was used for lost words is not used for others."""
    cuts = max(2, CUTS // 4)
    machine = Machine(tmp_path, "balanced")
    sessions = cut(machine, cuts, within_s=8.0)
    kept = what_is_left(machine)
    accepted = [seq for session in sessions for seq in session.accepted]
    lost = set(accepted) - set(kept)
    print(f"balanced: {cuts} cuts, {len(accepted)} accepted, {len(kept)} kept, {len(lost)} lost")  # noqa: T201 - figures
    assert lost
    assert kept
    assert len(set(accepted)) == len(accepted)
    assert {session.condition for session in sessions} == {"sound"}
    for session in sessions:
        missing_here = [seq for seq in session.accepted if seq not in kept]
        assert missing_here == list(session.accepted[len(session.accepted) - len(missing_here) :])
