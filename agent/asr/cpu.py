"""What this CPU can do, and what an installed package was built to need; nothing native is imported to find out.

A wheel that was compiled for a CPU class (`supply/`) carries `RECORD_NAME` in its `.dist-info`. Whoever imports such a
wheel on a CPU that lacks what it needs is killed by SIGILL, at some sentence: hence `refused`, asked before.
"""

import ctypes
import json
import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path("/")
RECORD_NAME: Final = "cpu.json"
"""In the `.dist-info` of a wheel: `{"cpu": "cortex-a76", "arch": "aarch64", "needs": ["asimddp", …], …}`."""

_AT_HWCAP, _AT_HWCAP2 = 16, 26
_HWCAP: Final = {
    "fp": 0, "asimd": 1, "aes": 3, "pmull": 4, "sha1": 5, "sha2": 6, "crc32": 7, "atomics": 8, "fphp": 9, "asimdhp": 10,
    "asimdrdm": 12, "lrcpc": 15, "dcpop": 16, "sha3": 17, "asimddp": 20, "sha512": 21, "sve": 22, "asimdfhm": 23,
}  # fmt: skip
_HWCAP2: Final = {"sve2": 1, "svei8mm": 9, "i8mm": 13, "bf16": 14}
"""Bits of the kernel's hardware capabilities for arm64, Linux `arch/arm64/include/uapi/asm/hwcap.h`, named as
/proc/cpuinfo names them."""


@dataclass(frozen=True, slots=True)
class BuiltFor:
    """What an installed package was compiled for."""

    package: str
    """Name and version, as pip shows them."""
    cpu: str
    """Class, such as `cortex-a76`."""
    arch: str
    """As `uname -m` says it."""
    needs: frozenset[str]
    """CPU features without which it dies, as /proc/cpuinfo spells them."""


def features(root: Path = ROOT) -> frozenset[str]:
    """The features of this CPU as /proc/cpuinfo spells them; empty if they cannot be found out.

    On arm64 the kernel is asked directly: its answer holds for every core, and for a CPU that qemu-user emulates.
    """
    if root == ROOT and platform.machine() == "aarch64":
        return _arm64_features()
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    named = (line.partition(":")[2] for line in lines if line.lower().startswith(("flags", "features")))
    return frozenset(next(named, "").split())


def built_for(package: str) -> BuiltFor | None:
    """What the installed `package` was built for; None if it is absent or does not say (as wheels of the index do)."""
    try:
        installed = metadata.distribution(package)
        record: dict[str, Any] = json.loads(installed.read_text(RECORD_NAME) or "{}")
        if not record:
            return None
        named = f"{package} {installed.version}"
        return BuiltFor(named, str(record["cpu"]), str(record["arch"]), frozenset(record["needs"]))
    except (metadata.PackageNotFoundError, ValueError, KeyError, TypeError):
        return None


def refusal(built: BuiltFor | None, has: frozenset[str], arch: str) -> str:
    """Why a package must not be imported on a CPU of `arch` with the features `has`; empty if it may.

    Nothing is refused where nothing is known: a wheel that does not say what it needs, or a kernel that hides the CPU.
    """
    if built is None or not has:
        return ""
    if built.arch != arch:
        return f"{built.package} was built for {built.arch}, and this machine is {arch}: {_remedy(arch)}"
    if missing := sorted(built.needs - has):
        lacks = ", ".join(missing)
        return f"{built.package} was built for {built.cpu} and needs {lacks}, which this CPU lacks: {_remedy(arch)}"
    return ""


def refused(package: str) -> str:
    """Why the installed `package` must not be imported here; empty if it may."""
    return refusal(built_for(package), features(), platform.machine())


def _remedy(arch: str) -> str:
    plainest = "armv8-a" if arch == "aarch64" else "native"
    return f"install from wheelhouse/{arch}-{plainest} instead (docs/wheelhouse.md)"


def _arm64_features() -> frozenset[str]:
    getauxval = ctypes.CDLL(None).getauxval
    getauxval.argtypes, getauxval.restype = [ctypes.c_ulong], ctypes.c_ulong
    return _named(getauxval(_AT_HWCAP), _HWCAP) | _named(getauxval(_AT_HWCAP2), _HWCAP2)


def _named(bits: int, names: dict[str, int]) -> frozenset[str]:
    return frozenset(name for name, bit in names.items() if bits >> bit & 1)


def engine_threads(setting: int, cores: int | None = None) -> int:
    """Return the number of inference threads: `setting`, or for 0 all `cores` but one, and never fewer than one.

    A core stays free because inference that takes them all collapses the moment anything else runs: OpenMP's threads
    wait for the slowest. `cores` defaults to those this process may use (the unit or a container may allow fewer than
    the machine has).
    """
    if setting:
        return setting
    return max(1, (len(os.sched_getaffinity(0)) if cores is None else cores) - 1)
