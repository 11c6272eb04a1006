"""The whole agent in a process of its own, playing a recording, with a broker and a subscriber."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import soundfile

from agent.audio.frames import SAMPLE_RATE_HZ, Pcm16
from agent.bench import usage
from agent.bench.latency import Arrival
from agent.bench.lifeline import tied
from agent.bench.process import OURS_ENVIRONMENT
from agent.bench.systems import System, engine_settings, listening_settings
from agent.bench.wire_format import PeerError
from agent.mqtt.embedded_broker import embedded_broker
from agent.mqtt.subscriber import Subscriber

_SAMPLE_EVERY_S = 0.25
_GRACE_S = 120.0
"""For loading, and for what is still to be said when the recording is over."""
_DEVICE_ID = "bench"


@dataclass(frozen=True, slots=True)
class Look:
    """What the agent had cost at one moment."""

    age_s: float
    """Since its process was started."""
    cpu_s: float
    """Of the agent with its children, so far."""


@dataclass(frozen=True, slots=True)
class AgentRun:
    """What came of one recording."""

    arrivals: tuple[Arrival, ...]
    peak_pss_bytes: int
    """Children included, looked at four times a second."""
    peak_rss_bytes: int
    cpu_s: float
    """From the start of the process, loading included."""
    wall_s: float
    looks: tuple[Look, ...]
    """About four a second."""


def run_agent(system: System, model_path: Path, pcm: Pcm16, language: str) -> AgentRun:
    """Play `pcm`, shape (n,), to an agent with the engine of `system`, as fast as a microphone would.

    `language` (ISO 639-1) is set unless the system's options say another.

    Raises:
        PeerError: the agent ended badly, or did not end.
        SinkError: there is no broker to be had.
    """
    with tempfile.TemporaryDirectory(prefix="edgescribe-bench-") as folder, embedded_broker() as broker:
        # An empty configuration, so that neither this device's settings nor its broker play a part.
        config = Path(folder) / "config.toml"
        config.touch()
        recording = Path(folder) / "recording.wav"
        soundfile.write(recording, pcm, SAMPLE_RATE_HZ, subtype="PCM_16")
        options = [
            *_overrides(system, model_path, language),
            f"source.path={recording}",
            f"mqtt.host={broker.host}",
            f"mqtt.port={broker.port}",
            f"state_dir={folder}",
        ]
        with Subscriber(broker.settings, f"edgescribe/v1/{_DEVICE_ID}/transcript") as subscriber:
            started_s = time.monotonic()
            watched = _watch(config, options, len(pcm) / SAMPLE_RATE_HZ + _GRACE_S, Path(folder) / "complaints")
            wall_s = time.monotonic() - started_s
            time.sleep(_SAMPLE_EVERY_S)
        received = list(subscriber)
    clock_offset_s = time.time() - time.monotonic()
    arrivals = tuple(_arrival(message.payload, message.received_s + clock_offset_s) for message in received)
    return AgentRun(
        arrivals, watched.peak_pss_bytes, watched.peak_rss_bytes, watched.cpu_s, wall_s, tuple(watched.looks)
    )


@dataclass(slots=True)
class _Watched:
    peak_pss_bytes: int = 0
    peak_rss_bytes: int = 0
    cpu_s: float = 0.0
    looks: list[Look] = field(default_factory=list)


def _watch(config: Path, overrides: Sequence[str], limit_s: float, complaints: Path) -> _Watched:
    """Run the agent to its end, and keep an eye on it; whatever comes between, nothing of it stays."""
    command = [sys.executable, "-m", "agent", "run", "--config", str(config)]
    for override in overrides:
        command += ["--set", override]
    with complaints.open("wb") as stderr:
        process = subprocess.Popen(
            tied(command),
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=_environment(),
            start_new_session=True,
        )
    try:
        watched = _look_until_the_end(process, limit_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode:
        lines = complaints.read_text(encoding="utf-8", errors="replace").splitlines() or ["it said nothing"]
        raise PeerError(f"the agent ended with status {process.returncode}: {lines[-1]}")
    return watched


def _look_until_the_end(process: "subprocess.Popen[bytes]", limit_s: float) -> _Watched:
    watched = _Watched()
    started_s = time.monotonic()
    deadline = started_s + limit_s
    while process.poll() is None:
        if time.monotonic() > deadline:
            raise PeerError(f"the agent did not end within {limit_s:.0f} s")
        _look(process.pid, watched)
        watched.looks.append(Look(time.monotonic() - started_s, watched.cpu_s))
        time.sleep(_SAMPLE_EVERY_S)
    return watched


def _environment() -> dict[str, str]:
    foreign = ("EDGESCRIBE_", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_")
    return {key: value for key, value in os.environ.items() if not key.startswith(foreign)} | OURS_ENVIRONMENT


def _look(pid: int, watched: _Watched) -> None:
    family = [pid, *usage.descendants(pid)]
    watched.peak_pss_bytes = max(watched.peak_pss_bytes, usage.pss_bytes(family))
    watched.peak_rss_bytes = max(watched.peak_rss_bytes, usage.peak_rss_bytes(family))
    watched.cpu_s = max(watched.cpu_s, sum(map(usage.cpu_s, family)))


def _overrides(system: System, model_path: Path, language: str) -> list[str]:
    engine = engine_settings(system.adapter, str(model_path.resolve()), system.options, language)
    vad, segmenter = listening_settings(system.options)
    return [
        *(f"engine.{key}={value}" for key, value in engine.items()),
        *(f"vad.{key}={value}" for key, value in vad.model_dump().items()),
        *(f"segmenter.{key}={value}" for key, value in segmenter.model_dump().items()),
        f"device.id={_DEVICE_ID}",
        "source.kind=wav",
        "source.pace=realtime",
        "log.level=warning",
    ]


def _arrival(payload: bytes, received_s: float) -> Arrival:
    message = json.loads(payload)
    started_s = datetime.fromisoformat(message["start"]).timestamp()
    return Arrival(started_s, float(message["duration_s"]), str(message["text"]), received_s)
