"""The settings in force, as `edgescribe config` shows them: secrets masked, with the origin of each."""

from collections.abc import Iterator

from agent.config.layers import Loaded, models_dir, state_dir
from agent.config.schema import Group, Setting, default_kinds, dotted, groups
from agent.config.toml import value
from agent.errors import ModelError
from agent.models.selection import in_words, resolve

MASK = "**********"


def as_object(loaded: Loaded) -> dict[str, object]:
    """For programs: `settings` as a tree (pydantic masks the secrets), `origins` by dotted key, `file`.

    `chosen_engine` is what `engine.kind = "auto"` comes to on this device, in words; null for any other kind.
    `muted` says why the microphone stays closed; null if it does not.
    """
    return {
        "file": str(loaded.file) if loaded.file else None,
        "settings": loaded.settings.model_dump(mode="json"),
        "chosen_engine": _chosen_engine(loaded) or None,
        "muted": loaded.muted or None,
        "origins": {dotted(path): str(origin) for path, origin in sorted(loaded.origins.items())},
    }


def as_toml(loaded: Loaded) -> str:
    """For people: TOML, with the origin of what is not a default as a comment. What is not set is commented out."""
    lines = [f"# {loaded.file or 'no configuration file'}"]
    for group in _selected(loaded):
        if group.path:
            lines.extend(("", f"[{dotted(group.path)}]"))
        if group.path == ("source",) and loaded.muted:
            lines.append(f"# {loaded.muted}")
        lines.extend(_line(setting, loaded) for setting in group.settings)
    return "\n".join(lines)


def _selected(loaded: Loaded) -> Iterator[Group]:
    """The groups that count: of a section with kinds, the one that is chosen."""
    for group in groups():
        if group.path not in default_kinds() or group.kind == _value_at(loaded, (*group.path, "kind")):
            yield group


def _line(setting: Setting, loaded: Loaded) -> str:
    name, set_to = setting.path[-1], _value_at(loaded, setting.path)
    origin = loaded.origins.get(setting.path)
    comment = f"  # {origin}" if origin else ""
    if set_to is None:
        return f"# {name} is not set{_instead(setting.key, loaded)}"
    if setting.secret:
        return f"# {name} = {value(MASK)}{comment}"
    if setting.path == ("engine", "kind") and (chosen := _chosen_engine(loaded)):
        comment += f"\n# {chosen}"
    return f"{name} = {value(set_to)}{comment}"


def _chosen_engine(loaded: Loaded) -> str:
    """What `auto` comes to on this device; empty for any other kind."""
    if loaded.settings.engine.kind != "auto":
        return ""
    try:
        resolved = resolve(loaded.settings)
    except ModelError as error:
        return str(error)
    return in_words(resolved.engine) + (f" ({resolved.warning})" if resolved.warning else "")


def _instead(key: str, loaded: Loaded) -> str:
    """What is used where nothing is set."""
    match key:
        case "state_dir":
            return f": {state_dir(loaded.settings)}"
        case "models.dir":
            return f": {models_dir(loaded.settings)}"
        case "mqtt.port":
            return f": {loaded.settings.mqtt.effective_port}"
        case _:
            return ""


def _value_at(loaded: Loaded, path: tuple[str, ...]) -> object:
    found: object = loaded.settings
    for part in path:
        found = getattr(found, part)
    return found
