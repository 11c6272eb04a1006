import os
import threading
from pathlib import Path

import pytest

from agent.worker import Worker, at_lower_priority, lower_priority


def niceness() -> int:
    """Of the calling thread, as the kernel has it (proc(5), field 19 of stat)."""
    stat = Path(f"/proc/self/task/{threading.get_native_id()}/stat").read_bytes()
    return int(stat.rpartition(b")")[2].split()[16])


def test_only_the_thread_that_asks_gets_nicer_and_what_it_starts() -> None:
    """Threads and processes inherit it; whoever waits for them keeps his own priority."""
    before = niceness()
    seen: dict[str, int] = {}

    def work() -> None:
        lower_priority(3)
        seen["self"] = niceness()
        below = threading.Thread(target=lambda: seen.update(below=niceness()))
        below.start()
        below.join()
        with os.popen("cut -d' ' -f19 /proc/self/stat") as child:  # noqa: S605 - fixed words
            seen["process"] = int(child.read())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == {"self": before + 3, "below": before + 3, "process": before + 3}
    assert niceness() == before


def test_what_runs_lower_gives_back_what_it_made_or_raises_what_it_raised() -> None:
    """As if it had been called."""
    before = niceness()
    assert at_lower_priority(niceness, 4) == before + 4
    with pytest.raises(ValueError, match="invalid literal"):
        at_lower_priority(lambda: int("model"), 4)
    assert niceness() == before


def test_a_worker_can_stand_behind_the_others() -> None:
    """The transcribe stage does; capture does not."""
    seen: dict[str, int] = {}

    def look() -> None:
        seen[threading.current_thread().name] = niceness()

    for name, nice in (("transcribe", 5), ("capture", 0)):
        worker = Worker(name, look, lambda _worker: None, nice=nice)
        worker.start()
        assert worker.join(60)
    assert seen == {"transcribe": niceness() + 5, "capture": niceness()}


def test_a_kernel_that_refuses_is_no_reason_to_stop(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A sandbox may forbid it: everything works, with one priority for all."""

    def refuse(*_arguments: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setpriority", refuse)
    assert at_lower_priority(lambda: "loaded", 5) == "loaded"
    assert "Operation not permitted" in caplog.text
