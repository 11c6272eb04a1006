"""systemd, asked by systemctl(1)."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.errors import InstallError

SERVICE: Final = "edgescribe"
_START_S: Final = 150.0
"""A start may take longer where the processor is busy; then it goes on without us."""
_LINES: Final = 5


@dataclass(frozen=True, slots=True)
class Condition:
    """How the service is."""

    loaded: bool
    """systemd knows a unit of that name."""
    active: str
    """`active`, `inactive`, `failed`, `activating` …"""
    enabled: bool
    """Starts with the machine."""
    status: str
    """What it says that it is doing; empty if it says nothing."""
    since: str
    """When it became so; empty if unknown."""
    restarts: int
    """By systemd, since it was last started by somebody."""


def is_running(root: Path = Path("/")) -> bool:
    """Whether this machine was booted with systemd, sd_booted(3)."""
    return (root / "run/systemd/system").is_dir()


def condition() -> Condition:
    """How the service is now."""
    names = "LoadState,ActiveState,UnitFileState,StatusText,StateChangeTimestamp,NRestarts"
    found = dict(
        line.split("=", 1) for line in _run("show", SERVICE, f"--property={names}").splitlines() if "=" in line
    )
    restarts = found.get("NRestarts", "")
    return Condition(
        loaded=found.get("LoadState") == "loaded",
        active=found.get("ActiveState", "unknown"),
        enabled=found.get("UnitFileState") == "enabled",
        status=found.get("StatusText", ""),
        since=found.get("StateChangeTimestamp", ""),
        restarts=int(restarts) if restarts.isdecimal() else 0,
    )


def reread() -> None:
    """Let systemd read the units anew."""
    _run("daemon-reload")


def enable() -> None:
    """Let the service start with the machine."""
    _run("--quiet", "enable", SERVICE)


def start() -> None:
    """Start or restart it, and wait until it listens.

    Raises:
        InstallError: it does not come up; with the last lines that it said.
    """
    _run("reset-failed", SERVICE, check=False)
    try:
        _run("restart", SERVICE)
    except InstallError as error:
        said = last_words()
        raise InstallError("\n".join(["the service does not start", *said]) if said else str(error)) from error


def take_down() -> None:
    """Stop it, and let it no longer start with the machine; fine if there is none."""
    _run("--quiet", "disable", "--now", SERVICE, check=False)
    _run("reset-failed", SERVICE, check=False)


def last_words() -> list[str]:
    """The last lines of the service in the journal; none where there is no journal."""
    command = ["journalctl", f"--unit={SERVICE}", "--output=cat", f"--lines={_LINES}", "--no-pager", "--quiet"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=10.0).stdout.splitlines()
    except (OSError, subprocess.TimeoutExpired):
        return []


def _run(*arguments: str, check: bool = True) -> str:
    try:
        done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False, timeout=_START_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(f"systemctl {' '.join(arguments)}: {error}") from error
    if check and done.returncode:
        said = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise InstallError(f"systemctl {' '.join(arguments)}: {said}")
    return done.stdout
