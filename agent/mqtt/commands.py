"""The commands, their arguments, and the check of each request. Pure: time is an argument.

`edgescribe/v1/<id>/cmd/<name>` and `edgescribe/v1/_group/<group>/cmd/<name>` carry `{"id", "exp", "args"}`, or, for
Home Assistant, the bare value of the command's one argument.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from agent.config.schema import walk
from agent.config.tunables import COMMANDED
from agent.config.types import InWords
from agent.errors import AgentError
from agent.messages import CONTRACT, HOME_ASSISTANT, may_carry_reply
from agent.mqtt.delivery import Incoming

REMEMBERED: Final = 1_000
"""Ids of requests that are recognised when they are repeated."""
MAX_PAYLOAD_BYTES: Final = 8_192
LONGEST_KEY: Final = 64
MAX_SEQ: Final = 2**53 - 1
"""The largest whole number that every JSON reader knows exactly (RFC 8259, 6)."""


class Arguments(BaseModel):
    """The checked arguments of a command. This base has none."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, str_strip_whitespace=True)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_bool_for_number(cls, value: object, info: ValidationInfo) -> object:
        """Refuse `true` for a number: pydantic would read it as 1."""
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise PydanticCustomError("truth_for_number", "true and false are no numbers")
        return value


class SwitchArguments(Arguments):
    """The arguments of `listen` and `mute`."""

    value: bool = True
    """Whether to listen, or to be mute."""
    purge: bool = False
    """Whether closing the microphone also deletes the messages and utterances that still wait."""


class ReplayArguments(Arguments):
    """The range of transcripts to publish again."""

    first: Annotated[int, Field(ge=1, le=MAX_SEQ, alias="from"), InWords(f"1 to {MAX_SEQ}")]
    last: Annotated[int, Field(ge=1, le=MAX_SEQ, alias="to"), InWords(f"1 to {MAX_SEQ}")]

    @model_validator(mode="after")
    def _in_order(self) -> "ReplayArguments":
        if self.last < self.first:
            msg = "to is before from"
            raise ValueError(msg)
        return self


ARGUMENTS: Final[Mapping[str, type[Arguments]]] = {
    "listen": SwitchArguments,
    "mute": SwitchArguments,
    **{each.command: create_model(each.command, __base__=Arguments, value=(each.type, ...)) for each in COMMANDED},
    "restart": Arguments,
    "identify": Arguments,
    "calibrate": Arguments,
    "replay": ReplayArguments,
    "golden_utterance": Arguments,
}
"""Every command, with its arguments. `Remote` executes them."""


def names(arguments: type[BaseModel]) -> tuple[str, ...]:
    """Return the names of arguments, as a request spells them."""
    return tuple(field.alias or name for name, field in arguments.model_fields.items())


ARGUMENT_NAMES: Final = frozenset(name for arguments in ARGUMENTS.values() for name in names(arguments))


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a command."""

    msg: str
    """One line for people."""
    code: str = "ok"
    result: dict[str, Any] | None = None
    then: Callable[[], None] | None = None
    """Called after the reply was handed over."""


class CommandError(AgentError):
    """A command is refused, or cannot be executed; `code` is the code of the reply."""

    def __init__(self, code: str, msg: str) -> None:
        super().__init__(msg)
        self.code = code


@dataclass(frozen=True, slots=True)
class ReturnAddress:
    """The destination of the reply."""

    command: str
    request_id: str | None
    topic: str | None
    """The request's Response Topic; None for the device's own topic `reply`."""
    correlation: bytes | None


RequestId = Annotated[str, Field(min_length=1, max_length=64)]
_REQUEST_ID: Final = TypeAdapter(RequestId | None)
_ENVELOPE: Final = {
    "id": "text of 1 to 64 characters",
    "exp": "a time with its zone (RFC 3339), or seconds since 1970",
    "args": 'an object, such as {"value": "ON"}',
}


class Request(BaseModel):
    """The envelope of a command."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: RequestId | None = None
    exp: AwareDatetime | None = None
    args: dict[str, Any] = {}


class CommandValidator:
    """Decides which requests are executed. Used by one thread at a time."""

    def __init__(
        self, device_id: str, allowed: Collection[str], groups: Collection[str], discovery_prefix: str = HOME_ASSISTANT
    ) -> None:
        self._discovery_prefix = discovery_prefix
        self._roots = tuple(command_topic(name) for name in (device_id, *(f"_group/{group}" for group in groups)))
        self._allowed = allowed
        self._seen: OrderedDict[str, None] = OrderedDict()

    @property
    def filters(self) -> tuple[str, ...]:
        """The topics to subscribe to; none if no command is allowed."""
        return tuple(f"{root}+" for root in self._roots) if self._allowed else ()

    def validate(self, incoming: Incoming, now: datetime) -> Arguments | None:
        """Return the arguments of a command at `now` (wall clock); None if it is not for this device, or a repetition.

        Raises:
            CommandError: the command is refused.
        """
        root = next((root for root in self._roots if incoming.topic.startswith(root)), None)
        if root is None or incoming.retained:
            return None
        name = incoming.topic.removeprefix(root)
        if (kind := ARGUMENTS.get(name)) is None:
            raise CommandError("unknown_command", f"there is no command {printable(name)!r}")
        if name not in self._allowed:
            raise CommandError("not_allowed", f"the setting commands.allow leaves {name} out")
        try:
            request = _request(name, kind, incoming.payload)
            if request.exp is not None and request.exp <= now:
                raise CommandError("expired", "it came after its exp")
            arguments = kind.model_validate(request.args)
        except ValueError as error:
            raise CommandError("invalid", _complaint(error, name, kind)) from error
        return None if self._is_repeated(request.id) else arguments

    def sender(self, incoming: Incoming) -> ReturnAddress:
        """Return the destination of the reply to `incoming`, even if the request is invalid."""
        topic = incoming.response_topic
        usable = topic and may_carry_reply(topic, self._discovery_prefix)
        name = printable(incoming.topic.rpartition("/cmd/")[2])
        return ReturnAddress(name, _id_in(incoming.payload), topic if usable else None, incoming.correlation)

    def _is_repeated(self, request_id: str | None) -> bool:
        if request_id is None:
            return False
        if request_id in self._seen:
            return True
        self._seen[request_id] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return False


def command_topic(device: str, name: str = "") -> str:
    """Return the topic of a command to a device, or to `_group/<group>`."""
    return f"edgescribe/v{CONTRACT}/{device}/cmd/{name}"


def _parse(payload: bytes) -> dict[str, Any] | str:
    """Return the JSON object in `payload`, or else its text.

    Raises:
        ValueError: it cannot be read.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        msg = f"{len(payload)} bytes are too many for a command: at most {MAX_PAYLOAD_BYTES}"
        raise ValueError(msg)
    try:
        text = payload.decode("utf-8-sig")
        content: dict[str, Any] | str = json.loads(text) if text.lstrip().startswith("{") else text
    except (ValueError, RecursionError) as error:
        raise ValueError(_unreadable(error)) from error
    return content


def _unreadable(error: Exception) -> str:
    match error:
        case UnicodeDecodeError():
            return "not UTF-8 text"
        case json.JSONDecodeError(msg=msg, pos=pos):
            return f"not JSON: {msg[:1].lower()}{msg[1:]}, at character {pos + 1}"
        case RecursionError():
            return "it is nested too deeply"
        case _:  # the only other ValueError of `json.loads`
            return "a number in it has too many digits"


def _id_in(payload: bytes) -> str | None:
    """Return the id of a request, even of an invalid one; None if it has no usable id."""
    try:
        content = _parse(payload)
        return _REQUEST_ID.validate_python(content.get("id")) if isinstance(content, dict) else None
    except ValueError:
        return None


def _request(name: str, kind: type[Arguments], payload: bytes) -> Request:
    """Return the envelope; a bare value gets one.

    Raises:
        ValueError: it cannot be read, or is no envelope.
    """
    content = _parse(payload)
    if isinstance(content, dict):
        request = Request.model_validate(content)
        if stray := _stray(kind, content):
            msg = f"{stray}: put it under args"
            raise ValueError(msg)
        return request
    # Buttons send a meaningless word (Home Assistant: PRESS).
    has_value = "value" in kind.model_fields and (content.strip() or name == "initial_prompt")
    return Request(args={"value": content}) if has_value else Request()


def _stray(kind: type[Arguments], fields: Mapping[str, Any]) -> str:
    """Return a field beside `args` that seems to be an argument; empty if there is none.

    A later release may add to the envelope: unknown fields are ignored. But `{"state": "OFF"}` must not open the
    microphone.
    """
    expects_args = bool(kind.model_fields) and "args" not in fields
    found = (key for key in fields if key not in Request.model_fields and (expects_args or key in ARGUMENT_NAMES))
    return printable(next(found, ""))


def _complaint(error: ValueError, command: str, kind: type[Arguments]) -> str:
    """Say the first problem of a request in the words of the settings, without the value."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])  # from a validator above
    takes = ", ".join(names(kind)) or "none"
    if not first["loc"]:  # so pydantic reports a name with half a surrogate pair, which JSON may hold as `\\ud800`
        return f"the name of an argument is not Unicode text: {command} takes {takes}"
    name = str(first["loc"][0])
    key = printable(name)
    if first["type"] == "extra_forbidden":
        return f"{key} is no argument of {command}: it takes {takes}"
    words = dict(zip(names(kind), (each.allowed for each in next(walk(kind)).settings), strict=True)) | _ENVELOPE
    return f"{key}{' is missing' if first['type'] == 'missing' else ''}: must be {words[name]}"


def printable(key: str) -> str:
    """Shorten a foreign key, and make it fit for one line."""
    return "".join(sign if sign.isprintable() else " " for sign in key[:LONGEST_KEY])
