"""Commands as they come in: read, checked, and let through once. Pure: time is an argument; who obeys stands elsewhere.

`edgescribe/v1/<id>/cmd/<name>` and `edgescribe/v1/_group/<group>/cmd/<name>` carry `{"id", "exp", "args"}`, or, for
Home Assistant, the bare value of the command's one argument.
"""

import json
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from agent.config.section import Fraction, InWords, Language
from agent.controls.refusals import names, shown, unfit, unreadable
from agent.delivery import Incoming
from agent.wire import CONTRACT

REMEMBERED: Final = 1_000
"""Ids of requests that are known when they are repeated."""
MAX_PAYLOAD_BYTES: Final = 8_192
MAX_PROMPT: Final = 1_000
_MAX_TOPIC_BYTES: Final = 65_535


class Command(BaseModel):
    """What is to be done: the arguments, checked."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, str_strip_whitespace=True)
    name: ClassVar[str]


class Listen(Command):
    """Open the microphone, or close it."""

    name = "listen"
    value: bool = True
    """Whether to listen."""
    purge: bool = False
    """Whether to delete what waits for the broker as well, when the microphone is closed."""


class Mute(Command):
    """Close the microphone, or open it."""

    name = "mute"
    value: bool = True
    """Whether to be mute."""
    purge: bool = False
    """Whether to delete what waits for the broker as well."""


class SetModel(Command):
    """Recognise with another model."""

    name = "model"
    value: Annotated[
        str,
        Field(min_length=1, max_length=100, pattern=r"^[^~/\\\x00-\x1f][^/\\\x00-\x1f]*$"),
        InWords("a name, not a path"),
    ]
    """Its name in the catalogue; a path is not allowed."""


class SetLanguage(Command):
    """Expect another language."""

    name = "language"
    value: Language


class SetInitialPrompt(Command):
    """Prime the decoder with other words."""

    name = "initial_prompt"
    value: Annotated[str, Field(max_length=MAX_PROMPT), InWords(f"text, at most {MAX_PROMPT:,} characters")]


class SetVadThreshold(Command):
    """Take more or less for speech."""

    name = "vad_threshold"
    value: Fraction


class SetMinConfidence(Command):
    """Publish more or less of what was recognised."""

    name = "min_confidence"
    value: Fraction


class Restart(Command):
    """End, to be started again."""

    name = "restart"


class Identify(Command):
    """Show which device this is."""

    name = "identify"


class Calibrate(Command):
    """Measure engines and models, and choose."""

    name = "calibrate"


class Replay(Command):
    """Publish transcripts again."""

    name = "replay"
    first: Annotated[int, Field(ge=1, alias="from")]
    last: Annotated[int, Field(ge=1, alias="to")]

    @model_validator(mode="after")
    def _in_order(self) -> "Replay":
        if self.last < self.first:
            msg = "to is before from"
            raise ValueError(msg)
        return self


class GoldenUtterance(Command):
    """Transcribe the bundled sentence."""

    name = "golden_utterance"


KINDS: Final[Mapping[str, type[Command]]] = {
    kind.name: kind
    for kind in (
        *(Listen, Mute, SetModel, SetLanguage, SetVadThreshold, SetMinConfidence, SetInitialPrompt),
        *(Restart, Identify, Calibrate, Replay, GoldenUtterance),
    )
}
"""Commands by their names."""
ARGUMENTS: Final = frozenset(name for kind in KINDS.values() for name in names(kind))
"""What any command takes."""


@dataclass(frozen=True, slots=True)
class ReturnAddress:
    """Where the reply goes."""

    command: str
    request_id: str | None = None
    topic: str | None = None
    """The request's Response Topic; None for our own `reply`."""
    correlation: bytes | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """A command that is to be obeyed."""

    command: Command
    sender: ReturnAddress


@dataclass(frozen=True, slots=True)
class Refused:
    """A command that is not, and why."""

    code: str
    msg: str
    sender: ReturnAddress


class Identified(BaseModel):
    """The envelope of a command, as far as the reply to it needs it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: Annotated[str, Field(min_length=1, max_length=64)] | None = None


class Request(Identified):
    """The envelope of a command."""

    exp: AwareDatetime | None = None
    args: dict[str, Any] = {}


class Doorkeeper:
    """Decides which messages are obeyed. Used by one thread at a time."""

    def __init__(self, device_id: str, allowed: Collection[str], groups: Collection[str]) -> None:
        self._roots = tuple(f"{root}/cmd/" for root in _roots(device_id, groups))
        self._allowed = allowed
        self._seen: OrderedDict[str, None] = OrderedDict()

    @property
    def filters(self) -> tuple[str, ...]:
        """What to subscribe to; nothing where nothing is obeyed."""
        return tuple(f"{root}+" for root in self._roots) if self._allowed else ()

    def admit(self, incoming: Incoming, now: datetime) -> Accepted | Refused | None:
        """Read `incoming` at `now` (by the wall clock); None if it is none of our business, or a repetition."""
        root = next((root for root in self._roots if incoming.topic.startswith(root)), None)
        if root is None or incoming.retained:
            return None
        name = incoming.topic.removeprefix(root)
        letter = _opened(incoming.payload)
        reply_topic = _response_topic(incoming.response_topic)
        sender = ReturnAddress(name[:64], _id_in(letter), reply_topic, incoming.correlation)
        if (kind := KINDS.get(name)) is None:
            return Refused("unknown_command", f"there is no command {name[:64]!r}", sender)
        if name not in self._allowed:
            return Refused("not_allowed", f"the setting commands.allow leaves {name} out", sender)
        return self._examine(kind, letter, sender, now)

    def _examine(
        self, kind: type[Command], letter: "_Letter", sender: ReturnAddress, now: datetime
    ) -> Accepted | Refused | None:
        try:
            request = _read(kind, letter)
            if request.exp is not None and request.exp <= now:
                return Refused("expired", "it came after its exp", sender)
            if request.id is not None and self._is_repeated(request.id):
                return None
            return Accepted(kind.model_validate(request.args), sender)
        except ValidationError as error:
            return Refused("invalid", unfit(error, kind.name, kind), sender)
        except ValueError as error:
            return Refused("invalid", str(error), sender)

    def _is_repeated(self, request_id: str) -> bool:
        if request_id in self._seen:
            return True
        self._seen[request_id] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return False


def command_topic(device_id: str, name: str) -> str:
    """Where a device listens for a command."""
    return f"edgescribe/v{CONTRACT}/{device_id}/cmd/{name}"


def _roots(device_id: str, groups: Collection[str]) -> tuple[str, ...]:
    base = f"edgescribe/v{CONTRACT}"
    return (f"{base}/{device_id}", *(f"{base}/_group/{group}" for group in groups))


@dataclass(frozen=True, slots=True)
class _Letter:
    """A payload, read as far as that goes without the kind of the command."""

    text: str = ""
    fields: dict[str, Any] | None = None
    """What the JSON in it says; None where it is a bare value."""
    problem: str = ""
    """Why it cannot be read; then there is nothing else."""


def _opened(payload: bytes) -> _Letter:
    """Read `payload`: the reply wants its id, whatever else is wrong with it."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        return _Letter(problem=f"{len(payload)} bytes are too many for a command: at most {MAX_PAYLOAD_BYTES}")
    try:
        text = payload.decode()
        return _Letter(text, json.loads(text) if text.lstrip().startswith("{") else None)
    except RecursionError:
        return _Letter(problem="it is nested too deeply")
    except ValueError as error:
        return _Letter(problem=unreadable(error))


def _id_in(letter: _Letter) -> str | None:
    """The id that the reply carries, whatever else is wrong with the request; None if it has none, or none of ours."""
    try:
        return Identified.model_validate(letter.fields).id
    except ValidationError:
        return None


def _read(kind: type[Command], letter: _Letter) -> Request:
    """The envelope; around a bare value, one is put.

    Raises:
        ValueError: it cannot be read, or is no envelope of ours.
    """
    if letter.problem:
        raise ValueError(letter.problem)
    if letter.fields is not None:
        request = Request.model_validate(letter.fields)
        if stray := _stray(kind, letter.fields):
            raise ValueError(f"{stray}: put it under args")
        return request
    # Buttons send a word of their own (Home Assistant: PRESS), which says nothing.
    takes_value = "value" in kind.model_fields
    empty = not letter.text.strip() and kind is not SetInitialPrompt
    return Request(args={"value": letter.text}) if takes_value and not empty else Request()


def _stray(kind: type[Command], fields: Mapping[str, Any]) -> str:
    """What stands beside `args`, and seems to be an argument; empty if nothing does.

    A later release may add to the envelope, and that is ignored. But `{"state": "OFF"}` must not open the microphone.
    """
    expects = bool(kind.model_fields) and "args" not in fields
    found = (key for key in fields if key not in Request.model_fields and (expects or key in ARGUMENTS))
    return shown(next(found, ""))


def _response_topic(topic: str | None) -> str | None:
    """`topic` if an answer may go there: not a pattern, no system topic, and no command, which might be obeyed."""
    if not topic or len(topic.encode()) > _MAX_TOPIC_BYTES or topic.startswith("$"):
        return None
    return None if any(sign in topic for sign in ("+", "#", "\0", "/cmd/")) else topic
