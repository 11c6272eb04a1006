"""This machine, as far as a calibration depends on it.

Files are looked up below `root`, so that tests bring their own.
"""

import os
import platform
import resource
import time
from importlib import metadata
from pathlib import Path

import psutil

from agent.messages import identity
from agent.models.calibration_records import Fingerprint

PACKAGES = {"whisper_cpp": "pywhispercpp", "faster_whisper": "ctranslate2"}
"""Distribution behind each engine."""
USABLE = 0.75
"""Share of the memory that is available now; the rest is for what the neighbours may want later."""
REST_OF_AGENT_MB = 60
"""The agent without its engine: capture, voice activity, MQTT."""
_MB = 1_000_000


class OthersCpu:
    """How much of the machine other programs take from now on."""

    def __init__(self) -> None:
        self._began = _cpu_s()

    def pct(self) -> float:
        """Percentage of all cores so far. Child processes count as our own once they have ended."""
        busy_s, idle_s, own_s = (now - then for now, then in zip(_cpu_s(), self._began, strict=True))
        total_s = busy_s + idle_s
        return max(0.0, 100 * (busy_s - own_s) / total_s) if total_s else 0.0


def _cpu_s() -> tuple[float, float, float]:
    """Seconds that all cores have been busy and idle, and that this process with its ended children was."""
    times = psutil.cpu_times()
    idle_s = times.idle + getattr(times, "iowait", 0.0)
    # Guests are counted as user time already.
    busy_s = sum(times) - idle_s - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return busy_s, idle_s, time.process_time() + ended.ru_utime + ended.ru_stime


def fingerprint(root: Path = identity.ROOT) -> Fingerprint:
    """What this machine is now."""
    return Fingerprint(
        board=identity.hardware(root) or "",
        cpu=cpu_name(root),
        cores=len(os.sched_getaffinity(0)),
        engines={name: version for name in PACKAGES.values() if (version := _version(name))},
    )


def differences(then: Fingerprint, now: Fingerprint) -> list[str]:
    """What has changed, as phrases; empty where figures still hold."""
    changed = [
        f"{what} was {before or 'unknown'} and is {after or 'unknown'}"
        for what, before, after in (
            ("the board", then.board, now.board),
            ("the CPU", then.cpu, now.cpu),
            ("the number of cores", then.cores, now.cores),
        )
        if before != after
    ]
    for name in sorted({*then.engines, *now.engines}):
        before, after = then.engines.get(name, "absent"), now.engines.get(name, "absent")
        if before != after:
            changed.append(f"{name} was {before} and is {after}")
    return changed


def installed_engines() -> tuple[str, ...]:
    """Kinds of engines whose package is there."""
    return tuple(engine for engine, package in PACKAGES.items() if _version(package))


def cpu_name(root: Path = identity.ROOT) -> str:
    """`model name` of x86; on ARM, which has none, implementer and part; else the architecture."""
    found: dict[str, str] = {}
    try:
        for line in (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, text = line.partition(":")
            found.setdefault(key.strip(), text.strip())
    except OSError:
        pass
    part = " ".join(found[key] for key in ("CPU implementer", "CPU part") if key in found)
    return found.get("model name") or (f"{platform.machine()} {part}" if part else platform.machine())


def memory_budget_mb(root: Path = identity.ROOT) -> int:
    """What an engine may take: a share of what is available to this process, less the rest of the agent."""
    available_bytes = psutil.virtual_memory().available
    headroom_bytes = cgroup_headroom_bytes(root)
    if headroom_bytes is not None:
        available_bytes = min(available_bytes, headroom_bytes)
    return max(0, int(USABLE * available_bytes) // _MB - REST_OF_AGENT_MB)


def cgroup_headroom_bytes(root: Path = identity.ROOT) -> int | None:
    """Memory left below the tightest limit of cgroup v2 above this process; None where there is no limit.

    File pages that nobody has used for a while (`inactive_file`) count as free, as the kernel gives them up first.
    """
    top = root / "sys/fs/cgroup"
    group = (_text(root / "proc/self/cgroup").rpartition("0::/")[2]).strip()
    # Inside a container the path is that of the host, and its own group is the top one.
    folders = [top / group, *(top / group).parents] if group else [top]
    rooms = [room for folder in folders if folder.is_relative_to(top) and (room := _room(folder)) is not None]
    return min(rooms, default=None)


def _room(folder: Path) -> int | None:
    limit, used = _text(folder / "memory.max").strip(), _text(folder / "memory.current").strip()
    if not (limit.isdecimal() and used.isdecimal()):
        return None
    lines = (line.split() for line in _text(folder / "memory.stat").splitlines())
    idle_bytes = next((int(words[1]) for words in lines if words[0] == "inactive_file"), 0)
    return max(0, int(limit) - int(used) + idle_bytes)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
