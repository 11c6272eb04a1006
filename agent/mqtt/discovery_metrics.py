"""Which numbers of telemetry Home Assistant gets a sensor for, and which of them this machine can measure."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.telemetry.host import Host
from agent.telemetry.vitals import VitalsWatch


@dataclass(frozen=True, slots=True)
class Metric:
    """A number in telemetry."""

    path: str
    """Where it stands, such as `cpu.temp_c`."""
    name: str
    unit: str | None = None
    device_class: str | None = None
    state_class: str | None = "measurement"
    enabled: bool = True
    """Whether Home Assistant shows and records it from the start."""


METRICS: Final = (
    Metric("up_s", "Uptime", "s", "duration", enabled=False),
    Metric("cpu.pct", "CPU", "%"),
    Metric("cpu.load1", "Load", enabled=False),
    Metric("cpu.temp_c", "CPU temperature", "°C", "temperature"),
    Metric("cpu.freq_mhz", "CPU clock", "MHz", "frequency", enabled=False),
    Metric("mem.avail_mb", "Memory available", "MiB", "data_size", enabled=False),
    Metric("mem.pct", "Memory", "%"),
    Metric("mem.rss_mb", "Memory of edgescribe", "MiB", "data_size"),
    Metric("mem.swap_pct", "Swap", "%", enabled=False),
    Metric("disk.pct", "Disk", "%"),
    Metric("disk.written_mb", "Written to disk", "MiB", "data_size", "total_increasing", enabled=False),
    Metric("disk.wear_pct", "Disk wear", "%"),
    Metric("psi.cpu", "CPU pressure", "%", enabled=False),
    Metric("psi.mem", "Memory pressure", "%", enabled=False),
    Metric("psi.io", "Disk pressure", "%", enabled=False),
    Metric("pwr.uv_events", "Under-voltage events", None, None, "total_increasing"),
    Metric("pwr.thr_events", "Throttling events", None, None, "total_increasing"),
    Metric("pwr.in_w", "Power", "W", "power"),
    Metric("gpu.pct", "GPU", "%"),
    Metric("gpu.temp_c", "GPU temperature", "°C", "temperature"),
    Metric("gpu.freq_mhz", "GPU clock", "MHz", "frequency", enabled=False),
    Metric("fan.rpm", "Fan", "rpm"),
    Metric("fan.pct", "Fan duty", "%", enabled=False),
    Metric("wifi.rssi_dbm", "Wi-Fi signal", "dBm", "signal_strength"),
    Metric("net.tx_mb", "Sent", "MiB", "data_size", "total_increasing", enabled=False),
    Metric("net.rx_mb", "Received", "MiB", "data_size", "total_increasing", enabled=False),
    Metric("audio.xruns", "Overruns", None, None, "total_increasing", enabled=False),
    Metric("audio.gaps_s", "Sound lost", "s", "duration", "total_increasing"),
    Metric("audio.losses", "Microphone losses", None, None, "total_increasing", enabled=False),
    Metric("audio.silences", "Dead silences", None, None, "total_increasing", enabled=False),
    Metric("audio.noise_floor_dbfs", "Noise floor", "dBFS"),
    Metric("audio.clip_pct", "Clipping", "%", enabled=False),
    Metric("audio.offset_pct", "Microphone offset", "%", enabled=False),
    Metric("asr.utt", "Utterances", None, None, "total_increasing"),
    Metric("asr.rtf_p50", "Real-time factor (p50)", enabled=False),
    Metric("asr.rtf_p95", "Real-time factor (p95)"),
    Metric("asr.lat_ms_p50", "Latency (p50)", "ms", "duration", enabled=False),
    Metric("asr.lat_ms_p95", "Latency (p95)", "ms", "duration"),
    Metric("asr.queue_ms_p95", "Waiting for the engine (p95)", "ms", "duration", enabled=False),
    Metric("asr.decode_ms_p95", "Inference (p95)", "ms", "duration", enabled=False),
    Metric("asr.waiting", "Utterances waiting", enabled=False),
    Metric("asr.dropped_s", "Speech dropped", "s", "duration", "total_increasing"),
    Metric("asr.speech_pct", "Speech", "%", enabled=False),
    Metric("asr.rejected", "Rejected", None, None, "total_increasing", enabled=False),
    Metric("asr.discarded", "Too short", None, None, "total_increasing", enabled=False),
    Metric("asr.engine_restarts", "Engine restarts", None, None, "total_increasing", enabled=False),
    Metric("mqtt.outbox_n", "Messages waiting"),
    Metric("mqtt.outbox_mb", "Outbox", "MiB", "data_size", enabled=False),
    Metric("mqtt.dropped", "Messages dropped", None, None, "total_increasing"),
    Metric("mqtt.reconnects", "Reconnections", None, None, "total_increasing", enabled=False),
    Metric("mqtt.puback_ms_p95", "Broker latency (p95)", "ms", "duration", enabled=False),
)
"""Every number of telemetry; a test holds this against the message."""

_OF_THE_HOST: Final = frozenset({"cpu", "mem", "disk", "psi", "pwr", "gpu", "fan", "wifi", "net"})


def absent_metrics(state_dir: Path, root: Path) -> frozenset[str]:
    """What this machine cannot measure, such as `cpu.temp_c`: no board has every sensor. Takes some milliseconds."""
    reading = Host(state_dir, root).read().with_power(VitalsWatch(root).latest.power)
    found = set()
    for metric in METRICS:
        part, _, field = metric.path.partition(".")
        if part in _OF_THE_HOST and getattr(getattr(reading, part), field, None) is None:
            found.add(metric.path)
    return frozenset(found)
