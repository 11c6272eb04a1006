import itertools
from dataclasses import dataclass, field
from typing import cast

import pytest

from agent.config.settings import TelemetrySettings
from agent.messages import Health, Message
from agent.messages.telemetry import Cpu, Disk, Mem, Mqtt, Pwr, TelemetryMessage
from agent.mqtt.client import MqttSink
from agent.mqtt.publisher import Publisher
from agent.mqtt.reporting import Surveyor, TelemetryReporter
from agent.segmenter import ListenCounters, Listener
from agent.telemetry.counters import Counters
from agent.telemetry.host import Host, HostReading
from agent.telemetry.vitals import Vitals, VitalsWatch
from tests.messages import latency

INTERVAL_S = 60.0
STARTED_S = 5_000.0


class StillHost:
    """A machine on which nothing happens."""

    def read(self) -> HostReading:
        """Always the same."""
        return HostReading(Cpu(pct=12.0), Mem(rss_mb=61.0), Disk())


@dataclass
class StillWatch:
    """Vitals as the test says."""

    latest: Vitals = field(default_factory=lambda: Vitals(at_s=STARTED_S))


@dataclass
class StillListener:
    """A listener that has heard what the test says."""

    counters: ListenCounters = field(default_factory=ListenCounters)
    noise_floor_dbfs: float | None = None


class Queue:
    """Two utterances wait for the engine."""

    waiting = 2


class Link:
    """A broker's link with something to tell."""

    stats = Mqtt(outbox_n=3, dropped=0, reconnects=1)


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

    def __init__(self, monkeypatch: pytest.MonkeyPatch, link: Link | None) -> None:
        self.now_s = STARTED_S
        self.listener = StillListener()
        self.counters = Counters()
        self.watch = StillWatch()
        self.sink = Collector()
        monkeypatch.setattr("agent.mqtt.reporting.time.monotonic", lambda: self.now_s)
        self._link = link
        self._publisher = Publisher(self.counters, "boot")
        self._publisher.open([self.sink])
        watch, host = cast("VitalsWatch", self.watch), cast("Host", StillHost())
        self._reporter = TelemetryReporter(
            TelemetrySettings(interval_s=INTERVAL_S),
            "pi-1",
            Surveyor(host, watch, self.counters, Queue(), STARTED_S),
            self.counters,
            cast("Listener", self.listener),
        )

    def run_for(self, seconds: int) -> list[TelemetryMessage]:
        """Tick once a second; return the telemetry of that time."""
        self.sink.sent.clear()
        for _ in range(seconds):
            self.now_s += 1.0
            self._reporter.tick(self.watch.latest, self._publisher, cast("MqttSink | None", self._link))
        return [message for message in self.sink.sent if isinstance(message, TelemetryMessage)]


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    """With a link to a broker."""
    return Rig(monkeypatch, Link())


def test_telemetry_comes_at_its_interval(rig: Rig) -> None:
    """About once a minute, the first within the first one; `up_s` is the age of the agent."""
    messages = rig.run_for(600)
    assert 9 <= len(messages) <= 11
    assert messages[0].up_s <= INTERVAL_S
    gaps_s = [later.up_s - earlier.up_s for earlier, later in itertools.pairwise(messages)]
    assert all(0.9 * INTERVAL_S - 1 <= gap_s <= 1.1 * INTERVAL_S + 1 for gap_s in gaps_s)


def test_a_message_puts_together_what_is_known(rig: Rig) -> None:
    """The machine, its power, the stages' counters, the queue and the link each have their part."""
    rig.watch.latest = Vitals(at_s=STARTED_S, undervoltage=False, undervoltage_events=4)
    rig.counters.transcribed(rtf=0.25, latency=latency(900))
    message = rig.run_for(70)[0]
    assert (message.cpu.pct, message.mem.rss_mb, message.asr.utt, message.mqtt) == (12.0, 61.0, 1, Link.stats)
    assert message.asr.waiting == Queue.waiting
    assert message.pwr == Pwr(uv_now=False, uv_events=4)


def test_trouble_with_the_machine_does_not_wait_for_telemetry(rig: Rig) -> None:
    """`health` says at the next tick what is wrong, and what is not any more; once each."""
    rig.watch.latest = Vitals(at_s=STARTED_S, undervoltage=True, cpu_temp_c=84.0)
    rig.run_for(2)
    health = [message for message in rig.sink.sent if isinstance(message, Health)]
    assert health[-1].codes == ("undervoltage", "hot")
    rig.watch.latest = Vitals(at_s=STARTED_S + 60.0, undervoltage=False, cpu_temp_c=60.0)
    rig.run_for(3)
    assert [message.codes for message in rig.sink.sent if isinstance(message, Health)][-1] == ()


def test_without_a_broker_there_is_no_part_about_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left out, not zero."""
    message = Rig(monkeypatch, None).run_for(70)[0]
    assert b'"mqtt"' not in message.payload()


def test_the_share_of_speech_is_that_of_all_sound(rig: Rig) -> None:
    """What was heard is brought over from the listener once, however often telemetry is sent."""
    rig.listener.counters.heard_samples = 100 * 16_000
    rig.counters.spoken(25.0)
    assert [message.asr.speech_pct for message in rig.run_for(190)] == [25.0, 25.0, 25.0]
    rig.listener.counters.heard_samples = 200 * 16_000
    assert rig.run_for(70)[-1].asr.speech_pct == 12.5


def test_the_noise_floor_is_told_once_it_is_known(rig: Rig) -> None:
    """An unknown level is left out."""
    assert rig.run_for(70)[-1].audio.noise_floor_dbfs is None
    rig.listener.noise_floor_dbfs = -54.32
    assert rig.run_for(70)[-1].audio.noise_floor_dbfs == -54.3
