"""The telemetry payload (contract 1, as in `agent.messages`).

A field that some machines cannot measure is optional. So is a part that would be empty without such fields.
"""

from agent.messages import Instant, Message, Part


class Cpu(Part):
    """Processor."""

    pct: float | None = None
    """Load of all cores together since the last message, 0–100."""
    load1: float | None = None
    """Mean number of running tasks over the last minute."""
    temp_c: float | None = None
    """Temperature of the processor."""
    freq_mhz: int | None = None
    """Clock of the fastest core."""


class Mem(Part):
    """Memory."""

    avail_mb: int | None = None
    """Memory in MiB that is available without swapping."""
    pct: float | None = None
    """Share of the memory in use, 0–100."""
    rss_mb: float | None = None
    """Resident memory of the agent and its engine."""
    swap_pct: float | None = None
    """Share of the swap in use, 0–100."""


class Disk(Part):
    """The file system that holds the state folder, and the machine's disks and cards."""

    pct: float | None = None
    """Share of the disk with the state folder in use, 0–100."""
    written_mb: int | None = None
    """Written to all disks and cards since the machine booted, in MiB."""
    wear_pct: int | None = None
    """Share of its life that an eMMC has used up, in tens; 100 also stands for more."""


class Psi(Part):
    """Pressure: the share of the last minute, 0–100, in which some task waited (Linux's PSI, `some avg60`)."""

    cpu: float | None = None
    """Share of the last minute, 0–100, in which some task waited (PSI): here for the processor."""
    mem: float | None = None
    """As `cpu`, for memory."""
    io: float | None = None
    """As `cpu`, for disks."""


class Pwr(Part):
    """Power, and the board's reaction to too little power or too much heat. Events count since the start."""

    uv_now: bool | None = None
    """The supply's voltage is too low."""
    thr_now: bool | None = None
    """The board has slowed itself down: heat, voltage or current."""
    uv_events: int | None = None
    """How often the voltage became too low."""
    thr_events: int | None = None
    """How often the board began to slow itself down."""
    in_w: float | None = None
    """Power that the board takes in, if it measures that (Jetson)."""
    rails_w: dict[str, float] | None = None
    """Power through each measured rail, by its label on the board."""
    mode: str | None = None
    """The chosen power mode (Jetson), such as `15W`."""


class Gpu(Part):
    """The graphics processor, where it computes for the engine (Jetson)."""

    pct: float | None = None
    """Load of the GPU, 0–100."""
    temp_c: float | None = None
    """Temperature of the GPU."""
    freq_mhz: int | None = None
    """Clock of the GPU."""


class Fan(Part):
    """The fan."""

    rpm: int | None = None
    """Revolutions of the fan a minute."""
    pct: int | None = None
    """Share of its full speed at which the fan is driven, 0–100."""


class Wifi(Part):
    """The wireless link."""

    rssi_dbm: int | None = None
    """Strength of the best wireless link."""


class Net(Part):
    """Traffic of the machine's own interfaces since it booted, other programs included."""

    tx_mb: int | None = None
    """Sent since the machine booted, in MiB."""
    rx_mb: int | None = None
    """Received since the machine booted, in MiB."""


class Audio(Part):
    """Capture."""

    xruns: int
    """How often the microphone was not read in time since the start."""
    gaps_s: float
    """Seconds of sound lost on its way since the start; none while muted or without a microphone."""
    losses: int = 0
    """How often the microphone went away or hung since the start."""
    silences: int = 0
    """How often the microphone fell dead silent since the start."""
    noise_floor_dbfs: float | None = None
    """Level of the room without speech."""
    clip_pct: float | None = None
    """Share of the samples of all utterances since the start that were at full scale, 0–100."""
    offset_pct: float | None = None
    """Mean of the samples of the last minute, in percent of full scale."""


class Asr(Part):
    """Recognition, since the start unless said otherwise."""

    utt: int
    """Utterances transcribed, late ones included."""
    rtf_p50: float | None = None
    """Of the last 64 utterances."""
    rtf_p95: float | None = None
    """Of the last 64 utterances."""
    lat_ms_p50: int | None = None
    """From the end of speech, of the last 64 utterances that were not late."""
    lat_ms_p95: int | None = None
    """From the end of speech, of the last 64 utterances that were not late."""
    queue_ms_p95: int | None = None
    """The part of it that was waiting for the engine."""
    decode_ms_p95: int | None = None
    """How long the engine took, in part inside the pause."""
    waiting: int | None = None
    """Utterances that wait for the engine now."""
    dropped_s: float
    """Seconds of speech dropped because the engine could not keep up."""
    speech_pct: float
    """Share of the sound that was inside utterances, 0–100."""
    rejected: int
    """Utterances in which the engine found no words to publish."""
    discarded: int = 0
    """Sounds with speech for less than `segmenter.min_speech_ms`: clicks, or words that hardly stand out."""
    engine_restarts: int = 0
    """Processes of the engine that died or hung since the start; each cost a second attempt."""


class Mqtt(Part):
    """The link to the broker."""

    outbox_n: int
    """Messages waiting for their acknowledgement."""
    outbox_mb: float | None = None
    """Approximate size of the waiting messages, in memory or on disk."""
    dropped: int
    """Messages given up since the start: the outbox was full, they expired, or the broker refused them."""
    reconnects: int
    """Connections since the start, without the first one."""
    puback_ms_p95: int | None = None
    """From publishing until the broker's acknowledgement, of the last 64 messages."""


class TelemetryMessage(Message):
    """Measurements of the machine and the agent."""

    topic = "telemetry"
    qos = 0
    retained = False
    expiry_s = 120
    schema_name = "telemetry/1"

    ts: Instant
    up_s: int
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
