"""Between a message and the broker: the message ready to go, and the outbox that keeps it until it has arrived."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final, Literal, Protocol

from agent.messages import Message, TranscriptMessage, topic_for
from agent.messages.failed import TranscriptFailed


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
    """Monotonic time at which the pipeline handed it over; negative if that was before the machine was started."""
    late_topic: str | None = None
    """Where it goes when it leaves late; None if it makes no difference."""
    seq: int | None = None
    """The number of a transcript, or of one that failed."""
    kept: bool = True
    """Whether the outbox keeps it until it has arrived; if not, it goes only if there is a connection."""
    correlation: bytes | None = None
    """Correlation Data of the request that this answers (MQTT 5)."""

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
            late_topic=topic_for(device_id, message, late=True) if message.late_topic else None,
            seq=message.seq if isinstance(message, TranscriptMessage | TranscriptFailed) else None,
            kept=message.kept,
        )

    def replayed(self, expiry_s: int) -> "Outgoing":
        """The same words as news of yesterday: on the late topic, marked, and good for `expiry_s` from `accepted_s`."""
        payload = json.dumps(json.loads(self.payload) | {"replayed": True}, ensure_ascii=False, separators=(",", ":"))
        return replace(self, topic=self.late_topic or self.topic, payload=payload.encode(), expiry_s=expiry_s)

    def remaining_s(self, now_s: float) -> int | None:
        """Whole seconds until it expires, 0 or less if it has; None if it never does."""
        return None if self.expiry_s is None else self.expiry_s - int(now_s - self.accepted_s)


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message that somebody sent us."""

    topic: str
    payload: bytes
    retained: bool
    response_topic: str | None = None
    """Where the answer is wanted (MQTT 5); as the sender wrote it, so possibly no topic at all."""
    correlation: bytes | None = None
    """What the answer has to carry (MQTT 5)."""


def _ignore(_incoming: Incoming) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Inbox:
    """What we want to be told, and who is told."""

    filters: tuple[str, ...] = ()
    """Topic filters (MQTT 5.0, 4.7)."""
    on_message: Callable[[Incoming], None] = _ignore
    """Called from the sink's thread with every message: it puts it aside, and nothing more."""


NOTHING: Final = Inbox()
"""For those who have nothing to be told."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A message in an outbox."""

    key: int
    """Identifies it within its outbox; grows with every message."""
    outgoing: Outgoing


class Fate(Enum):
    """What became of a message that was handed out."""

    DELIVERED = auto()
    """The broker has it."""
    BUSY = auto()
    """The broker has no room for it now: the outbox waits a little, then hands it out again."""
    PARKED = auto()
    """The broker does not want it as things are: it waits for the next connection, or a quarter of an hour."""
    REFUSED = auto()
    """The broker will never take this one: it is kept aside, where the outbox has a disk, and counts as dropped."""
    EXPIRED = auto()
    """Nobody wants it any more; it counts as dropped."""


@dataclass(frozen=True, slots=True)
class SeqRange:
    """Numbers of transcripts, from `first` to `last`, both included."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of the wish to have transcripts sent again."""

    again: int
    """Messages that will be sent again."""
    missing: tuple[SeqRange, ...]
    """What of the wish is not here, in order."""
    available: SeqRange | None
    """The lowest and the highest number that is here; None if nothing is."""
    still_waiting: int = 0
    """Messages of an earlier wish that have not gone yet; then this one was not granted."""


_FAILURE: Final = 0x80
_FATES: Final = {0x97: Fate.BUSY, 0x90: Fate.REFUSED, 0x95: Fate.REFUSED, 0x99: Fate.REFUSED}


def fate_of(reason_code: int) -> Fate:
    """What the reason code of a PUBACK means (MQTT 5.0, 3.4.2.1; 0 with MQTT 3.1.1).

    0x97 is `quota exceeded`. 0x90 `topic name invalid`, 0x95 `packet too large` and 0x99 `payload format invalid` are
    about this one message, and no repetition helps. The others, 0x87 `not authorized` above all, may be put right.
    """
    return Fate.DELIVERED if reason_code < _FAILURE else _FATES.get(reason_code, Fate.PARKED)


class Outbox(Protocol):
    """Keeps messages until the broker has acknowledged them: live ones first, each kind in order. Bounded and counted.

    `next_seq`, `put`, `purge` and `replay` are called from any thread, the rest from the sink's thread only, but for
    the properties. Nothing is put after `close`.
    """

    def next_seq(self) -> int:
        """The number for the next transcript; for one that is going to be put, since a missing number is a lost one."""

    def put(self, outgoing: Outgoing) -> bool:
        """Keep `outgoing`; False if an older message had to go to make room. Never blocks on the network."""

    def take(self) -> Entry | None:
        """Hand out the oldest message that may go; None if none may go now. Only to be called while connected."""

    def due_in_s(self) -> float:
        """Seconds until `take` may have something, if nothing else happens: the backlog is sent slowly."""

    def settle(self, key: int, fate: Fate) -> None:
        """What became of a message that was taken."""

    def rewind(self) -> None:
        """The connection was lost: hand out again, in order, what was taken and not settled."""

    def purge(self) -> int:
        """Forget everything that is not on its way, without trace; return how many messages that were.

        What was delivered and could have been sent again is forgotten as well, and not counted.
        """

    def replay(self, wanted: SeqRange) -> Replay:
        """Send transcripts again that were delivered since the start, marked, at the backlog's pace and after it.

        Only the last few are still here, in memory. What goes again is neither `pending` nor ever `dropped`. May be
        called from any thread.
        """

    @property
    def pending(self) -> int:
        """Messages that are not settled yet, those on their way included."""

    @property
    def dropped(self) -> int:
        """Messages that were given up, since the start."""

    @property
    def size_bytes(self) -> int:
        """Room that they take, in memory or on disk, roughly."""

    @property
    def conditions(self) -> tuple[str, ...]:
        """What is wrong with the storage, as codes for `health`."""

    def close(self) -> int:
        """Let go of the storage; idempotent. Return how many messages are lost with it: what is on disk is not."""
