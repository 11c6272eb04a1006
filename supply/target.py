"""The target of a wheelhouse: a kind of device."""

import os
import re
import sys
from dataclasses import dataclass
from typing import Final

from supply.errors import SupplyError

ARCHITECTURES: Final = ("aarch64", "x86_64")
PYTHONS: Final = ("3.11", "3.13")
"""Debian 12's and Debian 13's."""
_OLDEST_GLIBC, _NEWEST_GLIBC = 17, 35
"""Range of glibc 2.x for wheels from the index: Ubuntu 22.04 (JetPack 6) has 2.35, Debian 12 has 2.36."""


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of device."""

    arch: str
    """As `uname -m` prints it."""
    cpu: str
    """Name of a class in `cpus.py`."""
    python: str
    """CPython's version, such as `3.11`."""

    @property
    def folder(self) -> str:
        """Name of its wheelhouse: `aarch64-cortex-a76`; with `-py3.13` for any Python but the first of `PYTHONS`."""
        suffix = "" if self.python == PYTHONS[0] else f"-py{self.python}"
        return f"{self.arch}-{self.cpu}{suffix}"

    @property
    def tag(self) -> str:
        """The interpreter's tag: `cp311`."""
        return "cp" + self.python.replace(".", "")

    @property
    def extension(self) -> str:
        """Ending of the names of native modules."""
        return f".cpython-{self.python.replace('.', '')}-{self.arch}-linux-gnu.so"

    @property
    def wheel_tag(self) -> str:
        """Tag of wheels that are compiled here: `linux`, since they use libraries of the system (libasound)."""
        return f"{self.tag}-{self.tag}-linux_{self.arch}"

    @property
    def platforms(self) -> tuple[str, ...]:
        """Platforms that pip may take from the index, newest first."""
        manylinux = (f"manylinux_2_{minor}_{self.arch}" for minor in range(_NEWEST_GLIBC, _OLDEST_GLIBC - 1, -1))
        return (*manylinux, f"manylinux2014_{self.arch}", f"linux_{self.arch}")

    @property
    def environment(self) -> dict[str, str]:
        """Values for the environment markers of dependencies (PEP 508)."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": self.arch,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
            "extra": "",
        }

    @property
    def is_here(self) -> bool:
        """Whether this machine has the same architecture."""
        return self.arch == os.uname().machine


def target(arch: str, cpu: str, python: str) -> Target:
    """Return the target, after checking it.

    Raises:
        SupplyError: it is not supported.
    """
    if arch not in ARCHITECTURES:
        raise SupplyError(f"there is no architecture {arch!r}: choose one of {', '.join(ARCHITECTURES)}")
    if not re.fullmatch(r"3\.\d+", python):
        raise SupplyError(f"{python!r} is no version of Python: give two numbers, such as 3.11")
    return Target(arch, cpu, python)


def running_python() -> str:
    """Return the version of this interpreter, as in `Target.python`."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"
