"""Decides what is written where. Pure: everything about the machine comes in as `Found`."""

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from agent.config.schema import KeyPath, all_paths, by_path, dotted, leaves
from agent.config.settings import FasterWhisperSettings, Settings
from agent.config.toml import value
from agent.errors import ConfigError, DeviceUnavailable, InstallError
from agent.install.facts import COMMAND, CONFIG, PASSWORD, UNIT_FILE, Found, hidden_by
from agent.install.unit import drop_in, unit

MODELS: Final = "/var/lib/edgescribe-models"
"""Models that everybody may read: the service, which has a user of its own, and whoever tries things by hand."""
DROP_INS: Final = UNIT_FILE.with_name(f"{UNIT_FILE.name}.d")
LITTLE_MEMORY_MB: Final = 600
"""Boards with 512 MB: a Zero 2 W, a 3A+."""
PUBLIC: Final = 0o644
SECRET: Final = 0o600
EXECUTABLE: Final = 0o755
_WRAPPER: Final = '#!/bin/sh\nexec {program} "$@"\n'
_HEADER: Final = """\
# Written by `edgescribe service install`. Every setting: docs/settings.md; after a change `edgescribe check`, then
# `systemctl reload edgescribe`.
"""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line said."""

    settings: Mapping[str, object] = field(default_factory=dict)
    """By dotted key, as `--set` has it."""
    password: str | None = None
    """For the broker; None if none was given."""
    force: bool = False
    """Take over a unit that somebody else wrote."""


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file as it shall be."""

    path: str
    text: str = field(repr=False)
    mode: int = PUBLIC


def proposal(found: Found, wishes: Wishes) -> dict[str, object]:
    """The settings to be written, by dotted key: what was said, and for the rest what was found.

    Empty where the configuration file stays as it is.

    Raises:
        InstallError: the file was changed by hand, and the command line says something else again.
        DeviceUnavailable: there is no microphone, or there are several.
        ConfigError: a secret was given where everybody can read it; there is no broker to be found.
    """
    for key in wishes.settings:
        if any(setting.secret for setting in by_path(tuple(key.split(".")))):
            raise ConfigError(f"{key} is a secret: give it with --password-file, which keeps it out of the settings")
    if found.config is None:
        return _first_settings(found, wishes)
    if not wishes.settings:
        return {}
    if not found.record.wrote(str(CONFIG), found.config):
        raise InstallError(f"{CONFIG} was written by hand: change {', '.join(wishes.settings)} there")
    return {**dict(leaves(tomllib.loads(found.config))), **wishes.settings}


def _first_settings(found: Found, wishes: Wishes) -> dict[str, object]:
    chosen: dict[str, object] = {}
    if wishes.settings.get("source.kind", "alsa") == "alsa" and "source.device" not in wishes.settings:
        chosen["source.device"] = _microphone(found)
    if "mqtt.host" not in wishes.settings and wishes.settings.get("mqtt.enabled") != "false":
        if found.broker is None:
            raise ConfigError(
                "no broker here or at homeassistant.local: name it with --mqtt-host, or apt install mosquitto"
            )
        chosen["mqtt.host"] = found.broker
    return {**chosen, "models.dir": MODELS, **wishes.settings}


def _microphone(found: Found) -> str:
    """The only one there is."""
    if not found.alsa:
        raise ConfigError("a microphone needs libasound, which is not installed: apt install alsa-utils")
    if not found.microphones:
        raise DeviceUnavailable(
            "no microphone on this machine: plug one in, or say which will be there: --device plughw:CARD=Device"
        )
    # A card may have several inputs; the first is the one that is meant, where there is only one card.
    cards = dict.fromkeys(device.pcm.partition(",")[0] for device in found.microphones)
    if len(cards) > 1:
        choice = "\n".join(f"    --device {device.pcm}    {device.description}" for device in found.microphones)
        raise DeviceUnavailable(f"there are several microphones: choose one\n{choice}")
    return found.microphones[0].pcm


def files(found: Found, wishes: Wishes, proposed: Mapping[str, object], settings: Settings) -> tuple[PlannedFile, ...]:
    """Every file that is ours, as it shall be.

    Args:
        found: What there is.
        wishes: What was said.
        proposed: What `proposal` gave.
        settings: The same, validated, together with what else is in force.

    Raises:
        InstallError: the service could not run the program, or the unit is somebody else's.
    """
    if found.program_problem:
        raise InstallError(found.program_problem)
    if found.unit is not None and not wishes.force and not found.record.wrote(str(UNIT_FILE), found.unit):
        raise InstallError(
            f"{UNIT_FILE} is there already, and is not as `edgescribe service install` wrote it: keep changes in "
            "`systemctl edit edgescribe`, and take it over with --force"
        )
    for path in _paths(settings):
        if folder := hidden_by(path):
            raise InstallError(f"{path} is in {folder}, which the service does not see: keep it in /etc/edgescribe")
    planned = [PlannedFile(str(UNIT_FILE), unit(found.program))]
    planned += [PlannedFile(str(DROP_INS / f"{name}.conf"), drop_in(name)) for name in drop_ins(found, settings)]
    if found.command is None or found.record.wrote(str(COMMAND), found.command):
        planned.append(PlannedFile(str(COMMAND), _WRAPPER.format(program=found.program), EXECUTABLE))
    if proposed:
        planned.append(PlannedFile(str(CONFIG), toml(proposed, settings)))
    if wishes.password is not None:
        planned.append(PlannedFile(str(PASSWORD), f"{wishes.password}\n", SECRET))
    return tuple(planned)


def _paths(settings: Settings) -> Iterator[Path]:
    """Files and folders that the settings name."""
    for path in all_paths():
        named = _effective(settings, path)
        if isinstance(named, Path):
            yield named
    model = getattr(settings.engine, "model", "")
    if os.sep in model:
        yield Path(model)


def drop_ins(found: Found, settings: Settings) -> tuple[str, ...]:
    """Names of the drop-ins that the board and the engine need."""
    needs = {
        "jetson": "jetson" in found.board.lower(),
        "low-memory": found.memory_mb < LITTLE_MEMORY_MB,
        "faster-whisper": isinstance(settings.engine, FasterWhisperSettings) and found.arch == "x86_64",
    }
    return tuple(name for name, needed in needs.items() if needed)


def toml(proposed: Mapping[str, object], settings: Settings) -> str:
    """The configuration file that says `proposed`, with the values as `settings` understood them."""
    tables: dict[KeyPath, list[str]] = {}
    for key in proposed:
        path = tuple(key.split("."))
        tables.setdefault(path[:-1], []).append(f"{path[-1]} = {value(_effective(settings, path))}")
    lines = [_HEADER.rstrip()]
    for table, entries in sorted(tables.items()):
        lines += ["", f"[{dotted(table)}]"] if table else [""]
        lines += entries
    return "\n".join(lines) + "\n"


def _effective(settings: Settings, path: KeyPath) -> object:
    found: Any = settings
    for part in path:
        found = getattr(found, part, None)  # what another kind of the section has, this one has not
    return found
