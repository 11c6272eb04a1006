import itertools
from dataclasses import dataclass, field
from typing import cast

import pytest

from agent.config import TelemetrySettings
from agent.listen import ListenCounters, Listener
from agent.publishing.reporting import TelemetryReporter
from agent.sinks.mqtt import MqttSink
from agent.telemetry.counters import Counters
from agent.telemetry.host import Host, HostReading
from agent.wire import Cpu, Disk, Mem, Message, Mqtt, TelemetryMessage

INTERVAL_S = 60.0
STARTED_S = 5_000.0


class StillHost:
    """A machine on which nothing happens."""

    def read(self) -> HostReading:
        """Always the same."""
        return HostReading(Cpu(pct=12.0), Mem(rss_mb=61.0), Disk())


@dataclass
class StillListener:
    """A listener that has heard what the test says."""

    counters: ListenCounters = field(default_factory=ListenCounters)
    noise_floor_dbfs: float | None = None


class Link:
    """A broker's link with something to tell."""

    stats = Mqtt(outbox_n=3, dropped=0, reconnects=1)


class Rig:
    """A reporter with a clock that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, link: Link | None) -> None:
        self.now_s = STARTED_S
        self.listener = StillListener()
        self.counters = Counters()
        self.sent: list[Message] = []
        monkeypatch.setattr("agent.publishing.reporting.time.monotonic", lambda: self.now_s)
        self._reporter = TelemetryReporter(
            TelemetrySettings(interval_s=INTERVAL_S),
            "pi-1",
            cast("Host", StillHost()),
            self.counters,
            cast("Listener", self.listener),
            cast("MqttSink | None", link),
        )

    def run_for(self, seconds: int) -> list[TelemetryMessage]:
        """Tick once a second; return what was sent in that time."""
        self.sent.clear()
        for _ in range(seconds):
            self.now_s += 1.0
            self._reporter.tick(self.sent.append)
        return [message for message in self.sent if isinstance(message, TelemetryMessage)]


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
    """The machine, the stages' counters and the link each have their part."""
    rig.counters.transcribed(rtf=0.25, latency_ms=900)
    message = rig.run_for(70)[0]
    assert (message.cpu.pct, message.mem.rss_mb, message.asr.utt, message.mqtt) == (12.0, 61.0, 1, Link.stats)


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
