"""The own time of an engine: wall time, less most of the time that it waited for a processor.

A limit in wall time takes a starved process for a hung one. But a hung process waits for no processor: it sleeps for
ever, or it computes for ever. So a wait for a processor counts one tenth against a limit, and every limit is reached in
the end.

Sources: /proc/PID/task/TID/schedstat (the kernel's Documentation/scheduler/sched-stats.rst) and stat (proc(5)). Without
them, own time is wall time.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STARVED_WEIGHT: Final = 0.1
"""How much a second of waiting for a processor counts."""
PROC: Final = Path("/proc")

_NS_PER_S: Final = 1_000_000_000
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_UTIME, _STIME, _NICE = 11, 12, 16
"""Columns of stat, counted from the state, which follows the name in parentheses."""


@dataclass(frozen=True, slots=True)
class ThreadTimes:
    """One thread, at one moment."""

    runnable: bool
    """It runs or waits for a processor."""
    cpu_s: float
    """Seconds of processor time since its start."""
    waited_s: float
    """Seconds of waiting for a processor since its start. The kernel adds a wait when it is over."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A process, at one moment."""

    at_s: float
    """Monotonic time."""
    threads: Mapping[int, ThreadTimes]
    """The threads that compute, by thread id; empty if unknown."""


def own_time_s(before: Sample, after: Sample) -> float:
    """Return the seconds between two samples, less nine tenths of the time that the threads waited for a processor.

    Threads that run or wait at the same time share that time: an endless loop in more threads than processors is no
    starvation.
    """
    wall_s, busy_s, starved_s = after.at_s - before.at_s, 0.0, 0.0
    for id_, now in after.threads.items():
        then = before.threads.get(id_, ThreadTimes(runnable=False, cpu_s=0.0, waited_s=0.0))
        cpu_s, waited_s = now.cpu_s - then.cpu_s, now.waited_s - then.waited_s
        if then.runnable and now.runnable:  # a wait that is not over yet; or a kernel without schedstat
            waited_s = max(waited_s, wall_s - cpu_s)
        busy_s += max(0.0, cpu_s)
        starved_s += max(0.0, waited_s)
    share = min(1.0, wall_s / (busy_s + starved_s)) if starved_s else 0.0
    return wall_s - (1.0 - STARVED_WEIGHT) * share * starved_s


class OwnTime:
    """A clock of the own time of an engine. Used by one thread.

    Only the threads with the lowest priority count. These are the engine's, even in the agent's own process
    (`worker.py`).

    Args:
        process: Returns the id of the process; called for every sample, because it may change.
        clock_s: Monotonic.
        proc: The folder /proc.
    """

    def __init__(
        self, process: Callable[[], int], clock_s: Callable[[], float] = time.monotonic, proc: Path = PROC
    ) -> None:
        self._process = process
        self._clock_s = clock_s
        self._proc = proc
        self._spent_s = 0.0
        self._last = self._sample()

    def __call__(self) -> float:
        """Return the seconds of own time since the start of this clock. Call it about once a second."""
        sample = self._sample()
        self._spent_s += own_time_s(self._last, sample)
        self._last = sample
        return self._spent_s

    def _sample(self) -> Sample:
        found = list(_threads(self._proc / str(self._process()) / "task"))
        lowest = max((nice for nice, _id, _times in found), default=0)
        return Sample(self._clock_s(), {id_: times for nice, id_, times in found if nice == lowest})


def _threads(tasks: Path) -> Iterator[tuple[int, int, ThreadTimes]]:
    """Yield niceness, id and times of each thread that the kernel still knows; it may end at any moment."""
    with suppress(OSError):
        for folder in tasks.iterdir():
            with suppress(OSError, ValueError, IndexError):
                words = (folder / "stat").read_bytes().rpartition(b")")[2].split()
                cpu_s = (int(words[_UTIME]) + int(words[_STIME])) / _TICKS_PER_S
                yield int(words[_NICE]), int(folder.name), ThreadTimes(words[0] == b"R", cpu_s, _waited_s(folder))


def _waited_s(folder: Path) -> float:
    try:
        return int((folder / "schedstat").read_bytes().split()[1]) / _NS_PER_S
    except (OSError, ValueError, IndexError):  # a kernel without it
        return 0.0
