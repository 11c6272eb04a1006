"""Finds out what a person would otherwise have to be asked: the program, the microphone, the broker, the board."""

import platform
import socket
import stat
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

import agent
from agent.audio import libasound
from agent.audio.libasound import CaptureDevice, capture_devices, card_devices
from agent.errors import ConfigError
from agent.install.record import FILE, Record, from_text
from agent.install.unit import UNIT
from agent.messages import identity

CONFIG: Final = Path("/etc/edgescribe/config.toml")
PASSWORD: Final = Path("/etc/edgescribe/mqtt-password")
COMMAND: Final = Path("/usr/local/bin/edgescribe")
"""Where everybody's shell finds the program."""
STATE: Final = "/var/lib/edgescribe"
"""The unit's `StateDirectory=`."""
UNIT_FILE: Final = Path("/etc/systemd/system") / UNIT
MQTT_PORT: Final = 1883
BROKERS: Final = ("localhost", "homeassistant.local")
"""Where a broker is at home: on this machine, or beside Home Assistant OS, which announces this name."""
HIDDEN: Final = tuple(Path(folder) for folder in ("/home", "/root", "/run/user", "/tmp", "/var/tmp"))  # noqa: S108
"""What `ProtectHome=` and `PrivateTmp=` keep from the service."""
ANYTHING: Final = frozenset({"default", "pulse", "pipewire"})
"""Names in ALSA's configuration that stand for no microphone in particular, or for one of a user's session."""
_ANSWER_S: Final = 2.0
_MIB: Final = 1 << 20


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
    broker: str | None
    """Host on which something listens on MQTT's port; None if that was not asked, or nobody does."""
    board: str
    """Model of the board; empty if unknown."""
    arch: str
    """As `uname -m` says it."""
    memory_mb: int
    config: str | None
    """Text of the configuration file; None if there is none. The same for the unit."""
    unit: str | None
    command: str | None
    """Text of whatever lies at `COMMAND`; None if nothing does."""
    has_password: bool
    """Whether there is a file with the broker's password."""
    record: Record


def look(*, ask_for_broker: bool, root: Path = Path("/")) -> Found:
    """Find everything out. Asking for a broker takes some seconds where none answers.

    Raises:
        InstallError: the record of an earlier installation cannot be read.
    """
    program = Path(sysconfig.get_path("scripts")) / "edgescribe"
    record = _text(below(root, FILE))
    return Found(
        program=program,
        program_problem=program_problem(program),
        microphones=microphones(root),
        alsa=libasound.installed(),
        broker=next((host for host in BROKERS if answers(host, MQTT_PORT)), None) if ask_for_broker else None,
        board=identity.hardware(root) or "",
        arch=platform.machine(),
        memory_mb=psutil.virtual_memory().total // _MIB,
        config=_text(below(root, CONFIG)),
        unit=_text(below(root, UNIT_FILE)),
        command=_text(below(root, COMMAND)),
        has_password=below(root, PASSWORD).is_file(),
        record=from_text(record) if record is not None else Record(),
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


def answers(host: str, port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection((host, port), timeout=_ANSWER_S).close()
    except OSError:
        return False
    return True


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
