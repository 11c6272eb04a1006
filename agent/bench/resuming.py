"""Whether a run goes on with what it began with. Pure but for the settings' own validation."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from agent.bench.records import IdleMeasurement, LatencyBlock, Measurement, Record, SystemSetup
from agent.bench.systems import System, engine_settings
from agent.config.settings import EngineSettings
from agent.errors import ConfigError

_NOT_COMPARED = frozenset({"kind", "model", "language"})
"""The first is in the system's name, the second has a digest, the third is the clip's unless an option says it."""
_SHOWN_DIGITS = 12


def setup_of(system: System, model_sha256: str) -> SystemSetup:
    """What `system` is measured with: its options, and of our engines every other setting, too."""
    defaults: dict[str, object] = {}
    if system.adapter.ours:
        try:
            chosen = engine_settings(system.adapter, system.model, system.options, "en")
            defaults = TypeAdapter(EngineSettings).validate_python(chosen).model_dump(mode="json")
        except ValidationError:
            pass  # its process says what is wrong, and the others are measured all the same
    settings = {key: str(value) for key, value in defaults.items() if key not in _NOT_COMPARED}
    return SystemSetup(system.name, settings | dict(system.options), model_sha256)


def refuse_others(folder: Path, earlier: Iterable[Record], setups: Iterable[SystemSetup]) -> None:
    """Compare with what an earlier run in `folder` wrote down; a setting that only one of them knows is no difference.

    Raises:
        ConfigError: a system of the same name was measured with something else.
    """
    before = _by_system(earlier)
    for setup in setups:
        if setup.system in before and (changes := list(_changes(before[setup.system], setup))):
            raise ConfigError(
                f"--resume: {folder} has measured {setup.system} with {', '.join(changes)}: "
                "go on with what it was begun with, or name another --out"
            )


def unknown(earlier: Sequence[Record], setups: Iterable[SystemSetup]) -> list[str]:
    """Systems with results of which nobody wrote down how they were set up, as earlier versions did not."""
    measured = {one.system for one in earlier if isinstance(one, Measurement | LatencyBlock | IdleMeasurement)}
    return [setup.system for setup in setups if setup.system in measured - set(_by_system(earlier))]


def news(earlier: Iterable[Record], setups: Iterable[SystemSetup]) -> list[SystemSetup]:
    """Those that are not written down yet."""
    before = _by_system(earlier)
    return [setup for setup in setups if setup.system not in before]


def _by_system(records: Iterable[Record]) -> dict[str, SystemSetup]:
    return {record.system: record for record in records if isinstance(record, SystemSetup)}


def _changes(before: SystemSetup, now: SystemSetup) -> Iterator[str]:
    for key in sorted(before.settings.keys() & now.settings.keys()):
        if before.settings[key] != now.settings[key]:
            yield f"{key} {before.settings[key]}, not {now.settings[key]}"
    if before.model_sha256 != now.model_sha256:
        digests = [setup.model_sha256[:_SHOWN_DIGITS] for setup in (before, now)]
        yield f"a model of digest {digests[0]}…, not {digests[1]}…"
