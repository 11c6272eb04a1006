import random
from dataclasses import dataclass, field
from itertools import pairwise
from typing import cast

import pytest

from agent.config.settings import TelemetrySettings
from agent.messages import Health, Message
from agent.messages.telemetry import Cpu, Disk, Mem, Mqtt, Pwr, TelemetryMessage
from agent.mqtt.publisher import Publisher
from agent.mqtt.reporting import TelemetryReporter, TelemetrySchedule
from agent.segmenter import Listener
from agent.telemetry.counters import Counters
from agent.telemetry.snapshot import HostReading, Snapshot, take_snapshot
from agent.telemetry.vitals import Vitals
from tests.messages import latency

INTERVAL_S = 60.0
STARTED_S = 5_000.0


class StillHost:
    """A machine on which nothing happens."""

    def read(self, vitals: Vitals) -> HostReading:
        """Always the same."""
        return HostReading(Cpu(pct=12.0), Mem(rss_mb=61.0), Disk(), pwr=vitals.power)


@dataclass
class StillWatch:
    """Vitals as the test says."""

    latest: Vitals = field(default_factory=lambda: Vitals(at_s=STARTED_S))


@dataclass
class StillListener:
    """A listener that has heard what the test says."""

    heard_s: float = 0.0
    noise_floor_dbfs: float | None = None


WAITING = 2
"""Utterances that wait for the engine."""
LINK = Mqtt(outbox_n=3, dropped=0, reconnects=1)
"""What a broker's link tells."""


class Collector:
    """A sink that keeps what it is sent."""

    def __init__(self) -> None:
        self.sent: list[Message] = []

    def send(self, message: Message) -> None:
        """Keep it."""
        self.sent.append(message)

    def close(self, _timeout_s: float) -> int:
        """Nothing is lost."""
        return 0


class Rig:
    """A reporter with a clock that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, link: Mqtt | None) -> None:
        self.now_s = STARTED_S
        self.listener = StillListener()
        self.counters = Counters()
        self.watch = StillWatch()
        self.sink = Collector()
        monkeypatch.setattr("agent.mqtt.reporting.time.monotonic", lambda: self.now_s)
        self._publisher = Publisher(self.counters, "boot")
        self._publisher.open([self.sink])

        def moment() -> Snapshot:
            reading, problems = StillHost().read(self.watch.latest), self._publisher.problems
            return take_snapshot(
                reading, self.counters, waiting=WAITING, started_s=STARTED_S, mqtt=link, problems=problems
            )

        self._reporter = TelemetryReporter(
            TelemetrySettings(interval_s=INTERVAL_S),
            "pi-1",
            moment,
            self.counters,
            cast("Listener", self.listener),
        )

    def run_for(self, seconds: int) -> list[TelemetryMessage]:
        """Tick once a second; return the telemetry of that time."""
        self.sink.sent.clear()
        for _ in range(seconds):
            self.now_s += 1.0
            self._reporter.tick(self.watch.latest, self._publisher)
        return [message for message in self.sink.sent if isinstance(message, TelemetryMessage)]


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    """With a link to a broker."""
    return Rig(monkeypatch, LINK)


def test_telemetry_comes_at_its_interval(rig: Rig) -> None:
    """About once a minute, the first within the first one; `up_s` is the age of the agent."""
    messages = rig.run_for(600)
    assert 9 <= len(messages) <= 11
    assert messages[0].up_s <= INTERVAL_S
    gaps_s = [later.up_s - earlier.up_s for earlier, later in pairwise(messages)]
    assert all(0.9 * INTERVAL_S - 1 <= gap_s <= 1.1 * INTERVAL_S + 1 for gap_s in gaps_s)


def test_a_message_puts_together_what_is_known(rig: Rig) -> None:
    """The machine, its power, the stages' counters, the queue and the link each have their part."""
    rig.watch.latest = Vitals(at_s=STARTED_S, power=Pwr(uv_now=False, uv_events=4))
    rig.counters.transcribed(rtf=0.25, latency=latency(900))
    message = rig.run_for(70)[0]
    assert (message.cpu.pct, message.mem.rss_mb, message.asr.utt, message.mqtt) == (12.0, 61.0, 1, LINK)
    assert message.asr.waiting == WAITING
    assert message.pwr == Pwr(uv_now=False, uv_events=4)


def test_trouble_with_the_machine_does_not_wait_for_telemetry(rig: Rig) -> None:
    """`health` says at the next tick what is wrong, and what is not any more; once each."""
    rig.watch.latest = Vitals(at_s=STARTED_S, power=Pwr(uv_now=True), cpu_temp_c=84.0)
    rig.run_for(2)
    health = [message for message in rig.sink.sent if isinstance(message, Health)]
    assert health[-1].codes == ("undervoltage", "hot")
    rig.watch.latest = Vitals(at_s=STARTED_S + 60.0, power=Pwr(uv_now=False), cpu_temp_c=60.0)
    rig.run_for(3)
    assert [message.codes for message in rig.sink.sent if isinstance(message, Health)][-1] == ()


def test_without_a_broker_there_is_no_part_about_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left out, not zero."""
    message = Rig(monkeypatch, None).run_for(70)[0]
    assert b'"mqtt"' not in message.payload()


def test_the_share_of_speech_is_that_of_all_sound(rig: Rig) -> None:
    """What was heard is brought over from the listener once, however often telemetry is sent."""
    rig.listener.heard_s = 100.0
    rig.counters.add("speech_s", 25.0)
    assert [message.asr.speech_pct for message in rig.run_for(190)] == [25.0, 25.0, 25.0]
    rig.listener.heard_s = 200.0
    assert rig.run_for(70)[-1].asr.speech_pct == 12.5


def test_the_noise_floor_is_told_once_it_is_known(rig: Rig) -> None:
    """An unknown level is left out."""
    assert rig.run_for(70)[-1].audio.noise_floor_dbfs is None
    rig.listener.noise_floor_dbfs = -54.32
    assert rig.run_for(70)[-1].audio.noise_floor_dbfs == -54.3


Seeded = random.Random
"""Chance that repeats itself."""


def due_times(schedule: TelemetrySchedule, until_s: float) -> list[float]:
    """When it was due, looking every tenth of a second."""
    return [tick / 10 for tick in range(int(until_s * 10)) if schedule.due(tick / 10)]


def test_messages_keep_their_distance_within_a_tenth() -> None:
    """Every 60 s, never sooner than 54 and never later than 66 (and a look)."""
    times = due_times(TelemetrySchedule(60.0, "pi-1", 0.0, Seeded(1)), 7_200.0)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert len(times) > 100
    assert all(54.0 <= gap <= 66.2 for gap in gaps)
    assert max(gaps) - min(gaps) > 6.0


def test_a_fleet_that_starts_together_is_spread_over_the_interval() -> None:
    """Of a hundred devices started at once, no tenth of the interval gets more than twice its share."""
    first = [TelemetrySchedule(60.0, f"pi-{number}", 1_000.0, Seeded(1)).next_s for number in range(100)]
    shares = [sum(1_000 + tenth * 6 <= at < 1_006 + tenth * 6 for at in first) for tenth in range(10)]
    assert sum(shares) == 100
    assert max(shares) <= 20


def test_a_device_keeps_its_phase_from_start_to_start() -> None:
    """The id decides, not chance."""
    one, two = (TelemetrySchedule(60.0, "pi-1", 0.0, Seeded(seed)) for seed in (1, 2))
    assert one.next_s == two.next_s


def test_what_was_missed_is_not_made_up() -> None:
    """After a suspended hour one message is due, not sixty."""
    schedule = TelemetrySchedule(60.0, "pi-1", 0.0, Seeded(1))
    assert schedule.due(3_600.0)
    assert not schedule.due(3_600.1)
