"""Outboxes without a disk."""

from agent.config.settings import OutboxSettings
from agent.mqtt.outbox_queue import Outbox


def memory_outbox(max_messages: int) -> Outbox:
    """Return an outbox in memory, with room for so many messages."""
    return Outbox(OutboxSettings(mode="memory", max_messages=max_messages))
