"""What is wrong with a request, in the words that settings have for it. Pure; values are never repeated."""

import json
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ValidationError

from agent.config.schema import walk

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

LONGEST_KEY: Final = 64
_ENVELOPE: Final = {
    "id": "text of 1 to 64 characters",
    "exp": "a time with its zone (RFC 3339), or seconds since 1970",
    "args": 'an object, such as {"value": "ON"}',
}


def unreadable(error: ValueError) -> str:
    """Why a payload is no request at all."""
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg[:1].lower()}{error.msg[1:]}, at character {error.pos + 1}"
    return "a number in it has too many digits"  # the only other ValueError of `json.loads`


def unfit(error: ValidationError, command: str, arguments: type[BaseModel]) -> str:
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


def names(arguments: type[BaseModel]) -> tuple[str, ...]:
    """What a command takes, as it stands in a request."""
    return tuple(field.alias or name for name, field in arguments.model_fields.items())


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
