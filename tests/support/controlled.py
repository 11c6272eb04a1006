"""A device that commands control, without its stages."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.config.commanded import Applied
from agent.config.settings import Settings
from agent.governor.runner import Governed
from agent.mqtt.commands import ARGUMENTS, Outcome
from agent.mqtt.publisher import Publisher
from agent.mqtt.remote import Remote
from agent.telemetry.counters import Counters


class Switch:
    """A microphone that can be opened and closed."""

    listening = True

    def on(self) -> None:
        """Open it."""
        self.listening = True

    def off(self) -> None:
        """Close it."""
        self.listening = False


def controlled(
    settings: Settings,
    applied: Applied,
    *,
    source: Any = None,
    transcriber: Any = None,
    purge: Callable[[], int] = lambda: 0,
    load_engine: Callable[[Settings], Any] = lambda _settings: None,
    publisher: Publisher | None = None,
) -> Remote:
    """Return the device `pi-1`, whose calibrations take no time. `purge` is that of its spool."""
    stages = SimpleNamespace(
        source=source or Switch(),
        transcriber=transcriber or SimpleNamespace(forget=lambda: 0),
        segmenter=SimpleNamespace(threshold=0.5),
    )
    remote = Remote(
        "pi-1",
        settings,
        applied,
        pipeline=cast("Any", stages),
        publisher=publisher or Publisher(Counters(), "boot-1"),
        spool=cast("Any", SimpleNamespace(purge=purge)),
        load_engine=load_engine,
        governed=Governed(),
        restart=lambda: None,
        options=(),
        on_failure=lambda worker: pytest.fail(worker.name),
    )
    remote._calibrator = cast("Any", SimpleNamespace(measure=lambda _options: Outcome("measured"), close=lambda: None))
    return remote


def execute(device: Remote, name: str, **arguments: object) -> Outcome:
    """Execute a command by its name."""
    return device.execute(name, ARGUMENTS[name].model_validate(arguments))
