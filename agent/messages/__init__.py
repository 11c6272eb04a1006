"""The payloads that subscribers get: contract 1 of the MQTT topics.

Within a contract, fields are only added. A field that the device cannot tell is left out; it is never 0 or null.
`Message.payload()` serialises. Units stand in the names. Instants are UTC in RFC 3339, with milliseconds.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final, Literal, get_args

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    create_model,
    model_validator,
)

from agent.config.tunables import COMMANDED

CONTRACT: Final = 1
"""The version in `edgescribe/v1/…` and in the `v` field."""


def _rfc3339(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Instant = Annotated[
    AwareDatetime,
    PlainSerializer(_rfc3339, return_type=str, when_used="json"),
    WithJsonSchema(
        {"type": "string", "format": "date-time", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"},
        mode="serialization",
    ),
]


def _without_negative_zero(value: Any) -> Any:
    if isinstance(value, float):
        return value + 0.0
    if isinstance(value, dict):
        return {name: _without_negative_zero(item) for name, item in value.items()}
    return [_without_negative_zero(item) for item in value] if isinstance(value, list) else value


class Part(BaseModel):
    """A nested part of a message. Rounding may leave `-0.0`; a message says `0.0`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _unsigned_zeros(cls, fields: Any) -> Any:
        return _without_negative_zero(fields)


class Message(Part):
    """One payload, with its topic and the way it is delivered."""

    topic: ClassVar[str]
    """Below `edgescribe/v1/<id>/`."""
    qos: ClassVar[Literal[0, 1]]
    retained: ClassVar[bool]
    expiry_s: ClassVar[int | None] = None
    """MQTT 5 message expiry interval."""
    schema_name: ClassVar[str]
    """Sent as the MQTT 5 user property `schema`."""
    content_type: ClassVar[str] = "application/json"
    """Sent as the MQTT 5 property of that name."""
    late_topic: ClassVar[str | None] = None
    """The topic for messages that leave the device late, marked as `replayed`; None if they have no other topic."""
    kept: ClassVar[bool] = True
    """Whether the outbox keeps it over a lost connection (QoS 1, not retained)."""

    v: Literal[1] = CONTRACT

    def payload(self) -> bytes:
        """Return the JSON to send, without unknown fields."""
        return self.model_dump_json(exclude_none=True).encode()


class Word(Message):
    """A payload of one bare word, without JSON."""

    content_type = "text/plain"

    state: str

    def payload(self) -> bytes:
        """Return the bare word."""
        return self.state.encode()


class Status(Word):
    """Birth and last will. The payload is the bare word, as Home Assistant's availability topics want it."""

    topic = "status"
    qos = 1
    retained = True
    schema_name = "status/1"

    state: Literal["online", "offline"]


class Info(Message):
    """A description of the device; sent once a connection."""

    topic = "info"
    qos = 1
    retained = True
    schema_name = "info/1"

    id: str
    """The device's id: topic level, MQTT client id and user name."""
    name: str
    """The name for people."""
    agent: str
    """Version of edgescribe."""
    boot_id: str
    """Changes with every boot of the machine (`/proc/sys/kernel/random/boot_id`)."""
    hardware: str | None = None
    """Board, from the device tree or DMI."""
    os: str | None = None
    kernel: str | None = None
    arch: str | None = None
    python: str | None = None
    engine: str
    model: str
    source: str
    """Source kind and device."""


class GovernorState(Part):
    """The profile that the device can keep up with at the moment."""

    level: int
    """Steps below the configured engine; 0 is that engine."""
    levels: int
    """Number of steps below the configured engine."""
    reason: Literal["behind", "hot", "throttled", "undervoltage", "memory"] | None = None
    """Why the level is not 0."""
    eager: bool
    """Whether utterances are decoded ahead, inside the pause that may end them."""


class _Running(Message):
    listening: bool
    engine: str
    model: str
    language: str


_VALUES: Final[dict[str, Any]] = {
    tunable.command: (get_args(tunable.type)[0], Field(tunable.default, description=f"`{tunable.key}` in force."))
    for tunable in COMMANDED
}
_Commanded = create_model("_Commanded", __base__=_Running, **_VALUES)


class State(_Commanded):
    """The values in force of all that commands can change. Most fields come from the table in `config.tunables`."""

    topic = "state"
    qos = 1
    retained = True
    schema_name = "state/1"

    privacy: Literal["full", "keywords", "off"] = "full"
    """Which part of the speech leaves the device. Commands cannot change it."""
    governor: GovernorState | None = None
    """The governor's level; left out if the governor is off."""


class Health(Message):
    """Whether the device has a problem; sent on change."""

    topic = "health"
    qos = 1
    retained = True
    schema_name = "health/1"

    problem: Literal["ON", "OFF"]
    codes: tuple[str, ...] = ()
    """The problems: `mic_absent`, `falling_behind`, …"""


class Latency(Part):
    """Where the time went, in milliseconds."""

    vad_close: int
    """From the end of speech until the end was certain (the hang-over)."""
    queue: int
    """Waiting for the engine."""
    encode_decode: int
    """Inference, mel spectrogram and retries included; it may have run inside the hang-over. If several waiting
    utterances were transcribed at once, a share of it."""
    total_from_speech_end: int
    """From the end of speech until the message was handed to the sink."""


class OfUtterance(Message):
    """A numbered message about one utterance: its words, or the failure to get them."""

    qos = 1
    retained = False
    expiry_s = 86_400

    event_type: str
    """Home Assistant's `event` entities want it."""
    id: str
    """ULID of the utterance. Deduplicate on it."""
    seq: int
    """Counts up without gaps; transcripts and failures share the count. Order on (`boot_id`, `seq`), never on wall
    time."""
    boot_id: str
    ts: Instant
    """When the message was made."""
    start: Instant
    """When the utterance began."""
    time_synced: bool
    """Whether the system clock was synchronised when the message was made; also false if `start` is a guess."""
    duration_s: float


class TranscriptMessage(OfUtterance):
    """The words of one utterance, with the evidence for them."""

    topic = "transcript"
    late_topic = "transcript/backlog"
    schema_name = "transcript/1"

    event_type: Literal["transcript"] = "transcript"
    text: str
    truncated: bool = False
    """The utterance was cut at its maximum length and goes on in the next one, or the text was cut at 8 KiB."""
    lang: str
    lang_prob: float | None = None
    avg_logprob: float | None = None
    no_speech_prob: float | None = None
    compression_ratio: float | None = None
    verdict: Literal["confident", "doubtful"]
    model: str
    engine: str
    audio_ctx: int
    """Encoder positions used; 50 are one second, 1500 the full window."""
    rtf: float
    """Real-time factor: inference time over the length of the utterance."""
    latency_ms: Latency
    rms_dbfs: float
    snr_db: float | None = None
    """Speech over noise, in dB: estimated from the utterance, its pre-roll and pauses included."""
    clipped: bool = False
    """Some samples were at full scale."""
    replayed: bool = False
    """It leaves the device late."""
    late: bool | None = None
    """The engine had no time for it at first; the device kept the sound until it had."""


class Keyword(Message):
    """One of the words or patterns of `publish.keywords` was said. Carries no other word of the speech."""

    topic = "keyword"
    qos = 1
    retained = False
    expiry_s = 60
    schema_name = "keyword/1"

    event_type: Literal["keyword"] = "keyword"
    id: str
    """ULID of the utterance, the same as in its transcript."""
    keyword: str
    """Its name in the settings."""
    ts: Instant
    time_synced: bool
    verdict: Literal["confident", "doubtful"]


class Vad(Word):
    """Speech has begun or ended. The payload is the bare word."""

    topic = "vad"
    qos = 0
    retained = False
    schema_name = "vad/1"

    state: Literal["ON", "OFF"]


class Reply(Message):
    """The result of a command. Goes to the request's Response Topic (MQTT 5) if it has one."""

    topic = "reply"
    qos = 1
    retained = False
    expiry_s = 60
    kept = False
    schema_name = "reply/1"

    device: str
    """The device that answers: a group has many members."""
    command: str
    id: str | None = None
    """The id of the request, if it had one."""
    ok: bool
    code: str
    """`ok`, or why not: `invalid`, `not_allowed`, … (docs/mqtt.md has them all)."""
    msg: str
    """The same for people."""
    result: dict[str, Any] | None = None
    """Figures of the result; they depend on the command."""


class TranscriptFailed(OfUtterance):
    """The engine failed twice on an utterance, or was too far behind. Carries no word of the speech."""

    topic = "transcript/failed"
    schema_name = "transcript_failed/1"

    event_type: Literal["transcript_failed"] = "transcript_failed"
    reason: Literal["engine", "overload"]
    """`engine`: it crashed, hung or refused, twice. `overload`: it had to make room for newer ones, or was kept for
    later and could not be read again."""
    msg: str
    """The same for people."""


class PartialTranscript(Message):
    """The words up to a pause of 200 ms: for a display, not for automations."""

    topic = "transcript/partial"
    qos = 0
    retained = False
    expiry_s = 10
    schema_name = "transcript_partial/1"

    event_type: Literal["transcript_partial"] = "transcript_partial"
    id: str
    """ULID of the utterance, the same as in the transcript that may follow: noise is rejected only there."""
    ts: Instant
    duration_s: float
    """Length of the utterance so far."""
    text: str
    """Everything since it began, not only the new words; at most 8 KiB of UTF-8."""
    lang: str


MAX_TEXT_BYTES = 8_192
"""Longer texts are cut at a character boundary and marked `truncated`."""


def cut_text(text: str) -> tuple[str, bool]:
    """Cut `text` to 8 KiB of UTF-8 at a character boundary; the flag tells whether anything was cut."""
    encoded = text.encode()
    if len(encoded) <= MAX_TEXT_BYTES:
        return text, False
    return encoded[:MAX_TEXT_BYTES].decode(errors="ignore"), True  # ignores an incomplete last character


def topic_for(device_id: str, kind: type[Message] | Message, *, late: bool = False) -> str:
    """Return the full topic of a kind of message, `edgescribe/v1/<id>/<topic>`, or its topic for late messages."""
    late = late or (isinstance(kind, TranscriptMessage) and bool(kind.late))
    return f"edgescribe/v{CONTRACT}/{device_id}/{(late and kind.late_topic) or kind.topic}"


REPLIES: Final = f"edgescribe/v{CONTRACT}/_reply"
"""The only part of the contract's topics that a request may name for its reply."""
HOME_ASSISTANT: Final = "homeassistant"
"""Home Assistant's own discovery prefix, which also has its `status`."""
MAX_REPLY_TOPIC_BYTES: Final = 1_024
MAX_REPLY_TOPIC_LEVELS: Final = 100
"""mosquitto hangs up on a client that publishes to a topic of more than 200 levels."""


def may_carry_reply(topic: str, discovery_prefix: str) -> bool:
    """Return whether a reply may go to `topic`, which a request has named.

    A reply must not look like another message of a device or a discovery message. It must not be a command either: a
    device might execute it. A pattern or an unprintable topic would end the connection.
    """
    below = f"{topic}/".startswith
    reserved = any(below(f"{tree}/") for tree in ("edgescribe", HOME_ASSISTANT, discovery_prefix))
    if topic.startswith("$") or (reserved and not below(f"{REPLIES}/")) or "/cmd/" in topic:
        return False
    spelt = topic.isprintable() and "+" not in topic and "#" not in topic
    return spelt and len(topic.encode()) <= MAX_REPLY_TOPIC_BYTES and topic.count("/") < MAX_REPLY_TOPIC_LEVELS
