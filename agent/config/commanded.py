"""Changes of the settings while the agent runs: by commands, and by a reload (SIGHUP).

`applied.json` in the state folder keeps the changes by commands over restarts. A change counts as long as the
configuration has the value that the command replaced. After an edit, the configuration counts again.
"""

import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from agent.config.layers import Loaded, state_dir
from agent.config.problems import Origin
from agent.config.schema import leaves
from agent.config.settings import Settings
from agent.config.state_file import read_json, write_json
from agent.config.tunables import COMMANDED, takes_effect
from agent.config.types import Section

log = logging.getLogger(__name__)

FILE: Final = "applied.json"
LISTENING: Final = "listening"
KEYS: Final = frozenset(tunable.key for tunable in COMMANDED)
SERVICE_STATE: Final = Path("/var/lib/edgescribe")
"""State folder of the service. No setting and no variable names it to a command that root types."""


class Applied:
    """Reads and writes the file in `folder`. Any thread may call `remember`."""

    def __init__(self, folder: Path) -> None:
        self.path: Final = folder / FILE
        self._entries = self._read()
        self._configured: Settings | None = None
        self._lock = threading.Lock()
        self._stored = True
        """Whether the last attempt to write the file succeeded."""

    @property
    def listening(self) -> bool:
        """Whether the microphone is to be open: a muted device stays muted through a power cut."""
        entry = self._entries.get(LISTENING)
        return entry is None or entry["value"] is not False

    @property
    def muted(self) -> str:
        """Why the microphone is closed, and how to open it; empty if it is to be open."""
        how = "the microphone stays closed until cmd/listen ON"
        return "" if self.listening else f"muted by a command ({self.path}): {how}"

    def changes(self, settings: Settings) -> Mapping[str, object]:
        """Return the changes that count for `settings`, by dotted key."""
        return {
            key: entry["value"]
            # a copy: a command may mute the device during a reload
            for key, entry in tuple(self._entries.items())
            if key in KEYS and value_at(settings, key) is not None and value_at(settings, key) == entry["instead_of"]
        }

    def overlay(self, settings: Settings) -> Settings:
        """Return the configured `settings` with the changes. Leave out and log a change that is not valid any more."""
        self._configured = settings
        for key, value in self.changes(settings).items():
            try:
                settings = with_value(settings, key, value)
            except ValidationError:
                log.warning(f"{self.path}: ignoring {key} = {value!r}: not valid; using the configured value")
        return settings

    def configured(self, key: str) -> object:
        """Return the value at a dotted key in the settings that were overlaid last; None if there is none."""
        return self._configured and value_at(self._configured, key)

    def remember(self, key: str, value: object) -> bool:
        """Keep a change of the settings that were overlaid last. False if the disk failed: `keep` tries again."""
        configured = key == LISTENING or self.configured(key)
        with self._lock:
            self._entries.pop(key, None)
            if value != configured:
                self._entries[key] = {"value": value, "instead_of": configured}
            return self._write()

    def keep(self) -> None:
        """Write the file again if it was deleted or could not be written. Called now and then."""
        with self._lock:
            deleted = self._entries and not os.path.exists(self.path)  # noqa: PTH110 - never raises
            if deleted and self._stored:
                log.warning(f"{self.path}: was deleted; writing it again")
            if deleted or not self._stored:
                self._write()

    def forget(self, section: str) -> bool:
        """Drop the changes of a section; return whether there were any."""
        with self._lock:
            kept = {key: entry for key, entry in self._entries.items() if not key.startswith(f"{section}.")}
            found = kept != self._entries
            self._entries = kept
            if found:
                self._write()
            return found

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            document = read_json(self.path)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning(f"{self.path}: cannot be read ({type(error).__name__}); using the configuration")
            return {}
        entries = document.items() if isinstance(document, dict) else ()
        sound = {key: entry for key, entry in entries if _is_change(entry)}
        if sound != document:
            log.warning(f"{self.path}: ignoring changes that are damaged; using the configuration for them")
        return sound

    def _write(self) -> bool:
        before, self._stored = self._stored, True
        try:
            write_json(self.path, self._entries, indent=1)
        except OSError as error:
            self._stored = False
            if before:
                log.warning(f"{self.path}: cannot be written ({error.strerror}); trying again")
        return self._stored


def _is_change(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and entry.keys() == {"value", "instead_of"}
        and all(isinstance(part, str | float | int | None) for part in entry.values())
    )


def with_changes(loaded: Loaded) -> Loaded:
    """Return the settings in force once the agent runs, with the changes by commands and their origin."""
    applied = commanded(loaded.settings)
    origin = Origin(f"a command, {applied.path}")
    by_command = {tuple(key.split(".")): origin for key in applied.changes(loaded.settings)}
    settings = applied.overlay(loaded.settings)
    return replace(loaded, settings=settings, origins={**loaded.origins, **by_command}, muted=applied.muted)


def commanded(settings: Settings) -> Applied:
    """Return the changes by commands on this device, also for root: its state folder is not the service's."""
    named = settings.state_dir or "STATE_DIRECTORY" in os.environ
    of_service = not named and os.access(SERVICE_STATE / FILE, os.R_OK)
    return Applied(SERVICE_STATE if of_service else state_dir(settings))


def value_at(settings: Settings, key: str) -> object:
    """Return the value at a dotted key; None if this kind of section has none."""
    found: object = settings
    for part in key.split("."):
        found = getattr(found, part, None)
    return found


def with_value(settings: Settings, key: str, value: object) -> Settings:
    """Return `settings` with another value at a dotted key of two parts.

    Raises:
        ValidationError: the value is not allowed there.
    """
    name, _, field = key.partition(".")
    section: Section = getattr(settings, name)
    changed = type(section).model_validate({**dict(section), field: value})
    return settings.model_copy(update={name: changed})


@dataclass(frozen=True, slots=True)
class Reload:
    """The difference between two settings."""

    settings: Settings
    """In force from now on: the new values of `applied`, the old values of all others."""
    applied: tuple[str, ...]
    """Dotted keys."""
    needs_restart: tuple[str, ...]
    """Dotted keys."""

    @property
    def engine(self) -> bool:
        """Whether another engine has to be loaded."""
        return any(key.startswith("engine.") for key in self.applied)

    def __str__(self) -> str:
        changed = f"applied {', '.join(self.applied)}" if self.applied else "nothing to apply"
        return f"{changed}; needs a restart: {', '.join(self.needs_restart)}" if self.needs_restart else changed


def plan_reload(current: Settings, wanted: Settings) -> Reload:
    """Compare the settings in force with the wanted ones: which can be applied, and which need a restart."""
    old, new = dict(leaves(current.model_dump())), dict(leaves(wanted.model_dump()))
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    applied = tuple(key for key in changed if takes_effect(key) != "restart")
    settings = current
    for key in applied:
        if key.startswith("engine."):  # as a whole: its kind may differ
            settings = settings.model_copy(update={"engine": wanted.engine})
        else:
            settings = with_value(settings, key, new[key])
    return Reload(settings, applied, tuple(key for key in changed if key not in applied))
