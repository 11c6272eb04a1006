"""Priorities of threads: the engine must never keep the microphone waiting.

On Linux niceness belongs to the thread (sched(7)), and a new thread or process inherits that of the thread that starts
it. So a thread lowers its own priority first and then loads and runs the engine: the pools of whisper.cpp (OpenMP,
started by the first inference) and of CTranslate2 (started with the model), and an engine process, all come out as low
as it is. Back up leads no way without CAP_SYS_NICE; hence never in the main thread.
"""

import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

log = logging.getLogger(__name__)

Result = TypeVar("Result")


def lower_priority(by: int) -> None:
    """Make the calling thread nicer by `by` steps, and so every thread and process that it starts from now on."""
    if not by or sys.platform != "linux":  # elsewhere it would be the whole process
        return
    thread = threading.get_native_id()
    try:
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + by)
    except OSError as error:  # a seccomp filter; then everything has the same priority, and works
        log.warning(f"the priority of thread {threading.current_thread().name} cannot be lowered ({error.strerror})")


def at_lower_priority(work: Callable[[], Result], by: int) -> Result:
    """Return what `work` returns, or raise what it raises, run in a thread of its own with a lower priority."""
    with ThreadPoolExecutor(1, "load", initializer=lower_priority, initargs=(by,)) as executor:
        return executor.submit(work).result()
