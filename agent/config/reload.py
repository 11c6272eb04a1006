"""What a reload of the settings (SIGHUP) can change while the agent runs, and what needs a restart. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from agent.config.settings import Settings
from agent.config.tunables import RELOADED


@dataclass(frozen=True, slots=True)
class Reload:
    """The difference between two settings."""

    settings: Settings
    """What is in force from now on: the new values of `applied`, the old ones of all others."""
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
    """Compare the settings that are in force with those that are wanted."""
    old, new = dict(_leaves(current.model_dump())), dict(_leaves(wanted.model_dump()))
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    applied = tuple(key for key in changed if key.startswith(RELOADED))
    update = {
        section: getattr(wanted, section)
        if section == "engine"
        else getattr(current, section).model_copy(
            update={name: getattr(getattr(wanted, section), name) for name in _names(applied, section)}
        )
        for section in {key.partition(".")[0] for key in applied}
    }
    return Reload(
        settings=current.model_copy(update=update),
        applied=applied,
        needs_restart=tuple(key for key in changed if key not in applied),
    )


def _names(keys: tuple[str, ...], section: str) -> Iterator[str]:
    return (key.removeprefix(f"{section}.") for key in keys if key.startswith(f"{section}."))


def _leaves(tree: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
