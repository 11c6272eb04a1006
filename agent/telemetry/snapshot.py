"""Everything that is known of the device at one moment: one type for all who publish or show it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from agent.messages.telemetry import Asr, Audio, Mqtt, TelemetryMessage
from agent.telemetry.histogram import Distribution
from agent.telemetry.host import HostReading

MOST_BYTES: Final = 1_024
"""Of a message: 10,000 devices at one broker are sized for it."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment."""

    at: datetime
    """With time zone."""
    up_s: float
    """Seconds since the agent started."""
    host: HostReading
    """The machine, with the flags and events of its power."""
    audio: Audio
    asr: Asr
    mqtt: Mqtt | None
    """None where nothing is published over MQTT."""
    heard_s: float
    """Seconds of sound since the start."""
    speech_s: float
    """Seconds of it that became utterances."""
    rtfs: Distribution
    """Real-time factors since the start."""
    latencies_s: Mapping[str, Distribution]
    """Where the time went, by the names of `agent.messages.Latency`."""
    problems: tuple[str, ...] = ()
    """What is wrong, as codes of `health`."""

    def message(self) -> TelemetryMessage:
        """What of it goes out over MQTT, in at most `MOST_BYTES`: rails are left out where they are too many."""
        message = self._message(self.host)
        power = self.host.pwr
        if power and power.rails_w and len(message.payload()) > MOST_BYTES:
            return self._message(replace(self.host, pwr=power.model_copy(update={"rails_w": None})))
        return message

    def _message(self, host: HostReading) -> TelemetryMessage:
        return TelemetryMessage(
            ts=self.at,
            up_s=int(self.up_s),
            cpu=host.cpu,
            mem=host.mem,
            disk=host.disk,
            psi=host.psi,
            pwr=host.pwr,
            gpu=host.gpu,
            fan=host.fan,
            wifi=host.wifi,
            net=host.net,
            audio=self.audio,
            asr=self.asr,
            mqtt=self.mqtt,
        )
