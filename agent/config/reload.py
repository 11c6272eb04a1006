"""What a reload of the settings (SIGHUP) can change while the agent runs, and what needs a restart. Pure."""

from dataclasses import dataclass
from typing import Final

from agent.config.commanded import value_at, with_value
from agent.config.schema import leaves
from agent.config.settings import Settings

APPLICABLE: Final = ("log.level", "vad.threshold", "publish.min_confidence", "telemetry.interval_s", "engine.")
"""Keys, and sections with a dot at their end, that are applied while sound goes on being captured: another engine is
loaded beside the old one, and takes over between two utterances."""


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
    old, new = dict(leaves(current.model_dump())), dict(leaves(wanted.model_dump()))
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    applied = tuple(key for key in changed if key.startswith(APPLICABLE))
    settings = current
    for key in applied:
        if key.startswith("engine."):  # as a whole: another kind has other keys
            settings = settings.model_copy(update={"engine": wanted.engine})
        else:
            settings = with_value(settings, key, value_at(wanted, key))
    return Reload(settings, applied, tuple(key for key in changed if key not in applied))
