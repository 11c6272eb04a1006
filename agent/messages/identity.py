"""Which machine this is: its id, its board, its boot, and whether its clock can be trusted.

Files are looked up below `root`, so that tests bring their own machine.
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
    """What does not change until the next boot. What cannot be found out is None."""

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
    """The id from the settings, else from the host name."""
    return setting or slug(socket.gethostname())


def describe(root: Path = ROOT) -> Machine:
    """Look this machine up."""
    uname = os.uname()
    return Machine(
        boot_id=boot_id(root),
        hardware=hardware(root),
        os=os_name(root),
        kernel=uname.release,
        arch=uname.machine,
        python=platform.python_version(),
    )


def boot_id(root: Path = ROOT) -> str:
    """The kernel's random name for this boot (random(4)).

    Where /proc does not tell it, each process invents one: messages of an earlier process may be of an earlier boot.
    """
    return _read(root / "proc/sys/kernel/random/boot_id") or _invented_boot_id()


@cache
def _invented_boot_id() -> str:
    return str(uuid.uuid4())


def hardware(root: Path = ROOT) -> str | None:
    """The board: from the device tree (Raspberry Pi, Jetson), else from DMI (PCs)."""
    if model := _read(root / "proc/device-tree/model"):
        return model
    vendor = _read(root / "sys/class/dmi/id/sys_vendor")
    product = _read(root / "sys/class/dmi/id/product_name")
    return " ".join(part for part in (vendor, product) if part) or None


def serial(root: Path = ROOT) -> str | None:
    """The board's serial number from the device tree (Raspberry Pi, Jetson); None for PCs."""
    return _read(root / "proc/device-tree/serial-number")


def os_name(root: Path = ROOT) -> str | None:
    """`PRETTY_NAME` of os-release(5)."""
    for path in ("etc/os-release", "usr/lib/os-release"):
        for line in (_read(root / path) or "").splitlines():
            key, _, value = line.partition("=")
            if key == "PRETTY_NAME":
                return value.strip("\"'") or None
    return None


def _read(path: Path) -> str | None:
    try:
        # The device tree ends its strings with a NUL byte.
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n") or None
    except OSError:
        return None


class _Timex(ctypes.Structure):
    """The beginning of `struct timex` (adjtimex(2)), and room for the rest on any architecture."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


_TIME_ERROR: Final = 5
_STA_UNSYNC: Final = 0x40


def time_synced(root: Path = ROOT) -> bool:
    """Whether the system clock is synchronised: says the kernel, or systemd-timesyncd where we may not ask the kernel.

    A Raspberry Pi has no clock of its own that survives a power cut; until it is synchronised, its time is a guess.
    """
    timex = _Timex(modes=0)  # 0 changes nothing, and needs no privilege
    state: int = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    if state >= 0:
        return state != _TIME_ERROR and not timex.status & _STA_UNSYNC
    return (root / "run/systemd/timesync/synchronized").exists()
