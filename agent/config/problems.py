"""Explains each bad setting in one line: its place, its key, its value, and the allowed values.

No line shows a secret, or the value of an unknown key: the key may be a misspelt secret.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from agent.config.schema import KeyPath, all_paths, by_path, default_kinds, dotted, kinds_of, section_paths

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

LONGEST_VALUE = 60


@dataclass(frozen=True, slots=True)
class Origin:
    """The place of a value."""

    place: str
    """A file, a variable, a credential or `command line`."""
    line: int | None = None
    file: Path | None = None
    """Only for a TOML file."""

    def __str__(self) -> str:
        return f"{self.place}:{self.line}" if self.line else self.place


@dataclass(frozen=True, slots=True)
class Entry:
    """One value, as it was read."""

    path: KeyPath
    value: Any
    origin: Origin


def explain(error: ValidationError, entries: Mapping[KeyPath, Entry]) -> list[str]:
    """Return one line for each problem of validation, in the order of the settings."""
    return [_line(detail, entries) for detail in error.errors(include_url=False)]


def unknown(entry: Entry) -> str:
    """Return the line for a key that does not exist, with the nearest key."""
    return f"{entry.origin}: {dotted(entry.path)} is not a setting{_suggestion(entry.path)}"


def _suggestion(path: KeyPath) -> str:
    """Name the nearest key of the same section, else the nearest key of all."""
    known = [*all_paths(), *section_paths()]
    beside = [each[-1] for each in known if each[:-1] == path[:-1]]
    if near := difflib.get_close_matches(path[-1], beside, n=1):
        return f": did you mean {dotted((*path[:-1], near[0]))}?"
    others = [dotted(each) for each in known if each != path[: len(each)]]
    elsewhere = [dotted(each) for each in known if each[-1] == path[-1]]
    if found := difflib.get_close_matches(dotted(path), others, n=1) or elsewhere:
        return f": did you mean {found[0]}?"
    return ": remove it (docs/settings.md lists all)"


def _line(detail: "ErrorDetails", entries: Mapping[KeyPath, Entry]) -> str:
    path: KeyPath = ()
    for part in detail["loc"]:  # without the tags of unions and the indices of lists
        if isinstance(part, str) and part not in kinds_of(path):
            path = (*path, part)
    if detail["type"] == "union_tag_invalid":
        path = (*path, "kind")
    entry = entries.get(path) or Entry(path, detail["input"], _nearest_origin(path, entries))
    where = f"{entry.origin}: {dotted(path)}" if path else str(entry.origin)
    match detail["type"]:
        case "extra_forbidden":  # `load` passes known keys only: it belongs to another kind
            owners = " or ".join(sorted(setting.kind for setting in by_path(path)))
            return f'{where} belongs to {dotted(path[:-1])}.kind = "{owners}": set that kind or remove the key'
        case "missing":
            return f"{where} is missing: {_allowed(path, entries)}"
        case "value_error":  # from the validators in `settings`, in the form "problem: remedy"
            return f"{where}: {detail['ctx']['error']}"
        case _:
            return f"{where}{_shown(entry)} is not allowed: {_allowed(path, entries)}"


def _nearest_origin(path: KeyPath, entries: Mapping[KeyPath, Entry]) -> Origin:
    """Return the origin for a key without a value: of a key below it, else of one beside it, first of its `kind`."""
    below = [entry for known, entry in entries.items() if path and known[: len(path)] == path]
    beside = [entry for known, entry in entries.items() if path[:-1] and known[: len(path) - 1] == path[:-1]]
    found = below or sorted(beside, key=lambda entry: entry.path[-1] != "kind")
    return found[0].origin if found else Origin("settings")


def _allowed(path: KeyPath, entries: Mapping[KeyPath, Entry]) -> str:
    if path[-1] == "kind" and (kinds := kinds_of(path[:-1])):
        return f"must be one of {', '.join(kinds)}"
    if path in section_paths():
        return f"must be a table, [{dotted(path)}]"
    # Kinds may differ: the chosen one counts.
    chosen = entries.get((*path[:-1], "kind"))
    kind = chosen.value if chosen else default_kinds().get(path[:-1])
    found = sorted(by_path(path), key=lambda setting: setting.kind != kind)
    return f"must be {found[0].allowed}" if found else "see docs/settings.md"


def _shown(entry: Entry) -> str:
    settings = by_path(entry.path)
    # There may be a password before an @: mqtt://user:password@broker.
    if "@" in str(entry.value) or not settings or any(setting.secret for setting in settings):
        return ""
    text = f'"{entry.value}"' if isinstance(entry.value, str) else str(entry.value)
    return f" = {text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + '…'}"
