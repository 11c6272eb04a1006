"""Commands as they come in: read, checked, and let through once. Pure: time is an argument.

`edgescribe/v1/<id>/cmd/<name>` and `edgescribe/v1/_group/<group>/cmd/<name>` carry `{"id", "exp", "args"}`, or, for
Home Assistant, the bare value of the command's one argument.
"""

import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from agent.config.schema import walk
from agent.config.tunables import COMMANDED, Tunable
from agent.config.types import InWords
from agent.messages import CONTRACT, HOME_ASSISTANT, may_carry_reply
from agent.mqtt.delivery import Incoming

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

log = logging.getLogger(__name__)

REMEMBERED: Final = 1_000
"""Ids of requests that are known when they are repeated."""
MAX_PAYLOAD_BYTES: Final = 8_192
LONGEST_KEY: Final = 64
_ENVELOPE: Final = {
    "id": "text of 1 to 64 characters",
    "exp": "a time with its zone (RFC 3339), or seconds since 1970",
    "args": 'an object, such as {"value": "ON"}',
}
MAX_SEQ: Final = 2**53 - 1
"""The largest whole number that every JSON reader knows exactly (RFC 8259, 6)."""


def names(arguments: type[BaseModel]) -> tuple[str, ...]:
    """What a command takes, as it stands in a request."""
    return tuple(field.alias or name for name, field in arguments.model_fields.items())


class Command(BaseModel):
    """What is to be done: the arguments, checked."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, str_strip_whitespace=True)
    name: ClassVar[str]

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        """Refuse `true` where a number is wanted: pydantic would take it for 1."""
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise PydanticCustomError("truth_for_number", "true and false are no numbers")
        return value


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


class Set(Command):
    """Change a setting; each `Tunable` with a command has a subclass with its type."""

    tunable: ClassVar[Tunable]
    value: Any


def _setter(tunable: Tunable) -> type[Set]:
    """The command that changes `tunable`."""
    kind = create_model(f"Set_{tunable.command}", __base__=Set, value=(tunable.type, ...))
    kind.name, kind.tunable = tunable.command, tunable
    return kind


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
    first: Annotated[int, Field(ge=1, le=MAX_SEQ, alias="from"), InWords(f"1 to {MAX_SEQ}")]
    last: Annotated[int, Field(ge=1, le=MAX_SEQ, alias="to"), InWords(f"1 to {MAX_SEQ}")]

    @model_validator(mode="after")
    def _in_order(self) -> "Replay":
        if self.last < self.first:
            msg = "to is before from"
            raise ValueError(msg)
        return self


class GoldenUtterance(Command):
    """Transcribe the bundled sentence."""

    name = "golden_utterance"


_KINDS: Final[tuple[type[Command], ...]] = (
    *(Listen, Mute),
    *(_setter(tunable) for tunable in COMMANDED),
    *(Restart, Identify, Calibrate, Replay, GoldenUtterance),
)
KINDS: Final = {kind.name: kind for kind in _KINDS}
"""Commands by their names."""
ARGUMENTS: Final = frozenset(name for kind in KINDS.values() for name in names(kind))
"""What any command takes."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a command."""

    msg: str
    """One line for people."""
    code: str = "ok"
    result: dict[str, Any] | None = None
    then: Callable[[], None] | None = None
    """What is to be done once the reply is on its way."""

    @property
    def ok(self) -> bool:
        """Whether it was obeyed."""
        return self.code == "ok"


@dataclass(frozen=True, slots=True)
class Later:
    """A command that takes minutes: others are obeyed meanwhile."""

    start: Callable[[Callable[[Outcome], None]], None]
    """Begins, and tells what became of it once, from another thread."""


def fault(error: Exception) -> Outcome:
    """Log an unexpected exception in a command, with its traceback; return the answer to that command."""
    log.error(f"control: a command met a fault in the agent ({type(error).__name__})", exc_info=error)
    return Outcome("the agent has a fault: its log has the details", "internal_error")


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


class CommandValidator:
    """Decides which messages are obeyed. Used by one thread at a time."""

    def __init__(
        self, device_id: str, allowed: Collection[str], groups: Collection[str], discovery_prefix: str = HOME_ASSISTANT
    ) -> None:
        self._discovery_prefix = discovery_prefix
        self._roots = tuple(f"{root}/cmd/" for root in _roots(device_id, groups))
        self._allowed = allowed
        self._seen: OrderedDict[str, None] = OrderedDict()

    @property
    def filters(self) -> tuple[str, ...]:
        """What to subscribe to; nothing where nothing is obeyed."""
        return tuple(f"{root}+" for root in self._roots) if self._allowed else ()

    def validate(self, incoming: Incoming, now: datetime) -> Accepted | Refused | None:
        """Read `incoming` at `now` (by the wall clock); None if it is none of our business, or a repetition."""
        root = next((root for root in self._roots if incoming.topic.startswith(root)), None)
        if root is None or incoming.retained:
            return None
        name = incoming.topic.removeprefix(root)
        opened = _opened(incoming.payload)
        sender = self._return_address(incoming, opened)
        if (kind := KINDS.get(name)) is None:
            return Refused("unknown_command", f"there is no command {sender.command!r}", sender)
        if name not in self._allowed:
            return Refused("not_allowed", f"the setting commands.allow leaves {name} out", sender)
        return self._examine(kind, opened, sender, now)

    def sender(self, incoming: Incoming) -> ReturnAddress:
        """Where the reply to `incoming` goes."""
        return self._return_address(incoming, _opened(incoming.payload))

    def _return_address(self, incoming: Incoming, opened: "_Payload") -> ReturnAddress:
        topic = incoming.response_topic
        fit = topic and may_carry_reply(topic, self._discovery_prefix)
        name = shown(incoming.topic.rpartition("/cmd/")[2])
        return ReturnAddress(name, _id_in(opened), topic if fit else None, incoming.correlation)

    def _examine(
        self, kind: type[Command], opened: "_Payload", sender: ReturnAddress, now: datetime
    ) -> Accepted | Refused | None:
        try:
            request = _read(kind, opened)
            if request.exp is not None and request.exp <= now:
                return Refused("expired", "it came after its exp", sender)
            command = kind.model_validate(request.args)
            if request.id is not None and self._is_repeated(request.id):
                return None
            return Accepted(command, sender)
        except ValidationError as error:
            return Refused("invalid", _unfit(error, kind.name, kind), sender)
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
class _Payload:
    """A payload, read as far as that goes without the kind of the command."""

    text: str = ""
    fields: dict[str, Any] | None = None
    """What the JSON in it says; None where it is a bare value."""
    problem: str = ""
    """Why it cannot be read; then there is nothing else."""


def _opened(payload: bytes) -> _Payload:
    """Read `payload`: the reply wants its id, whatever else is wrong with it."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        return _Payload(problem=f"{len(payload)} bytes are too many for a command: at most {MAX_PAYLOAD_BYTES}")
    try:
        text = payload.decode("utf-8-sig")
        return _Payload(text, json.loads(text) if text.lstrip().startswith("{") else None)
    except RecursionError:
        return _Payload(problem="it is nested too deeply")
    except ValueError as error:
        return _Payload(problem=_unreadable(error))


def _id_in(opened: _Payload) -> str | None:
    """The id that the reply carries, whatever else is wrong with the request; None if it has none, or none of ours."""
    try:
        return Identified.model_validate(opened.fields).id
    except ValidationError:
        return None


def _read(kind: type[Command], opened: _Payload) -> Request:
    """The envelope; around a bare value, one is put.

    Raises:
        ValueError: it cannot be read, or is no envelope of ours.
    """
    if opened.problem:
        raise ValueError(opened.problem)
    if opened.fields is not None:
        request = Request.model_validate(opened.fields)
        if stray := _stray(kind, opened.fields):
            raise ValueError(f"{stray}: put it under args")
        return request
    # Buttons send a word of their own (Home Assistant: PRESS), which says nothing.
    takes_value = "value" in kind.model_fields
    empty = not opened.text.strip() and kind.name != "initial_prompt"
    return Request(args={"value": opened.text}) if takes_value and not empty else Request()


def _stray(kind: type[Command], fields: Mapping[str, Any]) -> str:
    """What stands beside `args`, and seems to be an argument; empty if nothing does.

    A later release may add to the envelope, and that is ignored. But `{"state": "OFF"}` must not open the microphone.
    """
    expects = bool(kind.model_fields) and "args" not in fields
    found = (key for key in fields if key not in Request.model_fields and (expects or key in ARGUMENTS))
    return shown(next(found, ""))


# What is wrong with a request, in the words that settings have for it; values are never repeated.


def _unreadable(error: ValueError) -> str:
    """Why a payload is no request at all."""
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg[:1].lower()}{error.msg[1:]}, at character {error.pos + 1}"
    return "a number in it has too many digits"  # the only other ValueError of `json.loads`


def _unfit(error: ValidationError, command: str, arguments: type[BaseModel]) -> str:
    """The first thing that is wrong with an envelope, or with the `arguments` of a `command`."""
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])  # written by our own validators
    takes = ", ".join(names(arguments)) or "none"
    if not first["loc"]:  # so pydantic reports a name with half a surrogate pair, which JSON may hold as `\\ud800`
        return f"the name of an argument is not Unicode text: {command} takes {takes}"
    key = shown(str(first["loc"][0]))
    if first["type"] == "extra_forbidden":
        return f"{key} is no argument of {command}: it takes {takes}"
    allowed = _allowed(first, arguments)
    return f"{key} is missing: {allowed}" if first["type"] == "missing" else f"{key}: {allowed}"


def shown(key: str) -> str:
    """Somebody else's key, fit for one line of ours."""
    return "".join(sign if sign.isprintable() else " " for sign in key[:LONGEST_KEY])


def _allowed(detail: "ErrorDetails", arguments: type[BaseModel]) -> str:
    key = str(detail["loc"][0])
    if key in _ENVELOPE:
        return f"must be {_ENVELOPE[key]}"
    settings = next(walk(arguments)).settings
    words = {name: setting.allowed for name, setting in zip(names(arguments), settings, strict=True)}
    return f"must be {words[key]}"
