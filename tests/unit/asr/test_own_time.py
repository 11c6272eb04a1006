import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.asr.own_time import STARVED_WEIGHT, OwnTime, Sample, ThreadTimes, own_time_s

BUSY = [sys.executable, "-c", "while True: pass"]
WATCHED_S = 4.0


def sample(at_s: float, **threads: tuple[bool, float, float]) -> Sample:
    """Threads with what they are doing, their processor time, and how long they have waited."""
    return Sample(at_s, {ord(name): ThreadTimes(*times) for name, times in threads.items()})


RUNS, SLEEPS = True, False


@pytest.mark.parametrize(
    ("before", "after", "starved_s"),
    [
        pytest.param({"a": (SLEEPS, 1.0, 2.0)}, {"a": (SLEEPS, 1.0, 2.0)}, 0.0, id="a deadlock"),
        pytest.param({"a": (RUNS, 1.0, 2.0)}, {"a": (RUNS, 11.0, 2.0)}, 0.0, id="an endless loop"),
        pytest.param({"a": (RUNS, 1.0, 2.0)}, {"a": (RUNS, 2.0, 11.0)}, 9.0, id="a starved loop"),
        pytest.param({"a": (SLEEPS, 1.0, 2.0)}, {"a": (SLEEPS, 1.5, 6.0)}, 4.0, id="starved, and asleep in between"),
        pytest.param({"a": (RUNS, 1.0, 0.0)}, {"a": (RUNS, 2.0, 0.0)}, 9.0, id="starved, and no schedstat"),
        pytest.param({"a": (RUNS, 1.0, 2.0)}, {"a": (RUNS, 1.0, 2.0)}, 10.0, id="has not run at all"),
        pytest.param(
            {"a": (SLEEPS, 1.0, 0.0), "b": (SLEEPS, 1.0, 0.0)},
            {"a": (SLEEPS, 1.1, 3.0), "b": (SLEEPS, 1.1, 4.0)},
            7.0,
            id="threads that wait for each other, and in turn for a processor",
        ),
        pytest.param(
            {"a": (RUNS, 1.0, 0.0), "b": (RUNS, 1.0, 0.0)},
            {"a": (RUNS, 1.1, 9.9), "b": (RUNS, 1.1, 9.9)},
            9.9,
            id="two starved threads",
        ),
        pytest.param(
            dict.fromkeys("abcd", (RUNS, 1.0, 2.0)),
            dict.fromkeys("abcd", (RUNS, 6.0, 7.0)),
            5.0,
            id="an endless loop in four threads on two processors",
        ),
        pytest.param({}, {"a": (RUNS, 1.0, 3.0)}, 3.0, id="a thread that is new"),
        pytest.param({"a": (RUNS, 1.0, 3.0)}, {}, 0.0, id="a thread that has ended"),
        pytest.param({}, {}, 0.0, id="nothing is known"),
    ],
)
def test_time_that_was_waited_for_a_processor_counts_a_tenth(
    before: dict[str, tuple[bool, float, float]], after: dict[str, tuple[bool, float, float]], starved_s: float
) -> None:
    """Everything else counts in full, whether the process works or sleeps."""
    own_s = own_time_s(sample(100.0, **before), sample(110.0, **after))
    assert own_s == pytest.approx(10.0 - (1.0 - STARVED_WEIGHT) * starved_s)


def test_every_limit_is_reached_in_the_end() -> None:
    """However starved a process is: what hangs is found out after ten times its limit."""
    for waited_s in (0.0, 5.0, 1e9):
        own_s = own_time_s(sample(0.0, a=(RUNS, 0.0, 0.0)), sample(10.0, a=(RUNS, 0.0, waited_s)))
        assert STARVED_WEIGHT * 10.0 <= own_s + 1e-9 <= 10.0


def test_without_proc_own_time_is_wall_time(tmp_path: Path) -> None:
    """As in a container that hides it, or on a kernel without a part of it."""
    times = iter((1.0, 3.0, 6.0))
    clock = OwnTime(os.getpid, lambda: next(times), tmp_path)
    assert [clock(), clock()] == [2.0, 5.0]


@pytest.mark.parametrize("damage", ["", "1 (a) S", "1 (a) R" + " x" * 40, "\0"])
def test_what_proc_says_is_not_believed_blindly(damage: str, tmp_path: Path) -> None:
    """Nonsense is as good as nothing."""
    thread = tmp_path / "7" / "task" / "7"
    thread.mkdir(parents=True)
    (thread / "stat").write_text(damage)
    (thread / "schedstat").write_text(damage)
    times = iter((1.0, 3.0))
    assert OwnTime(lambda: 7, lambda: next(times), tmp_path)() == 2.0


def test_a_process_may_end_and_another_one_follow() -> None:
    """The clock goes on, and counts wall time while there is none."""
    processes = [1 << 30]
    times = iter((0.0, 1.0, 2.0, 3.0))
    clock = OwnTime(lambda: processes[-1], lambda: next(times))
    assert clock() == 1.0
    with child([sys.executable, "-c", "input()"]) as process:
        processes.append(process)
        clock()
    assert clock() > 1.0


def test_only_what_has_the_lowest_priority_computes(tmp_path: Path) -> None:
    """In the agent's own process capture wakes up often, and may wait each time. An engine that hangs does not wait."""
    for thread, nice in ((7, 0), (8, 5)):
        folder = tmp_path / "7" / "task" / str(thread)
        folder.mkdir(parents=True)
        (folder / "stat").write_text(f"{thread} (a b) c) S{' 0' * 15} {nice} 0")
        (folder / "schedstat").write_text("0 0 0")
    times = iter((0.0, 10.0, 20.0))
    clock = OwnTime(lambda: 7, lambda: next(times), tmp_path)
    (tmp_path / "7/task/7/schedstat").write_text("0 9000000000 0")
    assert clock() == 10.0
    (tmp_path / "7/task/8/schedstat").write_text("0 9000000000 0")
    assert clock() == pytest.approx(10.0 + 1.0 + 0.1 * 9.0)


@contextmanager
def child(command: list[str], cpu: int | None = None, nice: int = 0) -> Iterator[int]:
    """A process that ends with this; on one processor only, if one is given."""
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            if cpu is not None:
                os.sched_setaffinity(process.pid, {cpu})
            os.setpriority(os.PRIO_PROCESS, process.pid, nice)
            yield process.pid
        finally:
            process.kill()


def test_a_starved_process_has_little_time_of_its_own() -> None:
    """Two others keep its only processor busy, with a higher priority; by the wall, all of its time is gone."""
    cpu = min(os.sched_getaffinity(0))
    with child(BUSY, cpu), child(BUSY, cpu), child(BUSY, cpu, nice=19) as victim:
        assert watched(victim) < 0.7 * WATCHED_S


def test_a_process_that_sleeps_has_all_the_time_for_itself() -> None:
    """A deadlock looks like this, and has to be found out though others keep the processors busy."""
    with child(BUSY), child(BUSY), child([sys.executable, "-c", "input()"]) as victim:
        watched(victim)  # until it is up
        assert watched(victim) > 0.7 * WATCHED_S


def watched(process: int) -> float:
    """The own time of a process in a few seconds."""
    clock, until_s, own_s = OwnTime(lambda: process), time.monotonic() + WATCHED_S, 0.0
    while time.monotonic() < until_s:
        time.sleep(0.2)
        own_s = clock()
    return own_s
