"""The identity of the machine: id, board, boot, and whether its clock can be trusted.

All files are below `root`, so that tests bring their own machine.
"""

import ctypes
import os
import platform
import re
import socket
import unicodedata
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path("/")
FALLBACK_ID: Final = "edgescribe"
_MAX_ID: Final = 36


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts that stay the same until the next boot. Unknown ones are None."""

    boot_id: str
    hardware: str | None
    """Board, such as `Raspberry Pi 5 Model B Rev 1.0`."""
    os: str | None
    """Pretty name of the distribution."""
    kernel: str
    arch: str
    python: str


def slug(name: str) -> str:
    """Make a device id, `[a-z0-9-]{1,36}`, from a host name: `Küche.local` becomes `kuche`."""
    plain = unicodedata.normalize("NFKD", name.partition(".")[0]).encode("ascii", errors="ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:_MAX_ID].rstrip("-") or FALLBACK_ID


def device_id(setting: str | None) -> str:
    """Return the id from the settings, else one from the host name."""
    return setting or slug(socket.gethostname())


def describe(root: Path = ROOT) -> Machine:
    """Return the facts about this machine."""
    uname = os.uname()
    return Machine(
        boot_id(root), hardware(root), os_name(root), uname.release, uname.machine, platform.python_version()
    )


def boot_id(root: Path = ROOT) -> str:
    """Return the kernel's random name for this boot (random(4)).

    Without /proc, each process invents a name: messages of an earlier process may belong to an earlier boot.
    """
    return _read(root / "proc/sys/kernel/random/boot_id") or _invented_boot_id()


@cache
def _invented_boot_id() -> str:
    return str(uuid.uuid4())


def hardware(root: Path = ROOT) -> str | None:
    """Return the board: from the device tree (Raspberry Pi, Jetson), else from DMI (PCs)."""
    if model := _read(root / "proc/device-tree/model"):
        return model
    names = (_read(root / "sys/class/dmi/id" / name) for name in ("sys_vendor", "product_name"))
    return " ".join(filter(None, names)) or None


def serial(root: Path = ROOT) -> str | None:
    """Return the board's serial number from the device tree (Raspberry Pi, Jetson); None for PCs."""
    return _read(root / "proc/device-tree/serial-number")


def os_name(root: Path = ROOT) -> str | None:
    """Return `PRETTY_NAME` of os-release(5)."""
    for path in ("etc/os-release", "usr/lib/os-release"):
        if found := re.search(r"^PRETTY_NAME=(.*)$", _read(root / path) or "", re.MULTILINE):
            return found[1].strip("\"'") or None
    return None


def _read(path: Path) -> str | None:
    try:
        # The device tree ends its strings with a NUL byte.
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n") or None
    except OSError:
        return None


_TIME_ERROR: Final = 5
"""State of a clock that is not synchronised (adjtimex(2))."""


def time_synced(root: Path = ROOT) -> bool:
    """Return whether the system clock is synchronised.

    Asks the kernel; where that is forbidden, systemd-timesyncd. A Raspberry Pi has no clock that survives a power cut:
    until it is synchronised, its time is a guess.
    """
    timex = (ctypes.c_long * 64)()  # longer than `struct timex`; zeros only read, and need no privilege
    state: int = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
    if state >= 0:
        return state != _TIME_ERROR
    return (root / "run/systemd/timesync/synchronized").exists()
