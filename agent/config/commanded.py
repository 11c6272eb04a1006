"""What commands have changed, kept over restarts: `applied.json` in the state folder, laid over the settings.

A change holds as long as the configuration says what it said then. After an edit the configuration counts again: the
last word wins.
"""

import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from agent.config.layers import Loaded, state_dir
from agent.config.problems import Origin
from agent.config.settings import Settings
from agent.config.state_file import read_json, write_json
from agent.config.tunables import COMMANDED
from agent.config.types import Section

log = logging.getLogger(__name__)

FILE: Final = "applied.json"
LISTENING: Final = "listening"
KEYS: Final = frozenset(tunable.key for tunable in COMMANDED)
SERVICE_STATE: Final = Path("/var/lib/edgescribe")
"""State folder of the service, which no setting and no variable names to a command that root types."""


class Applied:
    """Reads and writes the file in `folder`. Any thread may ask for a change to be kept."""

    def __init__(self, folder: Path) -> None:
        self.path: Final = folder / FILE
        self._entries = self._read()
        self._configured: Settings | None = None
        self._keeping = threading.Lock()
        self._stored = True
        """Whether the last attempt to write the file went well."""

    @property
    def listening(self) -> bool:
        """Whether the microphone is to be open: a mute device stays mute through a power cut."""
        entry = self._entries.get(LISTENING)
        return entry is None or entry["value"] is not False

    @property
    def muted(self) -> str:
        """Why the microphone is closed, and how it opens; empty if it is to be open."""
        how = "the microphone stays closed until cmd/listen ON"
        return "" if self.listening else f"muted by a command ({self.path}): {how}"

    def changes(self, settings: Settings) -> Mapping[str, object]:
        """Changes that count for `settings`, by dotted key."""
        return {
            key: entry["value"]
            # a copy: while a reload asks, a command may mute the device
            for key, entry in tuple(self._entries.items())
            if key in KEYS and value_at(settings, key) is not None and value_at(settings, key) == entry["instead_of"]
        }

    def overlay(self, settings: Settings) -> Settings:
        """`settings`, as the configuration has them, with the changes.

        One that is not valid any more is left out, with a line in the log.
        """
        self._configured = settings
        for key, value in self.changes(settings).items():
            try:
                settings = with_value(settings, key, value)
            except ValidationError:
                log.warning(f"{self.path}: {key} cannot be {value!r} any more, and is as configured")
        return settings

    def configured(self, key: str) -> object:
        """The value at a dotted key in what was last overlaid; None before that, and where there is none."""
        return self._configured and value_at(self._configured, key)

    def remember(self, key: str, value: object) -> bool:
        """Keep a change of what was last overlaid; False if it could not be written, which `keep` tries again."""
        configured = key == LISTENING or self.configured(key)
        with self._keeping:
            self._entries.pop(key, None)
            if value != configured:
                self._entries[key] = {"value": value, "instead_of": configured}
            return self._write()

    def keep(self) -> None:
        """Write the file again if it was deleted, or could not be written; called now and then."""
        with self._keeping:
            deleted = self._entries and not os.path.exists(self.path)  # noqa: PTH110 - never raises
            if deleted and self._stored:
                log.warning(f"{self.path}: was deleted; writing it again")
            if deleted or not self._stored:
                self._write()

    def forget(self, section: str) -> bool:
        """Drop the changes of a section; whether there were any."""
        with self._keeping:
            kept = {key: entry for key, entry in self._entries.items() if not key.startswith(f"{section}.")}
            if kept == self._entries:
                return False
            self._entries = kept
            self._write()
            return True

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            document = read_json(self.path)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning(f"{self.path}: cannot be read ({type(error).__name__}); the configuration counts")
            return {}
        entries = document if isinstance(document, dict) else {}
        sound = {key: entry for key, entry in entries.items() if _is_change(entry)}
        if sound != document:
            log.warning(f"{self.path}: not every change is as it was written; for the others the configuration counts")
        return sound

    def _write(self) -> bool:
        before, self._stored = self._stored, True
        try:
            write_json(self.path, self._entries, indent=1)
        except OSError as error:
            self._stored = False
            if before:
                log.warning(f"{self.path}: cannot be written ({error.strerror}): changes wait until it can be")
        return self._stored


def _is_change(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and entry.keys() == {"value", "instead_of"}
        and all(isinstance(part, str | float | int | None) for part in entry.values())
    )


def with_changes(loaded: Loaded) -> Loaded:
    """What is in force once the agent runs: the changes, and that they come from a command."""
    applied = commanded(loaded.settings)
    origin = Origin(f"a command, {applied.path}")
    by_command = {tuple(key.split(".")): origin for key in applied.changes(loaded.settings)}
    settings = applied.overlay(loaded.settings)
    return replace(loaded, settings=settings, origins={**loaded.origins, **by_command}, muted=applied.muted)


def commanded(settings: Settings) -> Applied:
    """What commands have changed on this device, also for root, who has another state folder than the service."""
    named = settings.state_dir or "STATE_DIRECTORY" in os.environ
    of_service = not named and os.access(SERVICE_STATE / FILE, os.R_OK)
    return Applied(SERVICE_STATE if of_service else state_dir(settings))


def value_at(settings: Settings, key: str) -> object:
    """The value at a dotted key; None where this kind of section has none."""
    found: object = settings
    for part in key.split("."):
        found = getattr(found, part, None)
    return found


def with_value(settings: Settings, key: str, value: object) -> Settings:
    """`settings` with another value at a dotted key of two parts.

    Raises:
        ValidationError: the value is not allowed there.
    """
    name, _, field = key.partition(".")
    section: Section = getattr(settings, name)
    changed = type(section).model_validate({**dict(section), field: value})
    return settings.model_copy(update={name: changed})
