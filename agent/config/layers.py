"""Reads the settings from their sources, and tells where each value came from.

    command line  >  EDGESCRIBE_… environment  >  credentials  >  conf.d/*.toml  >  config.toml  >  defaults

The layers are merged key by key. Sections of several kinds (`engine`, `source`) have one more rule: **a layer that
changes the kind drops the keys of the old kind from lower layers**, except keys that both kinds have in the same form,
such as `engine.threads`. So `--set engine.kind=faster_whisper` over a file for whisper.cpp keeps its threads and
language. It takes the default model of faster-whisper, not a ggml file that faster-whisper cannot open.
"""

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agent.config.problems import Entry, Origin, explain, unknown
from agent.config.schema import (
    PREFIX,
    KeyPath,
    all_paths,
    by_path,
    default_kinds,
    dotted,
    kinds_of,
    section_paths,
    shared,
)
from agent.config.settings import Settings
from agent.config.toml import line_of, line_of_error
from agent.errors import ConfigError

DEFAULT_FILE = Path("/etc/edgescribe/config.toml")
TEXT = "utf-8-sig"
"""Encoding of text files that people write: some editors put a byte order mark at their start."""
NOT_SETTINGS = frozenset({"EDGESCRIBE_CONFIG", "EDGESCRIBE_TEST_MODELS"})
"""Variables with the prefix that are no settings: the configuration file, and the model folder of the tests."""
_COMMAND_LINE = Origin("command line")


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and what `edgescribe config` and `edgescribe check` print about them."""

    settings: Settings
    origins: Mapping[KeyPath, Origin]
    """Where each value that is not a default came from."""
    file: Path | None
    """The configuration file; None if there is none."""
    muted: str = ""
    """Why the microphone stays closed, if a command has closed it. Only `with_changes` fills it."""


def load_settings(config: Path | None = None, overrides: Mapping[str, object] | None = None) -> Settings:
    """Return the effective settings; see `load`."""
    return load(config, overrides).settings


def load(config: Path | None = None, overrides: Mapping[str, object] | None = None) -> Loaded:
    """Return the effective settings, with the origin of each value.

    Args:
        config: The configuration file. Default: `$EDGESCRIBE_CONFIG`, else `/etc/edgescribe/config.toml` if it exists.
        overrides: Values from the command line, by dotted key: `{"engine.threads": 2}`.

    Raises:
        ConfigError: one line for every problem: place, key, value and remedy.
    """
    problems: list[str] = []
    file = _config_file(config)
    merged = merge(
        [
            *(_read_toml(path, problems) for path in _toml_files(file, problems)),
            _read_credentials(problems, password_file(file)),
            _read_environment(problems),
            [Entry(tuple(key.split(".")), value, _COMMAND_LINE) for key, value in (overrides or {}).items()],
        ]
    )
    known = {path: entry for path, entry in merged.items() if by_path(path) or path in section_paths()}
    try:
        settings = Settings.model_validate(nested(known))
    except ValidationError as error:
        problems.extend(explain(error, known))
    problems.extend(unknown(entry) for path, entry in merged.items() if path not in known)
    if problems:
        raise ConfigError("\n".join(problems))
    return Loaded(settings, {path: entry.origin for path, entry in merged.items()}, file)


def parse_override(argument: str) -> tuple[str, object]:
    """Split the `KEY=VALUE` of `--set`; the value of a list is JSON.

    Raises:
        ConfigError: there is no `=`, or a list is not JSON.
    """
    key, equals, text = argument.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {key}: write it as KEY=VALUE, such as --set engine.threads=2")
    return key.strip(), _from_text(tuple(key.strip().split(".")), text, _COMMAND_LINE)


def state_dir(settings: Settings) -> Path:
    """Return the state folder: the setting, else `$STATE_DIRECTORY` (systemd), else one in the user's data folder.

    Raises:
        ConfigError: the setting names the home folder of an unknown user.
    """
    if settings.state_dir:
        return _expanded("state_dir", settings.state_dir)
    if by_systemd := os.environ.get("STATE_DIRECTORY"):
        return Path(by_systemd.split(":")[0])
    data_home = os.environ.get("XDG_DATA_HOME")
    return (Path(data_home) if data_home else Path.home() / ".local" / "share") / "edgescribe"


def models_dir(settings: Settings) -> Path:
    """Return the folder of the model store: the setting, else `models` in the state folder.

    Raises:
        ConfigError: as `state_dir`.
    """
    return _expanded("models.dir", settings.models.dir) if settings.models.dir else state_dir(settings) / "models"


def _expanded(key: str, folder: Path) -> Path:
    try:
        return folder.expanduser().absolute()
    except RuntimeError as error:  # pathlib raises it
        raise ConfigError(f"{key}: {folder}: there is no such user here: write the path without ~") from error


def merge(layers: list[list[Entry]]) -> dict[KeyPath, Entry]:
    """Return the effective entries; later layers win. A changed kind drops the old kind's own keys."""
    effective: dict[KeyPath, Entry] = {}
    kinds = dict(default_kinds())
    for layer in layers:
        incoming = {entry.path: entry for entry in layer}
        for section, old in kinds.items():
            chosen = incoming.get((*section, "kind"))
            if chosen and chosen.value != old and chosen.value in kinds_of(section):
                kinds[section] = kind = chosen.value
                dropped = {path for path in effective if path[:-1] == section and not shared(path, old, kind)}
                effective = {path: entry for path, entry in effective.items() if path not in dropped}
        effective.update(incoming)
    return effective


def nested(entries: Mapping[KeyPath, Entry]) -> dict[str, Any]:
    """Return the tree to validate. A section that names no kind gets its default kind."""
    tree: dict[str, Any] = {}
    for path, entry in sorted(entries.items()):
        table: Any = tree
        for part in path[:-1]:
            # `mqtt = 3` beside `mqtt.host`: validation reports the former.
            table = table.setdefault(part, {}) if isinstance(table, dict) else None
        if isinstance(table, dict):
            table[path[-1]] = entry.value
    for path, kind in default_kinds().items():
        section = tree.setdefault(path[0], {})
        if isinstance(section, dict):
            section.setdefault("kind", kind)
    return tree


def _config_file(named: Path | None) -> Path | None:
    """Return the file to read; None if none is named and the default is absent."""
    variable = os.environ.get("EDGESCRIBE_CONFIG")
    chosen = named or (Path(variable) if variable else None)
    if chosen is None:
        return DEFAULT_FILE if may_be_there(DEFAULT_FILE) else None
    if not may_be_there(chosen):
        by = "--config" if named else "EDGESCRIBE_CONFIG"
        raise ConfigError(f"{chosen}: no such configuration file (named by {by}): correct the path or create the file")
    return chosen


def password_file(config: Path | None) -> Path:
    """Return the file beside the configuration file from which the unit reads the broker's password."""
    return (config or DEFAULT_FILE).with_name("mqtt-password")


def may_be_there(path: Path) -> bool:
    """Whether the file exists. True also if this user may not look: reading it then reports why."""
    try:
        return path.exists()
    except PermissionError:
        return True


def _toml_files(file: Path | None, problems: list[str]) -> list[Path]:
    """Return the configuration file and its `conf.d`, lowest first. Without a file, the default `conf.d` counts."""
    folder = (file or DEFAULT_FILE).parent / "conf.d"
    named = [file] if file else []
    try:
        folder.stat()
    except OSError:  # it is absent; or its parent is closed, and reading the file reports that
        return named
    try:
        # Not `glob`: it finds nothing in a folder that it may not list, and raises no error.
        return named + sorted(path for path in folder.iterdir() if path.name.endswith(".toml"))
    except NotADirectoryError:
        problems.append(f"{folder}: not a folder: make it one for *.toml files, or remove it")
    except OSError as error:
        problems.append(f"{folder}: cannot be read ({error.strerror}): check its owner and mode")
    return named


def _read_toml(path: Path, problems: list[str]) -> list[Entry]:
    try:
        text = path.read_text(encoding=TEXT)
        tree = tomllib.loads(text)
    except OSError as error:
        problems.append(f"{path}: cannot be read ({error.strerror}): check its owner and mode")
    except UnicodeDecodeError:
        problems.append(f"{path}: not UTF-8 text: save it as UTF-8")
    except tomllib.TOMLDecodeError as error:
        problems.append(f"{path}:{line_of_error(error, text)}: not valid TOML: {str(error).partition(' (at ')[0]}")
    except (RecursionError, ValueError) as error:  # a thousand levels, or a number of thousands of digits
        problems.append(f"{path}: not valid TOML: {str(error).partition(';')[0]}")
    else:
        return [Entry(key, value, Origin(str(path), line_of(text, key), path)) for key, value in _leaves(tree)]
    return []


def _read_environment(problems: list[str]) -> list[Entry]:
    ours = (name for name in os.environ if name.upper().startswith(PREFIX))
    names = {name.upper(): name for name in ours if name.upper() not in NOT_SETTINGS}
    if not names:
        return []
    from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsError  # noqa: PLC0415 - 0.3 s, and rare

    class Fields(Settings, BaseSettings):  # type: ignore[misc]  # two kinds of model_config; BaseSettings' is a superset
        """The settings in the form that pydantic-settings reads; never instantiated."""

    try:
        tree = EnvSettingsSource(Fields, env_prefix=PREFIX, env_nested_delimiter="__")()
    except SettingsError as error:
        # Its message `error parsing value for field "log" from source …` names no variable.
        variable = PREFIX + str(error).split('"')[1].upper()
        problems.append(
            f'{variable}…: not valid JSON: a list is written as ["one", "two"], a table as {variable}__KEY=…'
        )
        return []
    # pydantic-settings ignores names that are unknown at the top level.
    paths = {name: tuple(upper.removeprefix(PREFIX).lower().split("__")) for upper, name in names.items()}
    entries = [Entry(path, None, Origin(name)) for name, path in paths.items() if path[0] not in Settings.model_fields]
    for path, value in _leaves(tree):
        # A section may be given as JSON, by a shorter variable: `EDGESCRIBE_LOG={"level": "debug"}`.
        spelt = [PREFIX + "__".join(path[:depth]).upper() for depth in range(len(path), 0, -1)]
        variable = next((names[name] for name in spelt if name in names), spelt[0])
        entries.append(Entry(path, value, Origin(variable)))
    return entries


def _read_credentials(problems: list[str], beside: Path) -> list[Entry]:
    """Read the credentials `mqtt__password` and `mqtt-password`. Open no file of another name.

    Outside the service, root's commands (`sudo edgescribe watch`) read the password from `beside`, the file next to the
    configuration file, as the unit does. A user who may not read that file has no password.
    """
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder or not Path(folder).is_dir():
        readable = os.access(beside, os.R_OK) and beside.is_file()
        return _read_secret(beside, ("mqtt", "password"), Origin(str(beside)), problems) if readable else []
    names = {"__".join(path): path for path in all_paths() if len(path) > 1}
    names |= {"-".join(path).replace("_", "-"): path for path in names.values()}
    entries = []
    for file in sorted(Path(folder).iterdir()):
        origin, path = Origin(f"credential {file.name}"), tuple(file.name.split("__"))
        if file.name in names:
            entries += _read_secret(file, names[file.name], origin, problems)
        elif len(path) > 1 and path[:1] in section_paths():
            problems.append(unknown(Entry(path, None, origin)))
    return entries


def _read_secret(file: Path, path: KeyPath, origin: Origin, problems: list[str]) -> list[Entry]:
    try:
        # The unit's default is empty if the operator gave no password.
        if text := file.read_text(encoding=TEXT).strip():
            return [Entry(path, _from_text(path, text, origin), origin)]
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{origin}: cannot be read as text ({type(error).__name__}): save it as UTF-8")
    except ConfigError as error:
        problems.append(str(error))
    return []


def _from_text(path: KeyPath, text: str, origin: Origin) -> object:
    """Return the value of `text`. Only lists and tables need decoding: validation understands numbers."""
    is_list = any(setting.type.startswith("list") for setting in by_path(path))
    if not is_list and path not in section_paths():
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        kind, example = ("list", '["one", "two"]') if is_list else ("table", '{"key": "value"}')
        raise ConfigError(f"{origin}: {dotted(path)} is a {kind}: write it as JSON, such as {example}") from error


def _leaves(tree: Mapping[str, Any], above: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yield keys and values. An unknown table counts as one value, to be reported once."""
    for key, value in tree.items():
        path = (*above, key)
        if isinstance(value, dict) and path in section_paths():
            yield from _leaves(value, path)
        else:
            yield path, value
