"""Read and write the calibration of this device: `calibration.json` in the state folder."""

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError

from agent.config.commanded import SERVICE_STATE
from agent.config.layers import state_dir
from agent.config.settings import Settings
from agent.config.state_file import read_json, write_json
from agent.errors import AgentError
from agent.messages import identity

VERSION: Final = 1
"""Of the file. A file with another number is refused."""
NAME: Final = "calibration.json"
PACKAGES: Final = {"whisper_cpp": "pywhispercpp", "faster_whisper": "ctranslate2"}
"""The distribution of each engine."""

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
    """The figures of a candidate on the bundled clips. Of several passes over a clip, the best counts."""

    candidate: Candidate
    size: str
    """Whisper's size class: tiny, base, small, …"""
    english_only: bool
    words: int
    """Words in the clips."""
    errors: int
    """Inserted, missing or replaced words."""
    rtf_p95: float
    """Seconds of inference for a second of speech: the clip at the 95th percentile."""
    latency_p50_s: float
    """Seconds of inference for the median clip, a sentence of 3 s."""
    cpu_per_speech: float
    """CPU seconds for a second of speech, all threads added up, over all clips."""
    peak_mb: int
    """Highest memory of its process, loading included, in 10⁶ bytes."""
    load_s: float
    """Seconds until its first answer."""
    passes: int
    """Number of passes over the clips."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A candidate without figures."""

    engine: Engine
    model: str
    why: str


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The machine and the engines behind the figures. If one of them changes, the figures are stale."""

    board: str
    """From the device tree or DMI; empty if neither has it."""
    cpu: str
    cores: int
    """Cores that the agent may use."""
    engines: Mapping[str, str]
    """Version of each engine's package, by its distribution's name."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits for candidates."""

    memory_mb: int
    """For the engine, in 10⁶ bytes: the available memory, less a reserve and the rest of the agent."""
    rtf_p95: float = 0.5
    """The other half of the time is for catching up after a burst, for heat, and for neighbours."""
    latency_p50_s: float = 0.8
    """Decoding begins 0.2 s into the pause. So the words are there within a second after the last of them."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidate to use, and why."""

    candidate: Candidate
    keeps_up: bool
    """False if no candidate keeps the limits. Then this one is only the least bad."""
    reasons: tuple[str, ...]
    """Plain sentences."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The whole document."""

    v: int
    measured_at: datetime
    agent: str
    """Version of the agent."""
    fingerprint: Fingerprint
    language: str
    """`engine.language` at that time."""
    limits: Limits
    measurements: tuple[Measurement, ...]
    front: tuple[Candidate, ...]
    """The Pareto front: no other candidate is better in everything."""
    skipped: tuple[Skipped, ...]
    others_cpu_pct: float
    """Percentage of all cores that other programs took meanwhile. A busy machine makes all times longer."""
    choice: Choice


def plural(number: int, noun: str) -> str:
    """Return `1 thread`, `2 threads`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


_ADAPTER = TypeAdapter(Calibration)


class CalibrationError(AgentError):
    """The calibration is missing, or cannot be read or written."""


def folder_of(settings: Settings) -> Path:
    """Return the state folder that holds the calibration. Root measures for the service, in its folder."""
    named = settings.state_dir or "STATE_DIRECTORY" in os.environ
    for_service = not named and os.geteuid() == 0 and SERVICE_STATE.is_dir()
    return SERVICE_STATE if for_service else state_dir(settings)


def command() -> str:
    """Return the command that calibrates. The service needs sudo: its state folder is not the folder of the user."""
    return "`sudo edgescribe calibrate`" if "STATE_DIRECTORY" in os.environ else "`edgescribe calibrate`"


def write_calibration(folder: Path, calibration: Calibration) -> Path:
    """Write the file so that it survives a power cut; return its path.

    Raises:
        CalibrationError: it cannot be written.
    """
    path = folder / NAME
    try:  # the service may run as another user than the one who calibrates
        write_json(path, _ADAPTER.dump_python(calibration, mode="json"), mode=0o644, indent=1)
    except OSError as error:
        raise CalibrationError(
            f"{path}: cannot be written ({error.strerror}): run it as a user who may, or set state_dir"
        ) from error
    return path


def read_calibration(folder: Path) -> Calibration:
    """Read the file.

    Raises:
        CalibrationError: it is absent, cannot be read, or is of another version.
    """
    path = folder / NAME
    again = f"run {command()} again"
    try:
        document = read_json(path)
        if not isinstance(document, dict) or document.get("v") != VERSION:
            raise CalibrationError(f"{path}: was not written by this version: {again}")
        return _ADAPTER.validate_python(document)
    except FileNotFoundError as error:
        raise CalibrationError(f"this device is not calibrated: run {command()}") from error
    except OSError as error:
        raise CalibrationError(f"{path}: cannot be read ({error.strerror}): check its owner and mode") from error
    except ValidationError as error:
        place = ".".join(str(step) for step in error.errors()[0]["loc"])
        raise CalibrationError(f"{path}: {place} is not as it was written: {again}") from error
    except ValueError as error:
        raise CalibrationError(f"{path}: is damaged ({error}): {again}") from error


def as_json(calibration: Calibration) -> str:
    """Return the document as indented JSON."""
    return json.dumps(_ADAPTER.dump_python(calibration, mode="json"), indent=1, ensure_ascii=False)


def fingerprint(root: Path = identity.ROOT) -> Fingerprint:
    """Return the fingerprint of this machine now. Its files are looked up below `root`."""
    return Fingerprint(
        board=identity.hardware(root) or "",
        cpu=cpu_name(root),
        cores=len(os.sched_getaffinity(0)),
        engines={name: version for name in PACKAGES.values() if (version := _version(name))},
    )


def differences(then: Fingerprint, now: Fingerprint) -> list[str]:
    """Return the changes as phrases; empty if the figures still hold."""
    pairs: list[tuple[str, object, object]] = [
        ("the board", then.board or "unknown", now.board or "unknown"),
        ("the CPU", then.cpu or "unknown", now.cpu or "unknown"),
        ("the number of cores", then.cores, now.cores),
    ]
    names = sorted({*then.engines, *now.engines})
    pairs += [(name, then.engines.get(name, "absent"), now.engines.get(name, "absent")) for name in names]
    return [f"{what} was {before} and is {after}" for what, before, after in pairs if before != after]


def installed_engines() -> tuple[str, ...]:
    """Return the kinds of engines whose package is installed."""
    return tuple(engine for engine, package in PACKAGES.items() if _version(package))


def cpu_name(root: Path = identity.ROOT) -> str:
    """Return `model name` on x86; on ARM, implementer and part; else the architecture."""
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    found = {key.strip(): text.strip() for key, _, text in (line.partition(":") for line in reversed(lines))}
    part = [found[key] for key in ("CPU implementer", "CPU part") if key in found]
    return found.get("model name") or " ".join([platform.machine(), *part])


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
