"""What is said of an utterance that got no words (contract 1, as in `agent.messages`)."""

from typing import Literal

from agent.messages import CONTRACT, Instant, Message


class TranscriptFailed(Message):
    """Somebody spoke, and the engine failed on it twice, or it was too far behind. Nothing of the speech is in it."""

    topic = "transcript/failed"
    qos = 1
    retained = False
    expiry_s = 86_400
    schema_name = "transcript_failed/1"

    v: Literal[1] = CONTRACT
    event_type: Literal["transcript_failed"] = "transcript_failed"
    id: str
    """ULID of the utterance."""
    seq: int
    """Its place among the transcripts, which it shares their count with."""
    boot_id: str
    ts: Instant
    """When it was given up."""
    start: Instant
    """When the utterance began."""
    time_synced: bool
    """As in a transcript."""
    duration_s: float
    reason: Literal["engine", "overload"]
    """`engine`: crashed, hung or refused, twice; `overload`: it had to make room for newer ones, or was kept until
    there was time and could not be read again."""
    msg: str
    """The same for people."""
