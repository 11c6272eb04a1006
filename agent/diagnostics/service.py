"""The unit, if it is installed: does it run, what may it touch, and do its limits hold?"""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.diagnostics.finding import Finding, Status

UNIT: Final = "edgescribe.service"
LOOSE: Final = 2.0
"""The unit as it is delivered is at 1.6 or below, and with any of its drop-ins below 2."""
_RUNS: Final = ("active", "activating", "reloading")
_COMMAND_LINES: Final = ("/boot/firmware/cmdline.txt", "/boot/cmdline.txt")
_LIMIT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Unit:
    """What systemd says of it."""

    state: str
    """`active`, `failed`, …"""
    restarts: int
    exposure: float | None
    """0 to 10, by `systemd-analyze security`; None if that cannot be asked."""
    devices: tuple[str, ...]
    """What it may open below /dev, beside what everybody may; empty if it is not restricted."""
    memory_limited: bool
    """Whether the kernel has the memory controller, without which `MemoryMax=` has no effect."""
    command_line: str = ""
    """File with the kernel's command line, where the boot loader is a Raspberry Pi's; else empty."""
    says: str = ""
    """What it says that it is doing; empty if it says nothing, or does not run."""


def look(root: Path = Path("/")) -> Unit | None:
    """Ask systemd; None where there is none, or no such unit."""
    names = "LoadState,ActiveState,NRestarts,StatusText,DevicePolicy,DeviceAllow"
    shown = _ask("systemctl", "show", UNIT, f"--property={names}")
    said = dict(re.findall(r"^(\w+)=(.*)$", shown, flags=re.MULTILINE))
    if said.get("LoadState") != "loaded":
        return None
    controllers = root / "sys/fs/cgroup/cgroup.controllers"
    return Unit(
        state=said.get("ActiveState", "unknown"),
        restarts=int(said.get("NRestarts") or 0),
        exposure=exposure(_ask("systemd-analyze", "security", "--no-pager", UNIT)),
        devices=devices(shown) if said.get("DevicePolicy") == "closed" else (),
        memory_limited="memory" in controllers.read_text(encoding="ascii").split() if controllers.exists() else False,
        command_line=next((path for path in _COMMAND_LINES if (root / path.lstrip("/")).exists()), ""),
        says=said.get("StatusText", "") if said.get("ActiveState") in _RUNS else "",
    )


def exposure(text: str) -> float | None:
    """The figure in what `systemd-analyze security` says; None if there is none."""
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", text)
    return float(found[1]) if found else None


def devices(text: str) -> tuple[str, ...]:
    """What `systemctl show` lists under `DeviceAllow`: one a line, or several in one."""
    lines = re.findall(r"^DeviceAllow=(.+)$", text, flags=re.MULTILINE)
    return tuple(name for line in lines for name, _rights in re.findall(r"(\S+) ([rwm]+)", line))


def findings(unit: Unit) -> Iterator[Finding]:
    """Whether it is as it should be."""
    text = f"{unit.state}, {unit.restarts} restarts"
    if unit.state not in _RUNS:
        yield Finding(Status.FAIL, "service", text, "journalctl -u edgescribe -e; systemctl restart edgescribe")
    else:
        yield Finding(Status.OK, "service", text)
    touches = f"of /dev it may open {', '.join(unit.devices)}" if unit.devices else "it may open every device"
    if unit.exposure is None:
        pass
    elif unit.exposure > LOOSE or not unit.devices:
        remedy = "see `systemctl cat edgescribe` for drop-ins, and `systemd-analyze security edgescribe`"
        yield Finding(Status.WARN, "sandbox", f"exposure {unit.exposure:g} of 10; {touches}", remedy)
    else:
        yield Finding(Status.OK, "sandbox", f"exposure {unit.exposure:g} of 10; {touches}")
    if not unit.memory_limited:
        remedy = f"add `cgroup_enable=memory` to {unit.command_line or 'the command line of the kernel'}, and reboot"
        yield Finding(Status.WARN, "memory limit", "this kernel leaves it out: MemoryMax= has no effect", remedy)


def _ask(*command: str) -> str:
    """What a program prints; nothing if it is missing or slow."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LIMIT_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
