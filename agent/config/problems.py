"""Says in one line each what is wrong with a setting: where it stands, what it is, what is allowed.

Secrets, and the values of keys that are unknown (which may be misspelt secrets), are never repeated.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from agent.config.schema import (
    KeyPath,
    Setting,
    all_paths,
    by_path,
    default_kinds,
    dotted,
    kinds_of,
    section_paths,
)

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

LONGEST_VALUE = 60


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value stands."""

    place: str
    """A file, a variable, a credential or `command line`."""
    line: int | None = None
    file: Path | None = None
    """Only where it is a TOML file."""

    def __str__(self) -> str:
        return f"{self.place}:{self.line}" if self.line else self.place


@dataclass(frozen=True, slots=True)
class Entry:
    """One value that somebody set, as it was read."""

    path: KeyPath
    value: Any
    origin: Origin


def explain(error: ValidationError, entries: Mapping[KeyPath, Entry]) -> list[str]:
    """One line for each problem that validation found, in the order of the settings."""
    details = error.errors(include_url=False)
    lines = [_line(detail, entries) for detail in details]
    for detail in details:
        if detail["type"] == "union_tag_invalid":
            # Pydantic looks no further into a section whose kind is unknown; its misspelt keys are found here.
            section = [entry for path, entry in entries.items() if path[:-1] == detail["loc"]]
            lines.extend(unknown(entry) for entry in section if not by_path(entry.path))
    return lines


def unknown(entry: Entry) -> str:
    """The line for a key that does not exist, with what was probably meant."""
    owners = {kind for setting in by_path(entry.path) for kind in setting.kinds}
    if owners:
        section = dotted(entry.path[:-1])
        remedy = f'belongs to {section}.kind = "{" or ".join(sorted(owners))}": set that kind or remove the key'
        return f"{entry.origin}: {dotted(entry.path)} {remedy}"
    return f"{entry.origin}: {dotted(entry.path)} is not a setting{_meant(entry.path)}"


def _meant(path: KeyPath) -> str:
    """The nearest key: in the same section if there is one so named, anywhere otherwise."""
    candidates = [*all_paths(), *section_paths()]
    beside = {dotted(known): known[-1] for known in candidates if known[:-1] == path[:-1]}
    near = difflib.get_close_matches(path[-1], list(beside.values()), n=1, cutoff=0.6)
    if near:
        return f": did you mean {dotted((*path[:-1], near[0]))}?"
    others = [dotted(known) for known in candidates if known != path[: len(known)]]
    everywhere = difflib.get_close_matches(dotted(path), others, n=1, cutoff=0.6)
    elsewhere = [dotted(known) for known in candidates if known[-1] == path[-1]]
    if found := everywhere or elsewhere:
        return f": did you mean {found[0]}?"
    return ": remove it (docs/settings.md lists all)"


def _line(detail: "ErrorDetails", entries: Mapping[KeyPath, Entry]) -> str:
    path = _path(detail["loc"])
    if detail["type"] == "union_tag_invalid":
        path = (*path, "kind")
    entry = entries.get(path) or Entry(path, detail["input"], _nearest_origin(path, entries))
    if detail["type"] == "extra_forbidden":
        return unknown(entry)
    where = str(entry.origin)
    if detail["type"] == "missing":
        return f"{where}: {dotted(path)} is missing: {_allowed(path, entries)}"
    if detail["type"] == "value_error":
        # Written by our own validators, in the form "what is wrong: what to do".
        return f"{where}: {dotted(path)}: {detail['ctx']['error']}" if path else f"{where}: {detail['ctx']['error']}"
    shown = f" = {_shown(entry)}" if _may_be_shown(entry) else ""
    return f"{where}: {dotted(path)}{shown} is not allowed: {_allowed(path, entries)}"


def _path(loc: tuple[int | str, ...]) -> KeyPath:
    """Pydantic's location without the tags of unions and the indices of lists."""
    path: KeyPath = ()
    for part in loc:
        if isinstance(part, str) and part not in kinds_of(path):
            path = (*path, part)
    return path


def _nearest_origin(path: KeyPath, entries: Mapping[KeyPath, Entry]) -> Origin:
    """For what was not set itself: where its section was, preferably its `kind`."""
    section = path[:-1]
    beside = [entry for known, entry in entries.items() if section and known[: len(section)] == section]
    beside.sort(key=lambda entry: entry.path[-1] != "kind")
    below = [entry for known, entry in entries.items() if path and known[: len(path)] == path]
    found = below or beside
    return found[0].origin if found else Origin("settings")


def _allowed(path: KeyPath, entries: Mapping[KeyPath, Entry]) -> str:
    if path[-1] == "kind" and (kinds := kinds_of(path[:-1])):
        return f"must be one of {', '.join(kinds)}"
    if path in section_paths():
        return f"must be a table, [{dotted(path)}]"
    setting = _selected(path, entries)
    return f"must be {setting.allowed}" if setting else "see docs/settings.md"


def _selected(path: KeyPath, entries: Mapping[KeyPath, Entry]) -> Setting | None:
    """The setting at `path`, for the kind that is chosen where kinds differ."""
    kind = entries.get((*path[:-1], "kind"))
    chosen = kind.value if kind else default_kinds().get(path[:-1])
    found = by_path(path)
    return next((setting for setting in found if chosen in setting.kinds), found[0] if found else None)


def _may_be_shown(entry: Entry) -> bool:
    settings = by_path(entry.path)
    if "@" in str(entry.value):  # a password may stand in front of it, as in mqtt://user:password@broker
        return False
    return bool(settings) and not any(setting.secret for setting in settings)


def _shown(entry: Entry) -> str:
    text = f'"{entry.value}"' if isinstance(entry.value, str) else str(entry.value)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
