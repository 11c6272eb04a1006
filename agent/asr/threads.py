"""How many threads an engine gets."""

import os


def engine_threads(setting: int, cores: int | None = None) -> int:
    """Return the number of inference threads: `setting`, or for 0 all `cores` but one, and never fewer than one.

    A core stays free because inference that takes them all collapses the moment anything else runs: OpenMP's threads
    wait for the slowest. `cores` defaults to those this process may use (the unit or a container may allow fewer than
    the machine has).
    """
    if setting:
        return setting
    return max(1, (len(os.sched_getaffinity(0)) if cores is None else cores) - 1)
