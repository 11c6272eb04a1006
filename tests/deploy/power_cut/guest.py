"""Runs inside the machine that loses its power: speaks into an outbox, and tells the console what was accepted."""

import os
import sys
import time
from pathlib import Path

from agent.config.settings import OutboxSettings
from agent.mqtt.delivery import Outgoing
from agent.mqtt.outbox import StoredOutbox
from agent.worker import Worker
from tests.messages import transcript


def tell(line: str) -> None:
    """One line on the console, complete or not at all."""
    os.write(1, f"{line}\n".encode())


def fail(worker: Worker) -> None:
    """A bug must not look like a power cut."""
    tell(f"FAILED {worker.failure!r}")


def main(mode: str, folder: Path) -> None:
    """Take stock, then speak for ever."""
    careless = mode == "careless"
    settings = OutboxSettings.model_validate({"mode": "strict" if careless else mode, "max_free_pct": 50})
    outbox = StoredOutbox(settings, folder / "state", fail)
    if careless and (db := outbox._store._db):
        db.execute("PRAGMA synchronous = OFF")  # nobody can ask for this, and it shows why
    tell(f"FOUND {outbox.pending} {','.join(outbox.conditions) or 'sound'}")
    while True:
        seq = outbox.next_seq()
        outbox.put(Outgoing.of("pi-1", transcript(seq), time.monotonic()))
        tell(f"ACCEPTED {seq}")
        time.sleep(0.01)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
