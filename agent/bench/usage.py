"""The cost of a process and its descendants, from Linux's own accounts."""

import resource
import time
from collections.abc import Iterable
from pathlib import Path


def descendants(pid: int) -> list[int]:
    """Return the running processes that `pid` and its descendants have started."""
    parents = {int(entry.name): _parent(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    found: list[int] = []
    generation = [pid]
    while generation:
        generation = [child for child, parent in parents.items() if parent in generation]
        found += generation
    return found


def own_cpu_s(helpers: Iterable[int]) -> float:
    """Return the CPU seconds of this process, of `helpers` (running processes), and of children that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime + sum(map(cpu_s, helpers))


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of all threads of a process, in ns steps; 0 if it is gone.

    The number of its clock is the one of clock_getcpuclockid(3): the complement of the id, and 2 for scheduled time
    (`MAKE_PROCESS_CPUCLOCK` in Linux's include/linux/posix-timers.h).
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def peak_rss_bytes(pids: Iterable[int]) -> int:
    """Return the sum of the highest resident sets of processes since they began."""
    return sum(_bytes(pid, "status", "VmHWM") for pid in pids)


def pss_bytes(pids: Iterable[int]) -> int:
    """Return the sum of the proportional sets: shared pages count by their share."""
    return sum(_bytes(pid, "smaps_rollup", "Pss") for pid in pids)


def _bytes(pid: int, file: str, name: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def _parent(entry: Path) -> int:
    try:
        # The name stands in parentheses and may hold any character, so count from the last parenthesis.
        return int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
    except OSError:
        return 0
