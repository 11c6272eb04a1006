"""Finds compilers, and the headers of the target's Python."""

import os
import shutil
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from supply.commands import printed, run
from supply.errors import SupplyError
from supply.target import Target, running_python

_DEBIAN_ARCH: Final = {"aarch64": "arm64", "x86_64": "amd64"}
_SUITES: Final = {"3.11": "bookworm", "3.13": "trixie"}
"""Debian's releases, by the Python that they have."""


@dataclass(frozen=True, slots=True)
class Toolchain:
    """The compilers for a target."""

    cc: str
    cxx: str
    cmake: tuple[str, ...]
    """Options of CMake for a foreign target."""
    python_headers: tuple[Path, ...]

    @property
    def openmp(self) -> Path:
        """The runtime of OpenMP, for the wheel."""
        return Path(printed([self.cc, "-print-file-name=libgomp.so.1"])).resolve()

    @property
    def version(self) -> str:
        """First line of the compiler's version."""
        return printed([self.cxx, "--version"]).splitlines()[0]


def toolchain(target: Target, work: Path, log: Path) -> Toolchain:
    """Find the compilers for `target`; for a foreign target, download its headers.

    Raises:
        SupplyError: a compiler or a package is missing.
    """
    return _here(target) if target.is_here else _foreign(target, work / f"sysroot-{target.arch}-{target.python}", log)


def _here(target: Target) -> Toolchain:
    if target.python != running_python():
        raise SupplyError(f"for Python {target.python} run it with that Python: this one is {running_python()}")
    headers = {Path(sysconfig.get_path(name)) for name in ("include", "platinclude")}
    if not any((folder / "Python.h").is_file() for folder in headers):
        raise SupplyError("Python's headers are missing: apt-get install python3-dev")
    return Toolchain("gcc", "g++", (), tuple(sorted(headers)))


def _foreign(target: Target, sysroot: Path, log: Path) -> Toolchain:
    triplet = f"{target.arch}-linux-gnu"
    cc, cxx = f"{triplet}-gcc", f"{triplet}-g++"
    if shutil.which(cxx) is None:
        raise SupplyError(f"{cxx} is missing: apt-get install g++-{triplet.replace('_', '-')}")
    python = f"python{target.python}"
    if not (sysroot / "complete").exists():
        suite = _SUITES.get(target.python)
        if suite is None:
            raise SupplyError(f"no Debian has Python {target.python}: choose one of {', '.join(_SUITES)}")
        _debian_package(f"lib{python}-dev", target.arch, suite, sysroot, log)
        (sysroot / "complete").touch()
    usr = sysroot / "usr"
    return Toolchain(
        cc,
        cxx,
        (
            "-DCMAKE_SYSTEM_NAME=Linux",
            f"-DCMAKE_SYSTEM_PROCESSOR={target.arch}",
            f"-DCMAKE_C_COMPILER={cc}",
            f"-DCMAKE_CXX_COMPILER={cxx}",
        ),
        (usr / "include" / python, usr / "include"),
    )


def _debian_package(name: str, arch: str, suite: str, sysroot: Path, log: Path) -> None:
    """Unpack a Debian package of a foreign architecture. apt verifies it, but does not install it.

    apt gets a separate state, with the mirrors of this machine.
    """
    apt = sysroot / "apt" / suite
    for folder in ("lists/partial", "archives/partial"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text(_sources(suite), encoding="utf-8")
    debian = _DEBIAN_ARCH[arch]
    settings = {
        "APT::Architecture": debian,
        "APT::Architectures": debian,
        "APT::Sandbox::User": "root",
        "Dir::State::lists": apt / "lists",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt,
        "Dir::Etc::sourcelist": apt / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Acquire::Languages": "none",
    }
    apt_get = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in settings.items())]
    run([*apt_get, "update"], log)
    run([*apt_get, "download", name], log, folder=apt)
    for package in sorted(apt.glob("*.deb")):
        run(["dpkg-deb", "--extract", package, sysroot], log)


def _sources(suite: str) -> str:
    """Return one line of a sources.list, with this machine's mirror."""
    mirrors = printed(["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages"]).splitlines()
    site = next((one for one in mirrors if "security" not in one), "")
    if not site:
        raise SupplyError("apt knows no mirror: see /etc/apt/sources.list, and run apt-get update")
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    signed = f"[signed-by={keyring}] " if os.path.exists(keyring) else ""  # noqa: PTH110 - a constant
    return f"deb {signed}{site} {suite} main\n"
