"""The service, by systemctl(1) and its relatives."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.errors import InstallError

SERVICE: Final = "edgescribe"
_START_S: Final = 150.0
"""A start may take longer on a busy processor. It then goes on without this program."""
_LIMIT_S: Final = 10.0
_LINES: Final = 5


@dataclass(frozen=True, slots=True)
class Condition:
    """The state of the service."""

    loaded: bool
    """systemd knows a unit of that name."""
    active: str
    """`active`, `inactive`, `failed`, `activating` …"""
    enabled: bool = False
    """Starts with the machine."""
    status: str = ""
    """The service's own words about its work; empty if there are none."""
    since: str = ""
    """Time of its last change; empty if unknown."""
    restarts: int = 0
    """Restarts by systemd since a person last started it."""
    devices: tuple[str, ...] = ()
    """Files below /dev that it may open in addition to the standard ones; empty if it may open all."""


def is_running() -> bool:
    """Return whether this machine was booted with systemd, sd_booted(3)."""
    return Path("/run/systemd/system").is_dir()


def condition() -> Condition:
    """Return the present state of the service.

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
    """Return the files that `systemctl show` lists under `DeviceAllow`: one a line, or several in one."""
    lines = re.findall(r"^DeviceAllow=(.+)$", text, flags=re.MULTILINE)
    return tuple(name for line in lines for name, _rights in re.findall(r"(\S+) ([rwm]+)", line))


def start() -> None:
    """Start or restart the service, and wait until it listens.

    Raises:
        InstallError: it does not come up; with its last lines from the journal.
    """
    run("reset-failed", SERVICE, check=False)
    try:
        run("restart", SERVICE)
    except InstallError as error:
        said = last_log_lines()
        raise InstallError("\n".join(["the service does not start", *said]) if said else str(error)) from error


def last_log_lines() -> list[str]:
    """Return the last lines of the service in the journal; empty if there is no journal."""
    options = ("--output=cat", f"--lines={_LINES}", "--no-pager", "--quiet")
    return _asked("journalctl", f"--unit={SERVICE}", *options).splitlines()


def exposure() -> float | None:
    """Return the exposure of the service by `systemd-analyze security`, 0 to 10; None if it cannot be asked."""
    return exposure_in(_asked("systemd-analyze", "security", "--no-pager", f"{SERVICE}.service"))


def exposure_in(text: str) -> float | None:
    """Return the figure in the output of `systemd-analyze security`; None if there is none."""
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", text)
    return float(found[1]) if found else None


def run(*arguments: str, check: bool = True, limit_s: float = _START_S) -> str:
    """Run systemctl and return its output.

    Raises:
        InstallError: there is none, it hangs, or it fails and `check` is set.
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
    """Return the output of a program; empty if it is missing or slow."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LIMIT_S).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
