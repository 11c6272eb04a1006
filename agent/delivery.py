"""Between a message and the broker: the message ready to go, and the outbox that keeps it until it has arrived."""

from dataclasses import dataclass
from typing import Literal, Protocol

from agent.wire import Message, topic_for


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message as it goes over the wire; all that an outbox needs to store."""

    topic: str
    payload: bytes
    qos: Literal[0, 1]
    retained: bool
    content_type: str
    schema: str
    """Name and version of the payload's schema, such as `transcript/1`."""
    expiry_s: int | None = None
    """How long the message is worth delivering, from `accepted_s`; None is for ever."""
    accepted_s: float = 0.0
    """Monotonic time at which the pipeline handed it over."""

    @classmethod
    def of(cls, device_id: str, message: Message, now_s: float) -> "Outgoing":
        """Serialise `message` of the device `device_id`."""
        return cls(
            topic=topic_for(device_id, message),
            payload=message.payload(),
            qos=message.qos,
            retained=message.retained,
            content_type=message.content_type,
            schema=message.schema_name,
            expiry_s=message.expiry_s,
            accepted_s=now_s,
        )

    def remaining_s(self, now_s: float) -> int | None:
        """Whole seconds until it expires, 0 or less if it has; None if it never does."""
        return None if self.expiry_s is None else self.expiry_s - int(now_s - self.accepted_s)


@dataclass(frozen=True, slots=True)
class Entry:
    """A message in an outbox."""

    key: int
    """Identifies it within its outbox; grows with every message."""
    outgoing: Outgoing


class Outbox(Protocol):
    """Keeps messages, in order, until the broker has acknowledged them. Bounded: the oldest go first, counted.

    `put` is called from any thread, the rest from the sink's thread only, but for the properties. Nothing is put after
    `close`.
    """

    def put(self, outgoing: Outgoing) -> bool:
        """Keep `outgoing`; False if an older message had to go to make room. Never blocks on the network."""

    def take(self) -> Entry | None:
        """Hand out the oldest message that is not on its way; None if there is none."""

    def settle(self, key: int, *, delivered: bool) -> None:
        """Forget a message that was taken: it arrived, or never will (then it counts as dropped)."""

    def rewind(self) -> None:
        """The connection was lost: hand out again, in order, what was taken and not settled."""

    @property
    def pending(self) -> int:
        """Messages that are not settled yet, those on their way included."""

    @property
    def dropped(self) -> int:
        """Messages that were given up, since the start."""

    def close(self) -> None:
        """Let go of the storage; idempotent."""
