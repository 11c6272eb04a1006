"""One telemetry message from all that is known."""

from datetime import datetime

from agent.telemetry.counters import Counters
from agent.telemetry.host import HostReading
from agent.wire import Mqtt, TelemetryMessage


def telemetry_message(
    host: HostReading, counters: Counters, mqtt: Mqtt | None, *, now: datetime, up_s: float
) -> TelemetryMessage:
    """Put the parts together; `mqtt` is None where nothing is published over MQTT, `up_s` the age of the agent."""
    return TelemetryMessage(
        ts=now,
        up_s=int(up_s),
        cpu=host.cpu,
        mem=host.mem,
        disk=host.disk,
        audio=counters.audio(),
        asr=counters.asr(),
        mqtt=mqtt,
    )
