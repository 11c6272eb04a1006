"""Finds out what a person would otherwise have to be asked: the program, the microphone, the board, what is there."""

import hashlib
import json
import platform
import stat
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import psutil
from pydantic import TypeAdapter, ValidationError

import agent
from agent.audio import libasound
from agent.audio.libasound import CaptureDevice, capture_devices, card_devices
from agent.errors import ConfigError, InstallError
from agent.messages import identity

CONFIG: Final = Path("/etc/edgescribe/config.toml")
PASSWORD: Final = Path("/etc/edgescribe/mqtt-password")
COMMAND: Final = Path("/usr/local/bin/edgescribe")
"""Where everybody's shell finds the program."""
STATE: Final = "/var/lib/edgescribe"
"""The unit's `StateDirectory=`."""
UNIT_FILE: Final = Path("/etc/systemd/system/edgescribe.service")
RECORD: Final = Path("/etc/edgescribe/installed.json")
HIDDEN: Final = tuple(Path(folder) for folder in ("/home", "/root", "/run/user", "/tmp", "/var/tmp"))  # noqa: S108
"""What `ProtectHome=` and `PrivateTmp=` keep from the service."""
ANYTHING: Final = frozenset({"default", "pulse", "pipewire"})
"""Names in ALSA's configuration that stand for no microphone in particular, or for one of a user's session."""


@dataclass(frozen=True, slots=True)
class Record:
    """What `edgescribe service install` has written on this machine, to be told from what others wrote."""

    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of what was written, in hexadecimal, by path; of the password nothing: everybody may read this."""
    folders: tuple[str, ...] = ()
    """Folders that were not there before, outermost first."""

    def wrote(self, path: str, text: str) -> bool:
        """Whether `text` is what was written to `path`."""
        return self.files.get(path) == digest(text)

    def as_text(self) -> str:
        """The record as a file; `from_text` reads it."""
        return json.dumps({"v": 1, "files": self.files, "folders": self.folders}, indent=1) + "\n"

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The record that `as_text` wrote.

        Raises:
            InstallError: it is not one.
        """
        try:
            return TypeAdapter(cls).validate_json(text)
        except ValidationError as error:
            raise InstallError(
                f"{RECORD}: not a record of what was installed: delete it, and install with --force"
            ) from error


def digest(text: str) -> str:
    """SHA-256 of `text` in UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Found:
    """What there is on this machine. An empty problem means that there is none."""

    program: Path
    """The command `edgescribe` of this very environment."""
    program_problem: str
    """Why the service could not run it."""
    microphones: tuple[CaptureDevice, ...]
    alsa: bool
    """Whether libasound is installed."""
    board: str
    """Model of the board; empty if unknown."""
    arch: str
    """As `uname -m` says it."""
    memory_mb: int
    config: str | None
    """Text of the configuration file; None if there is none. The same for the unit."""
    unit: str | None
    command: str | None
    """Text of the file at `COMMAND`; None if there is none."""
    record: Record


def look(root: Path = Path("/")) -> Found:
    """Find everything out.

    Raises:
        InstallError: the record of an earlier installation cannot be read.
    """
    program = Path(sysconfig.get_path("scripts")) / "edgescribe"
    record = _text(below(root, RECORD))
    return Found(
        program=program,
        program_problem=program_problem(program),
        microphones=microphones(root),
        alsa=libasound.installed(),
        board=identity.hardware(root) or "",
        arch=platform.machine(),
        memory_mb=psutil.virtual_memory().total >> 20,
        config=_text(below(root, CONFIG)),
        unit=_text(below(root, UNIT_FILE)),
        command=_text(below(root, COMMAND)),
        record=Record() if record is None else Record.from_text(record),
    )


def below(root: Path, path: Path) -> Path:
    """`path` in the file system of `root`."""
    return root / path.relative_to("/")


def microphones(root: Path = Path("/")) -> tuple[CaptureDevice, ...]:
    """The sound cards that can record; where there are none, what ALSA's configuration names."""
    if cards := card_devices(root / "proc/asound"):
        return cards
    try:
        return tuple(device for device in capture_devices(root / "proc/asound") if device.pcm not in ANYTHING)
    except ConfigError:  # there is no libasound, which `Found.alsa` says
        return ()


def program_problem(program: Path) -> str:
    """Why a service with a user and a view of its own could not run `program`; empty if it can."""
    if not program.is_file():
        return f"there is no {program}: install edgescribe with pip, and run it from there"
    parts = (program, Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable), Path(agent.__file__).parent)
    for path in dict.fromkeys(each for part in parts for each in (part, part.resolve())):
        if folder := hidden_by(path):
            return f"{path} is in {folder}, which the service does not see: install edgescribe in /opt/edgescribe"
        if shut := next(closed_to_others(path), None):
            return f"{shut} is closed to other users, and the service is one: chmod -R a+rX {shut}"
    return ""


def hidden_by(path: Path) -> Path | None:
    """The folder that hides `path` from the service; None if it is in plain sight."""
    return next((folder for folder in HIDDEN if path.is_relative_to(folder)), None)


def closed_to_others(path: Path) -> Iterator[Path]:
    """What of `path` and the folders above it not everybody may read or enter, outermost first."""
    for part in (*reversed(path.parents), path):
        mode = part.stat().st_mode
        needed = stat.S_IXOTH if part.is_dir() else stat.S_IROTH
        if not mode & needed:
            yield part


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except FileNotFoundError:
        return None
