"""How many threads an engine gets."""

import os

import pytest

from agent.asr.cpu import engine_threads


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (4, 3), (8, 7)])
def test_one_core_stays_free_but_one_thread_there_always_is(cores: int, threads: int) -> None:
    """0 means all cores but one."""
    assert engine_threads(0, cores) == threads


def test_a_number_that_was_asked_for_is_kept() -> None:
    """Even one that is larger than the machine: the user may know better."""
    assert engine_threads(6, cores=4) == 6


def test_only_the_cores_this_process_may_use_count() -> None:
    """A container or the unit may allow fewer cores than the machine has."""
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert engine_threads(0) == 1
    finally:
        os.sched_setaffinity(0, allowed)
