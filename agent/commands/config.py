"""Prints the effective settings as TOML, each with its origin. Secrets are masked.

Examples:
    edgescribe config
    edgescribe config --json
"""

import argparse
import json
from collections.abc import Iterator
from typing import Final

from agent.commands.options import add_settings_options, load_from
from agent.config.commanded import value_at, with_changes
from agent.config.layers import Loaded, models_dir, state_dir
from agent.config.schema import Setting, dotted, groups
from agent.config.settings import Settings
from agent.config.toml import value
from agent.errors import ModelError
from agent.models.selection import in_words, resolve

MASK: Final = "**********"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("--json", action="store_true", help="one JSON object: settings and origins")
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print the effective settings."""
    loaded = with_changes(load_from(args))
    print(json.dumps(as_object(loaded), indent=2, ensure_ascii=False) if args.json else "\n".join(_toml(loaded)))
    return 0


def as_object(loaded: Loaded) -> dict[str, object]:
    """Return for programs: `settings` as a tree (pydantic masks the secrets), `origins` by dotted key, `file`.

    `chosen_engine` is the engine that `engine.kind = "auto"` chooses on this device, in words; null for other kinds.
    `muted` says why the microphone stays closed; null if it does not.
    """
    return {
        "file": str(loaded.file) if loaded.file else None,
        "settings": loaded.settings.model_dump(mode="json"),
        "chosen_engine": _chosen_engine(loaded.settings) or None,
        "muted": loaded.muted or None,
        "origins": {dotted(path): str(origin) for path, origin in sorted(loaded.origins.items())},
    }


def _toml(loaded: Loaded) -> Iterator[str]:
    """Return lines of TOML. A comment has the origin of each value that is no default; unset keys are comments."""
    yield f"# {loaded.file or 'no configuration file'}"
    for group in groups():
        name = dotted(group.path)
        if group.kind and group.kind != value_at(loaded.settings, f"{name}.kind"):
            continue
        yield from ("", f"[{name}]") if name else ()
        if name == "source" and loaded.muted:
            yield f"# {loaded.muted}"
        yield from (_line(setting, loaded) for setting in group.settings)


def _line(setting: Setting, loaded: Loaded) -> str:
    name, set_to = setting.path[-1], value_at(loaded.settings, setting.key)
    origin = loaded.origins.get(setting.path)
    comment = f"  # {origin}" if origin else ""
    if set_to is None:
        return f"# {name} is not set{_instead(setting.key, loaded.settings)}"
    if setting.secret:
        return f"# {name} = {value(MASK)}{comment}"
    if setting.key == "engine.kind" and (chosen := _chosen_engine(loaded.settings)):
        comment += f"\n# {chosen}"
    return f"{name} = {value(set_to)}{comment}"


def _instead(key: str, settings: Settings) -> str:
    """Return the value that stands in for an unset one."""
    used = {
        "state_dir": state_dir(settings),
        "models.dir": models_dir(settings),
        "mqtt.port": settings.mqtt.effective_port,
    }
    return f": {used[key]}" if key in used else ""


def _chosen_engine(settings: Settings) -> str:
    """Return the engine that `auto` chooses on this device; empty for other kinds."""
    if settings.engine.kind != "auto":
        return ""
    try:
        resolved = resolve(settings)
    except ModelError as error:
        return str(error)
    return in_words(resolved.engine) + (f" ({resolved.warning})" if resolved.warning else "")
