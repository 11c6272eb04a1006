"""systemd, asked by systemctl(1)."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.errors import InstallError

SERVICE: Final = "edgescribe"
_START_S: Final = 150.0
"""A start may take longer where the processor is busy; then it goes on without us."""
_LIMIT_S: Final = 10.0
_LINES: Final = 5


@dataclass(frozen=True, slots=True)
class Condition:
    """How the service is."""

    loaded: bool
    """systemd knows a unit of that name."""
    active: str
    """`active`, `inactive`, `failed`, `activating` …"""
    enabled: bool = False
    """Starts with the machine."""
    status: str = ""
    """What it says that it is doing; empty if it says nothing."""
    since: str = ""
    """When it became so; empty if unknown."""
    restarts: int = 0
    """By systemd, since a person last started it."""
    devices: tuple[str, ...] = ()
    """What it may open below /dev, beside what everybody may; empty if it is not restricted."""


def is_running(root: Path = Path("/")) -> bool:
    """Whether this machine was booted with systemd, sd_booted(3)."""
    return (root / "run/systemd/system").is_dir()


def condition() -> Condition:
    """How the service is now.

    Raises:
        InstallError: systemd cannot be asked.
    """
    names = "LoadState,ActiveState,UnitFileState,StatusText,StateChangeTimestamp,NRestarts,DevicePolicy,DeviceAllow"
    shown = run("show", SERVICE, f"--property={names}", limit_s=_LIMIT_S)
    said = dict(re.findall(r"^(\w+)=(.*)$", shown, flags=re.MULTILINE))
    restarts = said.get("NRestarts", "")
    return Condition(
        loaded=said.get("LoadState") == "loaded",
        active=said.get("ActiveState", "unknown"),
        enabled=said.get("UnitFileState") == "enabled",
        status=said.get("StatusText", ""),
        since=said.get("StateChangeTimestamp", ""),
        restarts=int(restarts) if restarts.isdecimal() else 0,
        devices=devices(shown) if said.get("DevicePolicy") == "closed" else (),
    )


def devices(text: str) -> tuple[str, ...]:
    """What `systemctl show` lists under `DeviceAllow`: one a line, or several in one."""
    lines = re.findall(r"^DeviceAllow=(.+)$", text, flags=re.MULTILINE)
    return tuple(name for line in lines for name, _rights in re.findall(r"(\S+) ([rwm]+)", line))


def start() -> None:
    """Start or restart it, and wait until it listens.

    Raises:
        InstallError: it does not come up; with the last lines that it said.
    """
    run("reset-failed", SERVICE, check=False)
    try:
        run("restart", SERVICE)
    except InstallError as error:
        said = last_words()
        raise InstallError("\n".join(["the service does not start", *said]) if said else str(error)) from error


def last_words() -> list[str]:
    """The last lines of the service in the journal; none where there is no journal."""
    options = ("--output=cat", f"--lines={_LINES}", "--no-pager", "--quiet")
    return _asked("journalctl", f"--unit={SERVICE}", *options).splitlines()


def exposure() -> float | None:
    """What `systemd-analyze security` gives the service, 0 to 10; None if it cannot be asked."""
    return exposure_in(_asked("systemd-analyze", "security", "--no-pager", f"{SERVICE}.service"))


def exposure_in(text: str) -> float | None:
    """The figure in what `systemd-analyze security` says; None if there is none."""
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", text)
    return float(found[1]) if found else None


def run(*arguments: str, check: bool = True, limit_s: float = _START_S) -> str:
    """Return what systemctl prints.

    Raises:
        InstallError: there is none, it hangs, or it fails and that counts.
    """
    try:
        done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False, timeout=limit_s)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(f"systemctl {' '.join(arguments)}: {error}") from error
    if check and done.returncode:
        said = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise InstallError(f"systemctl {' '.join(arguments)}: {said}")
    return done.stdout


def _asked(*command: str) -> str:
    """What a program prints; nothing if it is missing or slow."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LIMIT_S).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
