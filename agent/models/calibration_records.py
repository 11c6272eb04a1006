"""What a calibration found, as it is kept in `calibration.json`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

VERSION = 1
"""Of the file. Another number is another format, and as good as no file."""

Engine = Literal["whisper_cpp", "faster_whisper"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to transcribe on this machine."""

    engine: Engine
    model: str
    """Name in the catalogue."""
    threads: Annotated[int, Field(ge=0, le=64)]

    def __str__(self) -> str:
        return f"{self.engine} {self.model} with {plural(self.threads, 'thread')}"


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a candidate did with the bundled clips. Of several passes over a clip, the best counts."""

    candidate: Candidate
    size: str
    """Whisper's size class: tiny, base, small, …"""
    english_only: bool
    words: int
    """Said in the clips."""
    errors: int
    """Words inserted, left out or replaced."""
    rtf_p95: float
    """Seconds of inference for a second of speech: the clip at the 95th percentile."""
    latency_p50_s: float
    """Seconds of inference for the median clip, a sentence of 3 s."""
    cpu_per_speech: float
    """CPU seconds for a second of speech, all threads added up, over all clips."""
    peak_mb: int
    """Most memory that its process ever took, loading included, in 10⁶ bytes."""
    load_s: float
    """Seconds until it had answered for the first time."""
    passes: int
    """How often it went through the clips."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A candidate without figures."""

    engine: Engine
    model: str
    why: str


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What the figures depend on: if one of these changes, they are stale."""

    board: str
    """From the device tree or DMI; empty if neither says."""
    cpu: str
    cores: int
    """That the agent may use."""
    engines: Mapping[str, str]
    """Version of each engine's package, by its distribution's name."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a candidate has to keep to."""

    memory_mb: int
    """For the engine, in 10⁶ bytes: what was available, less a reserve and the rest of the agent."""
    rtf_p95: float = 0.5
    """The other half of the time is for catching up after a burst, for heat, and for neighbours."""
    latency_p50_s: float = 0.8
    """Decoding begins 0.2 s into the pause: so that the words are there within a second of the last of them."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidate to use, and why."""

    candidate: Candidate
    keeps_up: bool
    """False if nothing on this device keeps to the limits, and this is only the least bad."""
    reasons: tuple[str, ...]
    """Plain sentences."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The whole document."""

    v: int
    measured_at: datetime
    agent: str
    """Version that measured."""
    fingerprint: Fingerprint
    language: str
    """`engine.language` at that time."""
    limits: Limits
    measurements: tuple[Measurement, ...]
    front: tuple[Candidate, ...]
    """Those that no other beats in everything."""
    skipped: tuple[Skipped, ...]
    others_cpu_pct: float
    """What other programs took of all cores meanwhile. Times are only as good as the machine was quiet."""
    choice: Choice


def plural(number: int, noun: str) -> str:
    """`1 thread`, `2 threads`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
