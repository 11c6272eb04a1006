"""What is understood of an utterance while it may still go on (contract 1, as in `agent.messages`)."""

from typing import Literal

from agent.messages import CONTRACT, Instant, Message


class PartialTranscript(Message):
    """The words up to a pause of 200 ms: a display may show them, nobody should act on them."""

    topic = "transcript/partial"
    qos = 0
    retained = False
    expiry_s = 10
    schema_name = "transcript_partial/1"

    v: Literal[1] = CONTRACT
    event_type: Literal["transcript_partial"] = "transcript_partial"
    id: str
    """ULID of the utterance, the same as in the transcript that follows, if one does: noise is rejected only there."""
    ts: Instant
    duration_s: float
    """Length of the utterance so far."""
    text: str
    """Everything since it began, not only what is new; at most 8 KiB of UTF-8."""
    lang: str
