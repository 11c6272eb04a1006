"""Describes all settings, for error messages, documents and `edgescribe config`. It walks `Settings` once.

It does not use pydantic's JSON schema, which takes eight times as long at every start.
"""

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from agent.config.settings import Settings
from agent.config.types import Section, in_words

PREFIX = "EDGESCRIBE_"
CHOICE = "one of"
TEXT = "text"
TYPE_NAMES: Mapping[Any, str] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: TEXT,
    Path: "path",
    SecretStr: "secret text",
}
KeyPath = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """One leaf of the settings."""

    path: KeyPath
    """Such as `("engine", "threads")`."""
    kind: str
    """The kind of its section (`engine.beam_size`: `faster_whisper`); empty for a section without kinds."""
    type: str
    """In words: `whole number`, `text`, `path` …"""
    bounds: str
    """In words: `0 to 64`, the allowed words, or the form of a text; empty if all values are allowed."""
    default: object
    """None also for a `required` setting."""
    required: bool
    description: str

    @property
    def key(self) -> str:
        """As in `--set`: `engine.threads`."""
        return dotted(self.path)

    @property
    def variable(self) -> str:
        """Name in the environment."""
        return PREFIX + "__".join(self.path).upper()

    @property
    def secret(self) -> bool:
        """Whether no output may show it."""
        return self.type == TYPE_NAMES[SecretStr]

    @property
    def allowed(self) -> str:
        """Type and bounds in words, for error messages: `a whole number, 0 to 64`."""
        if self.type == TEXT and self.bounds:
            return self.bounds
        article = "a " if self.type.split()[0] in {"whole", "number", "path", "list"} else ""
        between = " " if self.type == CHOICE else ", "
        return article + self.type + (between + self.bounds.replace("`", "") if self.bounds else "")


@dataclass(frozen=True, slots=True)
class Group:
    """One table of the TOML file, or one kind of it."""

    path: KeyPath
    kind: str
    """The `kind` that selects it; empty for a plain section."""
    description: str
    settings: tuple[Setting, ...]


def dotted(path: KeyPath) -> str:
    """Return `engine.threads` for `("engine", "threads")`."""
    return ".".join(path)


def leaves(tree: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    """Yield the values of nested tables, each with its dotted key."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


@cache
def groups() -> tuple[Group, ...]:
    """Return every group in the order of `agent.config.settings`, the top level first."""
    return tuple(walk(Settings))


@cache
def _index() -> Mapping[KeyPath, tuple[Setting, ...]]:
    found: dict[KeyPath, tuple[Setting, ...]] = {}
    for group in groups():
        for setting in group.settings:
            found[setting.path] = (*found.get(setting.path, ()), setting)
    return found


def by_path(path: KeyPath) -> tuple[Setting, ...]:
    """Return the settings at `path`: none if unknown, several if kinds differ in it."""
    return _index().get(path, ())


def all_paths() -> tuple[KeyPath, ...]:
    """Return the path of every setting."""
    return tuple(_index())


@cache
def section_paths() -> frozenset[KeyPath]:
    """Return the path of every table."""
    return frozenset(group.path for group in groups() if group.path)


def kinds_of(path: KeyPath) -> tuple[str, ...]:
    """Return the kinds of a section; empty for a plain section."""
    return tuple(group.kind for group in groups() if group.path == path and group.kind)


@cache
def default_kinds() -> Mapping[KeyPath, str]:
    """Return the kind of each section with kinds if no layer names one."""
    return {path: Settings.model_fields[path[0]].default.kind for path in section_paths() if kinds_of(path)}


def shared(path: KeyPath, kind: str, other: str) -> bool:
    """Whether both kinds have the setting at `path` in the same form: a value then keeps its meaning."""
    forms = [replace(setting, kind="") for setting in by_path(path) if setting.kind in {kind, other}]
    return len(forms) > 1 and forms[0] == forms[1]


def walk(model: type[BaseModel], path: KeyPath = (), kind: str = "") -> Iterator[Group]:
    """Yield the groups of `model`: itself first, then those below it."""
    leaves: list[Setting] = []
    below: list[Group] = []
    for name, field in model.model_fields.items():
        sections = [each for each in _members(field.annotation) if isinstance(each, type) and issubclass(each, Section)]
        for section in sections:
            tag = section.model_fields["kind"].default if len(sections) > 1 else ""
            below.extend(walk(section, (*path, name), tag))
        if not sections:
            words, default = _in_words(field), None if field.is_required() else field.default
            leaves.append(Setting((*path, name), kind, *words, default, field.is_required(), field.description or ""))
    yield Group(path, kind, (model.__doc__ or "").strip(), tuple(leaves))
    yield from below


def _members(annotation: Any) -> tuple[Any, ...]:
    """Return the alternatives of a union; else the annotation itself."""
    return get_args(annotation) if get_origin(annotation) in {Union, types.UnionType} else (annotation,)


def _in_words(field: FieldInfo) -> tuple[str, str]:
    """Return type and bounds of a field. Its bounds may be in the annotation of an optional type, too."""
    annotation: Any = next(member for member in _members(field.annotation) if member is not type(None))
    metadata = list(field.metadata)
    if get_origin(annotation) is Annotated:
        annotation, *extra = get_args(annotation)
        for item in extra:
            metadata += item.metadata if isinstance(item, FieldInfo) else (item,)
    if get_origin(annotation) is Literal:
        return CHOICE, ", ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) is tuple:
        return f"list of {TYPE_NAMES[get_args(annotation)[0]]}", ""
    return TYPE_NAMES[annotation], _bounds(metadata)


def _bounds(metadata: list[Any]) -> str:
    if words := in_words(metadata):
        return words
    limits = {
        name: getattr(item, name) for item in metadata for name in ("ge", "gt", "le", "lt") if hasattr(item, name)
    }
    if limits.keys() == {"ge", "le"}:
        return f"{limits['ge']:g} to {limits['le']:g}"
    relations = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    return ", ".join(f"{relations[name]} {limit:g}" for name, limit in limits.items())
