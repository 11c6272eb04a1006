"""A snapshot as Prometheus reads it: its text format 0.0.4, base units, `_total` for what only grows. Pure.

https://prometheus.io/docs/instrumenting/exposition_formats/ and https://prometheus.io/docs/practices/naming/. What the
machine cannot tell has no sample.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from agent import __version__
from agent.telemetry.histogram import Distribution
from agent.telemetry.snapshot import Snapshot

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX: Final = "edgescribe_"
_MIB: Final = 1024 * 1024
_MHZ: Final = 1_000_000
_PERCENT: Final = 0.01
_MS: Final = 0.001


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a family."""

    value: float | Distribution | None
    """None is not known, and leaves no line."""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Family:
    """What has one name."""

    name: str
    """Without the prefix."""
    kind: Literal["gauge", "counter", "histogram"]
    text: str
    """What it is, in a line."""
    samples: tuple[Sample, ...]


def exposition(snapshot: Snapshot) -> str:
    """All families that have a sample, with their heads."""
    lines: list[str] = []
    for family in _families(snapshot):
        if known := [line for sample in family.samples for line in _lines(family.name, sample)]:
            name = _PREFIX + family.name
            lines += [f"# HELP {name} {family.text}", f"# TYPE {name} {family.kind}", *known]
    return "\n".join(lines) + "\n"


def _lines(name: str, sample: Sample) -> Iterator[str]:
    value, labels = sample.value, dict(sample.labels)
    if isinstance(value, Distribution):
        bounds = (*(_number(bound) for bound in value.bounds), "+Inf")
        for bound, count in zip(bounds, value.counts, strict=True):
            yield f"{_PREFIX}{name}_bucket{_braces({**labels, 'le': bound})} {count}"
        yield f"{_PREFIX}{name}_sum{_braces(labels)} {_number(value.total)}"
        yield f"{_PREFIX}{name}_count{_braces(labels)} {value.counts[-1]}"
    elif value is not None:
        yield f"{_PREFIX}{name}{_braces(labels)} {_number(value)}"


def _braces(labels: Mapping[str, str]) -> str:
    pairs = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return f"{value:.12g}"


def _gauge(name: str, text: str, value: float | None) -> Family:
    return Family(name, "gauge", text, (Sample(value),))


def _counter(name: str, text: str, value: float | None) -> Family:
    return Family(f"{name}_total", "counter", text, (Sample(value),))


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _families(snapshot: Snapshot) -> Iterator[Family]:
    version = Sample(1, {"version": __version__})
    yield Family("build_info", "gauge", "Version of the agent; always 1.", (version,))
    yield _gauge("uptime_seconds", "Age of the agent.", round(snapshot.up_s, 3))
    codes = tuple(Sample(1, {"code": code}) for code in snapshot.problems)
    yield Family("problem", "gauge", "What is wrong, as codes of health; 1 while it is.", codes)
    yield from _machine(snapshot)
    yield from _power(snapshot)
    yield from _devices(snapshot)
    yield from _sound(snapshot)
    yield from _recognition(snapshot)
    yield from _link(snapshot)


def _machine(snapshot: Snapshot) -> Iterable[Family]:
    cpu, mem, disk, psi = snapshot.host.cpu, snapshot.host.mem, snapshot.host.disk, snapshot.host.psi
    yield _gauge("cpu_usage_ratio", "Load of all cores since the scrape before.", _times(cpu.pct, _PERCENT))
    yield _gauge("load1", "Mean number of running tasks over the last minute.", cpu.load1)
    yield _gauge("cpu_temperature_celsius", "Temperature of the processor.", cpu.temp_c)
    yield _gauge("cpu_frequency_hertz", "Clock of the fastest core.", _times(cpu.freq_mhz, _MHZ))
    yield _gauge("memory_available_bytes", "Memory that can be had without swapping.", _times(mem.avail_mb, _MIB))
    yield _gauge("memory_used_ratio", "Share of the memory in use.", _times(mem.pct, _PERCENT))
    yield _gauge("resident_memory_bytes", "Memory of the agent and its engine.", _times(mem.rss_mb, _MIB))
    yield _gauge("swap_used_ratio", "Share of the swap in use.", _times(mem.swap_pct, _PERCENT))
    yield _gauge("disk_used_ratio", "Share of the disk with the state folder in use.", _times(disk.pct, _PERCENT))
    yield _counter("disk_written_bytes", "Written to all disks since the boot.", _times(disk.written_mb, _MIB))
    yield _gauge("disk_wear_ratio", "Share of an eMMC's life that is used up.", _times(disk.wear_pct, _PERCENT))
    stalled = {"cpu": psi.cpu, "memory": psi.mem, "io": psi.io} if psi else {}
    waiting = tuple(Sample(_times(pct, _PERCENT), {"resource": name}) for name, pct in stalled.items())
    yield Family("pressure_ratio", "gauge", "Share of the last minute in which some task waited (PSI).", waiting)


def _power(snapshot: Snapshot) -> Iterable[Family]:
    if (power := snapshot.host.pwr) is None:
        return
    yield _gauge("undervoltage", "1 while the supply's voltage is too low.", power.uv_now)
    yield _gauge("throttled", "1 while the board slows itself down.", power.thr_now)
    yield _counter("undervoltage_events", "How often the voltage became too low.", power.uv_events)
    yield _counter("throttled_events", "How often the board began to slow itself down.", power.thr_events)
    yield _gauge("input_power_watts", "What the board takes in.", power.in_w)
    rails = tuple(Sample(watts, {"rail": rail}) for rail, watts in (power.rails_w or {}).items())
    yield Family("rail_power_watts", "gauge", "What goes through a rail of the board.", rails)


def _devices(snapshot: Snapshot) -> Iterable[Family]:
    gpu, fan, wifi, net = snapshot.host.gpu, snapshot.host.fan, snapshot.host.wifi, snapshot.host.net
    if gpu:
        yield _gauge("gpu_usage_ratio", "Load of the GPU.", _times(gpu.pct, _PERCENT))
        yield _gauge("gpu_temperature_celsius", "Temperature of the GPU.", gpu.temp_c)
        yield _gauge("gpu_frequency_hertz", "Clock of the GPU.", _times(gpu.freq_mhz, _MHZ))
    if fan:
        yield _gauge("fan_speed_rpm", "Revolutions of the fan a minute.", fan.rpm)
        yield _gauge("fan_duty_ratio", "What the fan is driven with.", _times(fan.pct, _PERCENT))
    if wifi:
        yield _gauge("wifi_signal_dbm", "Strength of the best wireless link.", wifi.rssi_dbm)
    if net:
        yield _counter("network_transmit_bytes", "Sent since the boot.", _times(net.tx_mb, _MIB))
        yield _counter("network_receive_bytes", "Received since the boot.", _times(net.rx_mb, _MIB))


def _sound(snapshot: Snapshot) -> Iterable[Family]:
    audio = snapshot.audio
    yield _counter("audio_heard_seconds", "Sound that was listened to.", round(snapshot.heard_s, 3))
    yield _counter("audio_speech_seconds", "Sound of it that became utterances.", round(snapshot.speech_s, 3))
    yield _counter("audio_overruns", "How often the microphone was not read in time.", audio.xruns)
    yield _counter("audio_lost_seconds", "Sound lost by that.", audio.gaps_s)
    yield _counter("audio_device_losses", "How often the microphone went away or hung.", audio.losses)
    yield _counter("audio_silences", "How often the microphone fell dead silent.", audio.silences)
    yield _gauge("audio_offset_ratio", "Mean of the samples of the last minute.", _times(audio.offset_pct, _PERCENT))
    yield _gauge("audio_noise_floor_dbfs", "Level of the room without speech.", audio.noise_floor_dbfs)
    yield _gauge(
        "audio_clipped_ratio", "Share of the samples of speech at full scale.", _times(audio.clip_pct, _PERCENT)
    )


def _recognition(snapshot: Snapshot) -> Iterable[Family]:
    asr = snapshot.asr
    results = (Sample(asr.utt, {"result": "published"}), Sample(asr.rejected, {"result": "rejected"}))
    yield Family("utterances_total", "counter", "Utterances that were transcribed.", results)
    yield _counter("sounds_discarded", "Sounds called speech that were too short to be an utterance.", asr.discarded)
    yield _gauge("utterances_waiting", "Utterances that wait for the engine.", asr.waiting)
    yield _counter("speech_dropped_seconds", "Speech that was given up.", asr.dropped_s)
    yield _counter("engine_restarts", "Processes of the engine that died or hung.", asr.engine_restarts)
    rtfs = (Sample(snapshot.rtfs),)
    yield Family("real_time_factor", "histogram", "Inference time over the length of the utterance.", rtfs)
    latencies = tuple(Sample(took_s, {"stage": stage}) for stage, took_s in snapshot.latencies_s.items())
    yield Family("latency_seconds", "histogram", "Where the time of an utterance went.", latencies)


def _link(snapshot: Snapshot) -> Iterable[Family]:
    if (mqtt := snapshot.mqtt) is None:
        return
    yield _gauge("outbox_messages", "Messages that wait for the broker.", mqtt.outbox_n)
    yield _gauge("outbox_bytes", "Room that they take.", _times(mqtt.outbox_mb, _MIB))
    yield _counter("messages_dropped", "Messages that were given up.", mqtt.dropped)
    yield _counter("mqtt_reconnects", "Connections after the first one.", mqtt.reconnects)
    p95_s = _times(mqtt.puback_ms_p95, _MS)
    yield _gauge("mqtt_acknowledgement_p95_seconds", "Until the broker acknowledged, of the last 64 messages.", p95_s)
