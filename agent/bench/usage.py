"""What a process and everything that it has started cost, from Linux's own accounts."""

import resource
import time
from collections.abc import Iterable
from pathlib import Path

_KIB = 1024


def descendants(pid: int) -> list[int]:
    """Processes that `pid` has started and that still run, and theirs; in no particular order."""
    parents = {int(entry.name): _parent(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    found: list[int] = []
    generation = [pid]
    while generation:
        generation = [child for child, parent in parents.items() if parent in generation]
        found += generation
    return found


def own_cpu_s(helpers: Iterable[int]) -> float:
    """CPU seconds of this process, of `helpers` (running processes), and of children that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime + sum(map(cpu_s, helpers))


def cpu_s(pid: int) -> float:
    """CPU seconds of another process with all its threads, in ns steps; 0 if it is gone.

    Its clock is numbered as clock_getcpuclockid(3) does: the complement of the id, and 2 for scheduled time
    (`MAKE_PROCESS_CPUCLOCK` in Linux's include/linux/posix-timers.h).
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def peak_rss_bytes(pids: Iterable[int]) -> int:
    """Highest resident set of each process since it began, added up."""
    return sum(_field(pid, "status", "VmHWM") for pid in pids)


def pss_bytes(pids: Iterable[int]) -> int:
    """Proportional set: shared pages count by their share, so the sum is what the processes really take."""
    return sum(_field(pid, "smaps_rollup", "Pss") for pid in pids)


def file_bytes(path: Path) -> int:
    """Size of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in path.rglob("*")) if path.is_dir() else path.stat().st_size


def _field(pid: int, file: str, name: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * _KIB for line in lines if line.startswith(f"{name}:")), 0)


def _parent(entry: Path) -> int:
    try:
        # The name stands in parentheses and may hold anything, so count from the last one.
        return int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
    except OSError:
        return 0
