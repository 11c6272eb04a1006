"""The telemetry payload (contract 1, as in `agent.messages`), and how others show its numbers.

A field that some machines cannot measure is optional. So is a part that would be empty without such fields.

`METRICS` is made from the `Metric` beside each number. Home Assistant's sensors and Prometheus's metrics are made from
`METRICS`. Prometheus wants base units (https://prometheus.io/docs/practices/naming/): each unit has a factor.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, get_args

from pydantic import BaseModel

from agent.messages import Instant, Message, Part

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
    """How Home Assistant and Prometheus show a number of the payload."""

    name: str = ""
    """Name in Home Assistant; empty for a number without a sensor."""
    unit: str | None = None
    prometheus: str = ""
    """Name in Prometheus, without prefix and `_total`; empty if a histogram has the same."""
    total: bool = False
    """Whether it only grows."""
    enabled: bool = True
    """Whether Home Assistant shows and records it from the start."""
    label: tuple[str, str] | None = None
    """Label in Prometheus, if several numbers have the same name there."""
    path: str = ""
    """Place in the payload, such as `cpu.temp_c`. In `METRICS` only, as the next one."""
    description: str = ""

    def value(self, parts: object) -> float | None:
        """Return the number in `parts`, a message or an object with the same parts; None if it is unknown."""
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


class Cpu(Part):
    """Processor."""

    pct: Annotated[float | None, Metric("CPU", "%", "cpu_usage_ratio")] = None
    """Load of all cores together since the last message, 0–100."""
    load1: Annotated[float | None, Metric("Load", None, "load1", enabled=False)] = None
    """Mean number of running tasks over the last minute."""
    temp_c: Annotated[float | None, Metric("CPU temperature", "°C", "cpu_temperature_celsius")] = None
    """Temperature of the processor."""
    freq_mhz: Annotated[int | None, Metric("CPU clock", "MHz", "cpu_frequency_hertz", enabled=False)] = None
    """Clock of the fastest core."""


class Mem(Part):
    """Memory."""

    avail_mb: Annotated[int | None, Metric("Memory available", "MiB", "memory_available_bytes", enabled=False)] = None
    """Memory in MiB that is available without swapping."""
    pct: Annotated[float | None, Metric("Memory", "%", "memory_used_ratio")] = None
    """Share of the memory in use, 0–100."""
    rss_mb: Annotated[float | None, Metric("Memory of edgescribe", "MiB", "resident_memory_bytes")] = None
    """Resident memory of the agent and its engine."""
    swap_pct: Annotated[float | None, Metric("Swap", "%", "swap_used_ratio", enabled=False)] = None
    """Share of the swap in use, 0–100."""


class Disk(Part):
    """The file system that holds the state folder, and the machine's disks and cards."""

    pct: Annotated[float | None, Metric("Disk", "%", "disk_used_ratio")] = None
    """Share of the disk with the state folder in use, 0–100."""
    written_mb: Annotated[
        int | None, Metric("Written to disk", "MiB", "disk_written_bytes", total=True, enabled=False)
    ] = None
    """Written to all disks and cards since the machine booted, in MiB."""
    wear_pct: Annotated[int | None, Metric("Disk wear", "%", "disk_wear_ratio")] = None
    """Share of its life that an eMMC has used up, in tens; 100 also stands for more."""


class Psi(Part):
    """Pressure: the share of the last minute, 0–100, in which some task waited (Linux's PSI, `some avg60`)."""

    cpu: Annotated[
        float | None, Metric("CPU pressure", "%", "pressure_ratio", enabled=False, label=("resource", "cpu"))
    ] = None
    """Share of the last minute, 0–100, in which some task waited (PSI): here for the processor."""
    mem: Annotated[
        float | None, Metric("Memory pressure", "%", "pressure_ratio", enabled=False, label=("resource", "memory"))
    ] = None
    """As `cpu`, for memory."""
    io: Annotated[
        float | None, Metric("Disk pressure", "%", "pressure_ratio", enabled=False, label=("resource", "io"))
    ] = None
    """As `cpu`, for disks."""


class Pwr(Part):
    """Power, and the board's reaction to too little power or too much heat. Events count since the start."""

    uv_now: Annotated[bool | None, Metric(prometheus="undervoltage")] = None
    """The supply's voltage is too low."""
    thr_now: Annotated[bool | None, Metric(prometheus="throttled")] = None
    """The board has slowed itself down: heat, voltage or current."""
    uv_events: Annotated[int | None, Metric("Under-voltage events", None, "undervoltage_events", total=True)] = None
    """How often the voltage became too low."""
    thr_events: Annotated[int | None, Metric("Throttling events", None, "throttled_events", total=True)] = None
    """How often the board began to slow itself down."""
    in_w: Annotated[float | None, Metric("Power", "W", "input_power_watts")] = None
    """Power that the board takes in, if it measures that (Jetson)."""
    rails_w: dict[str, float] | None = None
    """Power through each measured rail, by its label on the board."""
    mode: str | None = None
    """The chosen power mode (Jetson), such as `15W`."""


class Gpu(Part):
    """The graphics processor, where it computes for the engine (Jetson)."""

    pct: Annotated[float | None, Metric("GPU", "%", "gpu_usage_ratio")] = None
    """Load of the GPU, 0–100."""
    temp_c: Annotated[float | None, Metric("GPU temperature", "°C", "gpu_temperature_celsius")] = None
    """Temperature of the GPU."""
    freq_mhz: Annotated[int | None, Metric("GPU clock", "MHz", "gpu_frequency_hertz", enabled=False)] = None
    """Clock of the GPU."""


class Fan(Part):
    """The fan."""

    rpm: Annotated[int | None, Metric("Fan", "rpm", "fan_speed_rpm")] = None
    """Revolutions of the fan a minute."""
    pct: Annotated[int | None, Metric("Fan duty", "%", "fan_duty_ratio", enabled=False)] = None
    """Share of its full speed at which the fan is driven, 0–100."""


class Wifi(Part):
    """The wireless link."""

    rssi_dbm: Annotated[int | None, Metric("Wi-Fi signal", "dBm", "wifi_signal_dbm")] = None
    """Strength of the best wireless link."""


class Net(Part):
    """Traffic of the machine's own interfaces since it booted, other programs included."""

    tx_mb: Annotated[int | None, Metric("Sent", "MiB", "network_transmit_bytes", total=True, enabled=False)] = None
    """Sent since the machine booted, in MiB."""
    rx_mb: Annotated[int | None, Metric("Received", "MiB", "network_receive_bytes", total=True, enabled=False)] = None
    """Received since the machine booted, in MiB."""


class Audio(Part):
    """Capture."""

    xruns: Annotated[int, Metric("Overruns", None, "audio_overruns", total=True, enabled=False)]
    """How often the microphone was not read in time since the start."""
    gaps_s: Annotated[float, Metric("Sound lost", "s", "audio_lost_seconds", total=True)]
    """Seconds of sound lost on its way since the start; none while muted or without a microphone."""
    losses: Annotated[int, Metric("Microphone losses", None, "audio_device_losses", total=True, enabled=False)] = 0
    """How often the microphone went away or hung since the start."""
    silences: Annotated[int, Metric("Dead silences", None, "audio_silences", total=True, enabled=False)] = 0
    """How often the microphone fell dead silent since the start."""
    noise_floor_dbfs: Annotated[float | None, Metric("Noise floor", "dBFS", "audio_noise_floor_dbfs")] = None
    """Level of the room without speech."""
    clip_pct: Annotated[float | None, Metric("Clipping", "%", "audio_clipped_ratio", enabled=False)] = None
    """Share of the samples of all utterances since the start that were at full scale, 0–100."""
    offset_pct: Annotated[float | None, Metric("Microphone offset", "%", "audio_offset_ratio", enabled=False)] = None
    """Mean of the samples of the last minute, in percent of full scale."""


class Asr(Part):
    """Recognition, since the start unless said otherwise."""

    utt: Annotated[int, Metric("Utterances", None, "utterances", total=True, label=("result", "published"))]
    """Utterances transcribed, late ones included."""
    rtf_p50: Annotated[float | None, Metric("Real-time factor (p50)", enabled=False)] = None
    """Of the last 64 utterances."""
    rtf_p95: Annotated[float | None, Metric("Real-time factor (p95)")] = None
    """Of the last 64 utterances."""
    lat_ms_p50: Annotated[int | None, Metric("Latency (p50)", "ms", enabled=False)] = None
    """From the end of speech, of the last 64 utterances that were not late."""
    lat_ms_p95: Annotated[int | None, Metric("Latency (p95)", "ms")] = None
    """From the end of speech, of the last 64 utterances that were not late."""
    queue_ms_p95: Annotated[int | None, Metric("Waiting for the engine (p95)", "ms", enabled=False)] = None
    """The part of it that was waiting for the engine."""
    decode_ms_p95: Annotated[int | None, Metric("Inference (p95)", "ms", enabled=False)] = None
    """How long the engine took, in part inside the pause."""
    waiting: Annotated[int | None, Metric("Utterances waiting", None, "utterances_waiting", enabled=False)] = None
    """Utterances that wait for the engine now."""
    dropped_s: Annotated[float, Metric("Speech dropped", "s", "speech_dropped_seconds", total=True)]
    """Seconds of speech dropped because the engine could not keep up."""
    speech_pct: Annotated[float, Metric("Speech", "%", enabled=False)]
    """Share of the sound that was inside utterances, 0–100."""
    rejected: Annotated[
        int, Metric("Rejected", None, "utterances", total=True, enabled=False, label=("result", "rejected"))
    ]
    """Utterances in which the engine found no words to publish."""
    discarded: Annotated[int, Metric("Too short", None, "sounds_discarded", total=True, enabled=False)] = 0
    """Sounds with speech for less than `segmenter.min_speech_ms`: clicks, or words that hardly stand out."""
    engine_restarts: Annotated[int, Metric("Engine restarts", None, "engine_restarts", total=True, enabled=False)] = 0
    """Processes of the engine that died or hung since the start; each cost a second attempt."""


class Mqtt(Part):
    """The link to the broker."""

    outbox_n: Annotated[int, Metric("Messages waiting", None, "outbox_messages")]
    """Messages waiting for their acknowledgement."""
    outbox_mb: Annotated[float | None, Metric("Outbox", "MiB", "outbox_bytes", enabled=False)] = None
    """Approximate size of the waiting messages, in memory or on disk."""
    dropped: Annotated[int, Metric("Messages dropped", None, "messages_dropped", total=True)]
    """Messages given up since the start: the outbox was full, they expired, or the broker refused them."""
    reconnects: Annotated[int, Metric("Reconnections", None, "mqtt_reconnects", total=True, enabled=False)]
    """Connections since the start, without the first one."""
    puback_ms_p95: Annotated[
        int | None, Metric("Broker latency (p95)", "ms", "mqtt_acknowledgement_p95_seconds", enabled=False)
    ] = None
    """From publishing until the broker's acknowledgement, of the last 64 messages."""


class TelemetryMessage(Message):
    """Measurements of the machine and the agent."""

    topic = "telemetry"
    qos = 0
    retained = False
    expiry_s = 120
    schema_name = "telemetry/1"

    ts: Instant
    up_s: Annotated[int, Metric("Uptime", "s", "uptime_seconds", enabled=False)]
    """Seconds since the agent started."""
    cpu: Cpu
    mem: Mem
    disk: Disk
    psi: Psi | None = None
    pwr: Pwr | None = None
    gpu: Gpu | None = None
    fan: Fan | None = None
    wifi: Wifi | None = None
    net: Net | None = None
    audio: Audio
    asr: Asr
    mqtt: Mqtt | None = None


def _metrics(model: type[BaseModel], above: str = "") -> Iterator[Metric]:
    for name, field in model.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, Part):
                yield from _metrics(kind, f"{above}{name}.")
        for metric in field.metadata:
            if isinstance(metric, Metric):
                yield replace(metric, path=above + name, description=" ".join((field.description or "").split()))


METRICS: Final = tuple(_metrics(TelemetryMessage))
"""Every number of the payload that Home Assistant or Prometheus shows."""
