"""Plans the files of an installation. Pure: everything about the machine comes in as `Found`."""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Final

from agent.config.commanded import value_at
from agent.config.schema import all_paths, by_path, dotted, leaves
from agent.config.settings import FasterWhisperSettings, Settings
from agent.config.toml import value
from agent.errors import ConfigError, DeviceUnavailable, InstallError
from agent.install.facts import COMMAND, CONFIG, PASSWORD, UNIT_FILE, Found, hidden_by

MODELS: Final = "/var/lib/edgescribe-models"
"""Models that all users may read: the service, which has a user of its own, and people at the command line."""
DROP_INS: Final = UNIT_FILE.with_name(f"{UNIT_FILE.name}.d")
LITTLE_MEMORY_MB: Final = 600
"""Boards with 512 MB: a Zero 2 W, a 3A+."""
PUBLIC: Final = 0o644
SECRET: Final = 0o600
EXECUTABLE: Final = 0o755
_PLAIN_PATH: Final = re.compile(r"[\w./+-]+", re.ASCII)
_EXEC_START: Final = re.compile(r"^ExecStart=\S+", re.MULTILINE)
_WRAPPER: Final = '#!/bin/sh\nexec {program} "$@"\n'
_HEADER: Final = """\
# Written by `edgescribe service install`. Every setting: docs/settings.md; after a change `edgescribe check`, then
# `systemctl reload edgescribe`.
"""


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file of the installation."""

    path: str
    text: str = field(repr=False)
    mode: int = PUBLIC


def proposal(found: Found, said: Mapping[str, object], broker: str | None) -> dict[str, object]:
    """Return the settings to write, by dotted key: those of the command line, and defaults for this machine.

    Empty if the configuration file stays as it is.

    Args:
        found: The machine.
        said: Settings of the command line, in the form of `--set`.
        broker: Host that listens on MQTT's port; None if there is none, or it was not looked for.

    Raises:
        InstallError: a user has changed the file, and the command line names settings.
        DeviceUnavailable: there is no microphone, or there are several.
        ConfigError: a secret stands on the command line, or no broker was found.
    """
    for key in said:
        if any(setting.secret for setting in by_path(tuple(key.split(".")))):
            raise ConfigError(f"{key} is a secret: give it with --password-file, which keeps it out of the settings")
    if found.config is not None:
        if said and not found.record.wrote(str(CONFIG), found.config):
            raise InstallError(f"{CONFIG} was written by hand: change {', '.join(said)} there")
        return {**dict(leaves(tomllib.loads(found.config))), **said} if said else {}
    chosen: dict[str, object] = {}
    if said.get("source.kind", "alsa") == "alsa" and "source.device" not in said:
        chosen["source.device"] = _microphone(found)
    if "mqtt.host" not in said and said.get("mqtt.enabled") != "false":
        if broker is None:
            raise ConfigError(
                "no broker here or at homeassistant.local: name it with --mqtt-host, or apt install mosquitto"
            )
        chosen["mqtt.host"] = broker
    return {**chosen, "models.dir": MODELS, **said}


def _microphone(found: Found) -> str:
    """Return the only microphone."""
    if not found.alsa:
        raise ConfigError("a microphone needs libasound, which is not installed: apt install alsa-utils")
    if not found.microphones:
        raise DeviceUnavailable(
            "no microphone on this machine: plug one in, or name a later one with --device plughw:CARD=Device"
        )
    # A card may have several inputs; of an only card, the first is meant.
    cards = dict.fromkeys(device.pcm.partition(",")[0] for device in found.microphones)
    if len(cards) > 1:
        choice = "\n".join(f"    --device {device.pcm}    {device.description}" for device in found.microphones)
        raise DeviceUnavailable(f"there are several microphones: choose one\n{choice}")
    return found.microphones[0].pcm


def files(
    found: Found,
    proposed: Mapping[str, object],
    settings: Settings,
    *,
    password: str | None = None,
    force: bool = False,
) -> tuple[PlannedFile, ...]:
    """Return every file of the installation.

    Args:
        found: The machine.
        proposed: The result of `proposal`.
        settings: The same, validated, together with all other settings.
        password: For the broker; None if none was given.
        force: Take over a unit that this command did not write.

    Raises:
        InstallError: the service could not run the program, or see a file that the settings name; or this command
            did not write the unit.
    """
    if found.program_problem:
        raise InstallError(found.program_problem)
    if found.unit is not None and not force and not found.record.wrote(str(UNIT_FILE), found.unit):
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
    if password is not None:
        planned.append(PlannedFile(str(PASSWORD), f"{password}\n", SECRET))
    return tuple(planned)


def _paths(settings: Settings) -> list[Path]:
    """Return the files and folders that the settings name."""
    named = [value_at(settings, dotted(path)) for path in all_paths()]
    model = getattr(settings.engine, "model", "")
    return [each for each in named if isinstance(each, Path)] + ([Path(model)] if os.sep in model else [])


def drop_ins(found: Found, settings: Settings) -> tuple[str, ...]:
    """Return the names of the drop-ins that the board and the engine need."""
    needs = {
        "jetson": "jetson" in found.board.lower(),
        "low-memory": found.memory_mb < LITTLE_MEMORY_MB,
        "faster-whisper": isinstance(settings.engine, FasterWhisperSettings) and found.arch == "x86_64",
    }
    return tuple(name for name, needed in needs.items() if needed)


def unit(program: Path) -> str:
    """Return the unit that runs `program`.

    Raises:
        InstallError: the path has a character with another meaning to systemd.
    """
    if not _PLAIN_PATH.fullmatch(str(program)):
        raise InstallError(
            f"{program}: systemd would misread this path: install edgescribe in a folder like /opt/edgescribe"
        )
    return _EXEC_START.sub(f"ExecStart={program}", _shipped("edgescribe.service"), count=1)


def drop_in(name: str) -> str:
    """Return the drop-in `name`, such as `jetson`."""
    return _shipped("drop-ins", f"{name}.conf")


def _shipped(*path: str) -> str:
    """Return a file of `systemd/`: a wheel has that folder beside this file, a checkout at its top."""
    in_wheel = resources.files("agent.install").joinpath("units")
    folder = in_wheel if in_wheel.is_dir() else Path(__file__).parents[2] / "systemd"
    return folder.joinpath(*path).read_text(encoding="utf-8")


def toml(proposed: Mapping[str, object], settings: Settings) -> str:
    """Return the configuration file for `proposed`, with the values that `settings` made of them."""
    tables: dict[str, list[str]] = {}
    for key in proposed:
        table, _, name = key.rpartition(".")
        tables.setdefault(table, []).append(f"{name} = {value(value_at(settings, key))}")
    lines = [_HEADER.rstrip()]
    for table, entries in sorted(tables.items()):
        lines += ["", *([f"[{table}]"] if table else []), *entries]
    return "\n".join(lines) + "\n"
