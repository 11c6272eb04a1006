"""The wall clock of the whole agent jumps; its monotonic clock stays true, as it does when NTP or a person sets it."""

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.agent_process import AgentProcess
from tests.support.endurance import chatter, chattering, each_once, heard, said
from tests.support.gate import Gate
from tests.support.mosquitto import StartMosquitto
from tests.support.receiver import Receiver, eventually

pytestmark = [pytest.mark.mosquitto, pytest.mark.timeout(600)]

UTTERANCES = 60
LIMIT_S = 240.0


class WallClock:
    """The wall clock of a process that is started with `environment`: a few lines of C before libc's own."""

    def __init__(self, folder: Path) -> None:
        library, self._file = folder / "jumping_clock.so", folder / "clock"
        source = Path(__file__).with_name("jumping_clock.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
        self.jump(timedelta())
        self.environment = {"LD_PRELOAD": str(library), "JUMPING_CLOCK": str(self._file)}

    def jump(self, off: timedelta) -> None:
        """From now on it is off by so much."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{off.total_seconds():.0f}", encoding="ascii")
        new.replace(self._file)


@pytest.fixture
def gate(start_mosquitto: StartMosquitto) -> Iterator[Gate]:
    """The door of a broker; shut at first."""
    door = Gate(start_mosquitto().port)
    yield door
    door.shut()


def test_a_clock_that_jumps_expires_nothing_and_delays_nothing(gate: Gate, tmp_path: Path) -> None:
    """A month ahead and more than a year back, while the broker is away: all that was said arrives, soon after it."""
    clock = WallClock(tmp_path)
    recording = chatter(tmp_path / "chatter.wav", UTTERANCES)
    settings = chattering(recording, mqtt__port=gate.port, engine__delay_s=0.2)
    with Receiver(gate.upstream_port, qos=0) as receiver:
        agent = AgentProcess(tmp_path, settings, **clock.environment)
        try:
            for words, off in ((10, timedelta(days=30)), (20, timedelta(days=-400)), (30, timedelta())):
                assert eventually(lambda count=words: len(said(agent)) >= count, LIMIT_S), agent.stderr  # type: ignore[misc]
                clock.jump(off)
            gate.open()
            assert agent.wait(LIMIT_S) == 0, agent.stderr
            spoken = said(agent)
            assert eventually(lambda: len({one.seq for one in heard(receiver)}) == len(spoken), LIMIT_S)
            arrived = each_once(heard(receiver))
        finally:
            agent.kill()
    assert len(spoken) == UTTERANCES
    assert sorted(arrived, key=lambda one: one.seq) == spoken
    stamps = [datetime.fromisoformat(stamp) for stamp in (_stamp(one.content) for one in spoken)]
    ages = [datetime.now(UTC) - stamp for stamp in stamps]
    assert min(ages) < timedelta(days=-20)  # it did jump, both ways
    assert max(ages) > timedelta(days=300)
    assert "Traceback" not in agent.stderr


def _stamp(content: str) -> str:
    """When a message was made, by the clock of its time."""
    return str(json.loads(content)["ts"])
