"""The features of this CPU, and the features that an installed package needs, found without a native import.

A wheel that was compiled for a CPU class (`supply/`) has `RECORD_NAME` in its `.dist-info`. On a CPU without its
features SIGILL kills the process, at some sentence. So `create_engine` calls `refused` before the import.
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
    """The CPU class that an installed package was compiled for."""

    package: str
    """Name and version, as in pip."""
    cpu: str
    """Class, such as `cortex-a76`."""
    arch: str
    """As in `uname -m`."""
    needs: frozenset[str]
    """The CPU features that it uses, named as in /proc/cpuinfo."""


def features(root: Path = ROOT) -> frozenset[str]:
    """Return the features of this CPU, named as in /proc/cpuinfo; empty if they are unknown.

    On arm64 the kernel answers directly, for every core, and also for a CPU that qemu-user emulates.
    """
    if root == ROOT and platform.machine() == "aarch64":
        getauxval = ctypes.CDLL(None).getauxval
        getauxval.argtypes, getauxval.restype = [ctypes.c_ulong], ctypes.c_ulong
        return frozenset(
            name
            for vector, names in ((_AT_HWCAP, _HWCAP), (_AT_HWCAP2, _HWCAP2))
            for name, bit in names.items()
            if getauxval(vector) >> bit & 1
        )
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    named = (line.partition(":")[2] for line in lines if line.lower().startswith(("flags", "features")))
    return frozenset(next(named, "").split())


def built_for(package: str) -> BuiltFor | None:
    """Return the CPU class of the installed `package`; None without a record, as in wheels of the index."""
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
    """Return why a CPU of `arch` with the features `has` cannot run a package; empty if it can, or if unknown."""
    if built is None or not has:
        return ""
    if built.arch != arch:
        return f"{built.package} was built for {built.arch}, and this machine is {arch}: {_remedy(arch)}"
    if missing := sorted(built.needs - has):
        lacks = ", ".join(missing)
        return f"{built.package} was built for {built.cpu} and needs {lacks}, which this CPU lacks: {_remedy(arch)}"
    return ""


def refused(package: str) -> str:
    """Return why this CPU cannot run the installed `package`; empty if it can."""
    return refusal(built_for(package), features(), platform.machine())


def _remedy(arch: str) -> str:
    plainest = "armv8-a" if arch == "aarch64" else "native"
    return f"install from wheelhouse/{arch}-{plainest} instead (docs/wheelhouse.md)"


def engine_threads(setting: int, cores: int | None = None) -> int:
    """Return the number of inference threads: `setting`, or for 0 all `cores` but one, and at least one.

    One core stays free: OpenMP's threads wait for the slowest, so inference on all cores collapses as soon as another
    program runs. `cores` defaults to the cores that this process may use; the unit or a container may limit them.
    """
    return setting or max(1, (cores or len(os.sched_getaffinity(0))) - 1)
