"""The types of delivery: messages to the broker, messages from it, and its answers."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Final, Literal

from agent.messages import Message, TranscriptFailed, TranscriptMessage, topic_for


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message as it goes over the wire, and as the outbox stores it."""

    topic: str
    payload: bytes
    qos: Literal[0, 1]
    retained: bool
    content_type: str
    schema: str
    """Name and version of the payload's schema, such as `transcript/1`."""
    expiry_s: int | None = None
    """How long the message is useful, from `accepted_s`; None is for ever."""
    accepted_s: float = 0.0
    """Monotonic time at which the pipeline made it; negative if that was before the machine was started."""
    backlog_topic: str | None = None
    """Its topic when it leaves late; None if that is the same."""
    seq: int | None = None
    """The number of a transcript, or of one that failed."""
    persistent: bool = True
    """Whether the outbox keeps it until it has arrived; if not, it goes only if there is a connection."""
    correlation: bytes | None = None
    """Correlation Data of the request that this answers (MQTT 5)."""
    key: int | None = field(default=None, compare=False)
    """Identifies it in the outbox; None if it is not there. Keys grow with every message."""

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
            backlog_topic=topic_for(device_id, message, late=True) if message.late_topic else None,
            seq=message.seq if isinstance(message, TranscriptMessage | TranscriptFailed) else None,
            persistent=message.kept,
        )

    def replayed(self, expiry_s: int) -> "Outgoing":
        """Return it for the backlog's topic: marked, and valid for `expiry_s` from `accepted_s`."""
        payload = json.dumps(json.loads(self.payload) | {"replayed": True}, ensure_ascii=False, separators=(",", ":"))
        return replace(self, topic=self.backlog_topic or self.topic, payload=payload.encode(), expiry_s=expiry_s)

    def remaining_s(self, now_s: float) -> int | None:
        """Whole seconds until it expires, 0 or less if it has; None if it never does."""
        return None if self.expiry_s is None else self.expiry_s - int(now_s - self.accepted_s)


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message that another client sent to this device."""

    topic: str
    payload: bytes
    retained: bool
    response_topic: str | None = None
    """Where the answer is wanted (MQTT 5); as the sender wrote it, so possibly no topic at all."""
    correlation: bytes | None = None
    """The Correlation Data that the answer has to carry (MQTT 5)."""


@dataclass(frozen=True, slots=True)
class Inbox:
    """The topics to subscribe to, and the function that gets their messages."""

    filters: tuple[str, ...] = ()
    """Topic filters (MQTT 5.0, 4.7)."""
    on_message: Callable[[Incoming], None] = lambda _incoming: None
    """Called from the thread `mqtt` with every message; it must only put it into a queue."""


NOTHING: Final = Inbox()
"""Has no subscription."""


class PublishResult(Enum):
    """The end of one attempt to publish a message."""

    DELIVERED = auto()
    """The broker has accepted it."""
    BUSY = auto()
    """The broker has no room for it now: the outbox waits a little, then hands it out again."""
    DEFERRED = auto()
    """The broker forbids it for now: it waits for the next connection, or a quarter of an hour."""
    REFUSED = auto()
    """The broker will never accept it: it is kept aside, where the outbox has a disk, and counts as dropped."""
    EXPIRED = auto()
    """It is too old; it counts as dropped."""


@dataclass(frozen=True, slots=True)
class SeqRange:
    """Numbers of transcripts, from `first` to `last`, both included."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Replay:
    """The answer to a request to send transcripts again."""

    again: int
    """Messages that will be sent again."""
    missing: tuple[SeqRange, ...]
    """The requested numbers that are not kept, in order."""
    available: SeqRange | None
    """The lowest and the highest number that is kept; None if there is none."""
    still_waiting: int = 0
    """Messages of an earlier request that have not gone yet; if there are any, this request is refused."""


_FAILURE: Final = 0x80
_RESULTS: Final = {
    0x97: PublishResult.BUSY,
    0x90: PublishResult.REFUSED,
    0x95: PublishResult.REFUSED,
    0x99: PublishResult.REFUSED,
}


def publish_result(reason_code: int) -> PublishResult:
    """Return the meaning of the reason code of a PUBACK (MQTT 5.0, 3.4.2.1; 0 with MQTT 3.1.1).

    0x97 is `quota exceeded`. 0x90 `topic name invalid`, 0x95 `packet too large` and 0x99 `payload format invalid` are
    about this one message, and no repetition helps. The operator may mend the others, such as 0x87 `not authorized`.
    """
    return PublishResult.DELIVERED if reason_code < _FAILURE else _RESULTS.get(reason_code, PublishResult.DEFERRED)
