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
    return Snapshot(telemetry, counters.totals(), counters.distributions(), problems)


def distribution(counters: Counters, name: str) -> dict[str, float]:
    """The samples of a histogram: buckets by their bounds, `sum` and `count`; behind the stage, if there are stages."""
    (family,) = (family for family in counters.distributions() if family.name == f"edgescribe_{name}")
    found = {}
    for sample in family.samples:
        what = sample.labels.get("le") or sample.name.rpartition("_")[2]
        found[f"{sample.labels.get('stage', '')} {what}".strip()] = sample.value
    return found
