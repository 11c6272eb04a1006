"""The one table of all numbers of telemetry: place in the payload, name in Home Assistant, name in Prometheus.

The values come from the payload, and so do the descriptions. Prometheus wants base units
(https://prometheus.io/docs/practices/naming/): each unit has a factor. A test compares the table with the payload.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from agent.messages.telemetry import TelemetryMessage
from agent.telemetry.snapshot import Host, HostReading
from agent.telemetry.vitals import VitalsWatch

_FACTORS: Final[Mapping[str | None, float]] = {"%": 0.01, "ms": 0.001, "MHz": 1e6, "MiB": 1024 * 1024}
_DEVICE_CLASSES: Final[Mapping[str | None, str]] = {
    "s": "duration",
    "ms": "duration",
    "°C": "temperature",
    "MHz": "frequency",
    "MiB": "data_size",
    "W": "power",
    "dBm": "signal_strength",
}
"""Home Assistant's kinds of sensors."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A number in telemetry."""

    path: str
    """Its place in the payload, such as `cpu.temp_c`."""
    name: str = ""
    """Name in Home Assistant; empty for a number without a sensor."""
    unit: str | None = None
    prometheus: str = ""
    """Name in Prometheus, without prefix and `_total`; empty if a histogram has the same."""
    total: bool = False
    """Whether it only grows."""
    enabled: bool = True
    """Whether Home Assistant shows and records it from the start."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels in Prometheus, if several numbers have the same name."""

    def value(self, parts: object) -> float | None:
        """Return the number in `parts`, a telemetry message or a reading of the host; None if it is unknown."""
        found: Any = parts
        for name in self.path.split("."):
            found = getattr(found, name, None)
        return None if found is None else float(found)

    def base(self, parts: object) -> float | None:
        """Return the number as `value` does, in base units."""
        value = self.value(parts)
        return None if value is None else float(f"{value * _FACTORS.get(self.unit, 1):.12g}")

    @property
    def device_class(self) -> str | None:
        """Home Assistant's kind of sensor."""
        return _DEVICE_CLASSES.get(self.unit)

    @property
    def state_class(self) -> str:
        """Home Assistant's kind of statistics."""
        return "total_increasing" if self.total else "measurement"

    @property
    def description(self) -> str:
        """The description of its field in the payload."""
        fields: Any = TelemetryMessage.model_fields
        for name in self.path.split("."):
            found = fields[name]
            kinds = (found.annotation, *getattr(found.annotation, "__args__", ()))
            fields = next((kind.model_fields for kind in kinds if hasattr(kind, "model_fields")), {})
        return " ".join(found.description.split())


METRICS: Final = (
    Metric("up_s", "Uptime", "s", "uptime_seconds", enabled=False),
    Metric("cpu.pct", "CPU", "%", "cpu_usage_ratio"),
    Metric("cpu.load1", "Load", None, "load1", enabled=False),
    Metric("cpu.temp_c", "CPU temperature", "°C", "cpu_temperature_celsius"),
    Metric("cpu.freq_mhz", "CPU clock", "MHz", "cpu_frequency_hertz", enabled=False),
    Metric("mem.avail_mb", "Memory available", "MiB", "memory_available_bytes", enabled=False),
    Metric("mem.pct", "Memory", "%", "memory_used_ratio"),
    Metric("mem.rss_mb", "Memory of edgescribe", "MiB", "resident_memory_bytes"),
    Metric("mem.swap_pct", "Swap", "%", "swap_used_ratio", enabled=False),
    Metric("disk.pct", "Disk", "%", "disk_used_ratio"),
    Metric("disk.written_mb", "Written to disk", "MiB", "disk_written_bytes", total=True, enabled=False),
    Metric("disk.wear_pct", "Disk wear", "%", "disk_wear_ratio"),
    Metric("psi.cpu", "CPU pressure", "%", "pressure_ratio", enabled=False, labels={"resource": "cpu"}),
    Metric("psi.mem", "Memory pressure", "%", "pressure_ratio", enabled=False, labels={"resource": "memory"}),
    Metric("psi.io", "Disk pressure", "%", "pressure_ratio", enabled=False, labels={"resource": "io"}),
    Metric("pwr.uv_now", prometheus="undervoltage"),
    Metric("pwr.thr_now", prometheus="throttled"),
    Metric("pwr.uv_events", "Under-voltage events", None, "undervoltage_events", total=True),
    Metric("pwr.thr_events", "Throttling events", None, "throttled_events", total=True),
    Metric("pwr.in_w", "Power", "W", "input_power_watts"),
    Metric("gpu.pct", "GPU", "%", "gpu_usage_ratio"),
    Metric("gpu.temp_c", "GPU temperature", "°C", "gpu_temperature_celsius"),
    Metric("gpu.freq_mhz", "GPU clock", "MHz", "gpu_frequency_hertz", enabled=False),
    Metric("fan.rpm", "Fan", "rpm", "fan_speed_rpm"),
    Metric("fan.pct", "Fan duty", "%", "fan_duty_ratio", enabled=False),
    Metric("wifi.rssi_dbm", "Wi-Fi signal", "dBm", "wifi_signal_dbm"),
    Metric("net.tx_mb", "Sent", "MiB", "network_transmit_bytes", total=True, enabled=False),
    Metric("net.rx_mb", "Received", "MiB", "network_receive_bytes", total=True, enabled=False),
    Metric("audio.xruns", "Overruns", None, "audio_overruns", total=True, enabled=False),
    Metric("audio.gaps_s", "Sound lost", "s", "audio_lost_seconds", total=True),
    Metric("audio.losses", "Microphone losses", None, "audio_device_losses", total=True, enabled=False),
    Metric("audio.silences", "Dead silences", None, "audio_silences", total=True, enabled=False),
    Metric("audio.noise_floor_dbfs", "Noise floor", "dBFS", "audio_noise_floor_dbfs"),
    Metric("audio.clip_pct", "Clipping", "%", "audio_clipped_ratio", enabled=False),
    Metric("audio.offset_pct", "Microphone offset", "%", "audio_offset_ratio", enabled=False),
    Metric("asr.utt", "Utterances", None, "utterances", total=True, labels={"result": "published"}),
    Metric("asr.rtf_p50", "Real-time factor (p50)", enabled=False),
    Metric("asr.rtf_p95", "Real-time factor (p95)"),
    Metric("asr.lat_ms_p50", "Latency (p50)", "ms", enabled=False),
    Metric("asr.lat_ms_p95", "Latency (p95)", "ms"),
    Metric("asr.queue_ms_p95", "Waiting for the engine (p95)", "ms", enabled=False),
    Metric("asr.decode_ms_p95", "Inference (p95)", "ms", enabled=False),
    Metric("asr.waiting", "Utterances waiting", None, "utterances_waiting", enabled=False),
    Metric("asr.dropped_s", "Speech dropped", "s", "speech_dropped_seconds", total=True),
    Metric("asr.speech_pct", "Speech", "%", enabled=False),
    Metric("asr.rejected", "Rejected", None, "utterances", total=True, enabled=False, labels={"result": "rejected"}),
    Metric("asr.discarded", "Too short", None, "sounds_discarded", total=True, enabled=False),
    Metric("asr.engine_restarts", "Engine restarts", None, "engine_restarts", total=True, enabled=False),
    Metric("mqtt.outbox_n", "Messages waiting", None, "outbox_messages"),
    Metric("mqtt.outbox_mb", "Outbox", "MiB", "outbox_bytes", enabled=False),
    Metric("mqtt.dropped", "Messages dropped", None, "messages_dropped", total=True),
    Metric("mqtt.reconnects", "Reconnections", None, "mqtt_reconnects", total=True, enabled=False),
    Metric("mqtt.puback_ms_p95", "Broker latency (p95)", "ms", "mqtt_acknowledgement_p95_seconds", enabled=False),
)


def absent_metrics(state_dir: Path, root: Path) -> frozenset[str]:
    """Return the numbers that this machine cannot measure, such as `cpu.temp_c`. Takes some milliseconds."""
    reading = Host(state_dir, root).read(VitalsWatch(root).latest.power)
    host = [metric for metric in METRICS if metric.path.partition(".")[0] in HostReading.__slots__]
    return frozenset(metric.path for metric in host if metric.value(reading) is None)
