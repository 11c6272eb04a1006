"""A child process that speaks into an outbox until it is killed: prints each number when `put` has returned."""

import sys
import time
from pathlib import Path

from agent.config import OutboxSettings
from agent.delivery import Outgoing
from agent.outbox.sqlite import SqliteOutbox
from agent.worker import Worker
from tests.messages import transcript


def fail(worker: Worker) -> None:
    """A bug in the outbox must not look like a kill."""
    sys.exit(f"thread {worker.name}: {worker.failure!r}")


def main(mode: str, folder: str, memory_folder: str, pause_s: float) -> None:
    """Speak for ever."""
    settings = OutboxSettings.model_validate({"mode": mode})
    outbox = SqliteOutbox(settings, Path(folder), fail, memory_folder=Path(memory_folder))
    while True:
        seq = outbox.next_seq()
        outbox.put(Outgoing.of("pi-1", transcript(seq), time.monotonic()))
        sys.stdout.write(f"{seq}\n")
        sys.stdout.flush()
        time.sleep(pause_s)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
