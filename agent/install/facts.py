"""Looks at the machine, so that the user need not be asked: program, microphones, board, files of an installation."""

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
"""The program, where every shell finds it."""
STATE: Final = "/var/lib/edgescribe"
"""The unit's `StateDirectory=`."""
UNIT_FILE: Final = Path("/etc/systemd/system/edgescribe.service")
RECORD: Final = Path("/etc/edgescribe/installed.json")
HIDDEN: Final = tuple(Path(folder) for folder in ("/home", "/root", "/run/user", "/tmp", "/var/tmp"))  # noqa: S108
"""Folders that `ProtectHome=` and `PrivateTmp=` hide from the service."""
ANYTHING: Final = frozenset({"default", "pulse", "pipewire"})
"""Names in ALSA's configuration for any microphone, or for one of a user's session."""


@dataclass(frozen=True, slots=True)
class Record:
    """The files that `edgescribe service install` has written on this machine."""

    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each file's text, in hexadecimal, by path; empty for the password: all users may read this record."""
    folders: tuple[str, ...] = ()
    """Folders that it has made, outermost first."""

    def wrote(self, path: str, text: str) -> bool:
        """Return whether the installation wrote `text` to `path`."""
        return self.files.get(path) == digest(text)

    def as_text(self) -> str:
        """Return the record as a file; `from_text` reads it."""
        return json.dumps({"v": 1, "files": self.files, "folders": self.folders}, indent=1) + "\n"

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the record that `as_text` wrote.

        Raises:
            InstallError: the text is no record.
        """
        try:
            return TypeAdapter(cls).validate_json(text)
        except ValidationError as error:
            remedy = "delete it, and install with --force"
            raise InstallError(f"{RECORD}: not a record of an installation: {remedy}") from error


def digest(text: str) -> str:
    """Return the SHA-256 of `text` in UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Found:
    """Everything that `plan` needs to know of this machine. An empty problem means that there is none."""

    program: Path
    """The command `edgescribe` of this environment."""
    program_problem: str
    """Why the service could not run it."""
    microphones: tuple[CaptureDevice, ...]
    alsa: bool
    """libasound is installed."""
    board: str
    """Model of the board; empty if unknown."""
    arch: str
    """As `uname -m` says it."""
    memory_mb: int
    config: str | None
    """Text of the file at `CONFIG`; None if there is none."""
    unit: str | None
    """Text of the file at `UNIT_FILE`; None if there is none."""
    command: str | None
    """Text of the file at `COMMAND`; None if there is none."""
    record: Record


def look(root: Path = Path("/")) -> Found:
    """Find everything out.

    Raises:
        InstallError: the record of an earlier installation cannot be read.
    """
    program = Path(sysconfig.get_path("scripts")) / "edgescribe"
    config, unit, command, record = (_text(below(root, path)) for path in (CONFIG, UNIT_FILE, COMMAND, RECORD))
    return Found(
        program=program,
        program_problem=program_problem(program),
        microphones=microphones(root),
        alsa=libasound.installed(),
        board=identity.hardware(root) or "",
        arch=platform.machine(),
        memory_mb=psutil.virtual_memory().total >> 20,
        config=config,
        unit=unit,
        command=command,
        record=Record() if record is None else Record.from_text(record),
    )


def below(root: Path, path: str | Path) -> Path:
    """Return the absolute `path` in the file system of `root`."""
    return root / str(path).lstrip("/")


def microphones(root: Path = Path("/")) -> tuple[CaptureDevice, ...]:
    """Return the sound cards that can record; without any, the devices that ALSA's configuration names."""
    if cards := card_devices(root / "proc/asound"):
        return cards
    try:
        return tuple(device for device in capture_devices(root / "proc/asound") if device.pcm not in ANYTHING)
    except ConfigError:  # there is no libasound, see `Found.alsa`
        return ()


def program_problem(program: Path) -> str:
    """Return why the service, with a user and a view of its own, could not run `program`; empty if it can."""
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
    """Return the folder that hides `path` from the service; None if the service sees it."""
    return next((folder for folder in HIDDEN if path.is_relative_to(folder)), None)


def closed_to_others(path: Path) -> Iterator[Path]:
    """Return the parts of `path` that other users may not read or enter, outermost first."""
    for part in (*reversed(path.parents), path):
        needed = stat.S_IXOTH if part.is_dir() else stat.S_IROTH
        if not part.stat().st_mode & needed:
            yield part


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except FileNotFoundError:
        return None
