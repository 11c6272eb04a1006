"""The outbox that the settings ask for."""

from collections.abc import Callable
from pathlib import Path

from agent.config.settings import OutboxSettings
from agent.mqtt.delivery import Outbox
from agent.mqtt.outbox import SqliteOutbox
from agent.mqtt.outbox_memory import MemoryOutbox
from agent.worker import Worker


def create_outbox(
    settings: OutboxSettings,
    folder: Path,
    on_failure: Callable[[Worker], None],
    on_change: Callable[[], None] = lambda: None,
    *,
    replayable: bool = True,
) -> Outbox:
    """Open the outbox in the state folder `folder`; see `SqliteOutbox` for the callbacks and `replayable`.

    Raises:
        ConfigError: another agent uses the folder, or we may not write to it.
    """
    if settings.mode == "memory":
        return MemoryOutbox(
            settings.max_messages, max_bytes=settings.max_bytes, max_age_s=settings.max_age_s, replayable=replayable
        )
    return SqliteOutbox(settings, folder, on_failure, on_change=on_change, replayable=replayable)
