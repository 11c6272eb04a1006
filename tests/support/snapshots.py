"""Moments in the life of a device, as telemetry has them."""

from agent.messages.telemetry import Cpu, Disk, Mem, Mqtt, TelemetryMessage
from agent.telemetry.counters import Counters
from agent.telemetry.snapshot import HostReading, Snapshot
from tests.messages import NOON

NOTHING = HostReading(Cpu(), Mem(), Disk())
LINK = Mqtt(outbox_n=3, outbox_mb=0.5, dropped=1, reconnects=2, puback_ms_p95=7)


def snapshot(
    host: HostReading = NOTHING,
    counters: Counters | None = None,
    mqtt: Mqtt | None = LINK,
    problems: tuple[str, ...] = (),
) -> Snapshot:
    """A moment at which that is known."""
    counters = counters or Counters()
    telemetry = TelemetryMessage(
        ts=NOON,
        up_s=61,
        **{name: getattr(host, name) for name in HostReading.__slots__},
        audio=counters.audio(),
        asr=counters.asr(waiting=1),
        mqtt=mqtt,
    )
    totals = counters.totals()
    return Snapshot(telemetry, totals["heard_s"], totals["speech_s"], counters.histograms(), problems)
