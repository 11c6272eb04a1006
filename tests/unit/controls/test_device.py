from pathlib import Path
from typing import Any, cast

import pytest

from agent.config import Settings
from agent.controls import Outcome
from agent.controls.changes import Applied
from agent.controls.device import ControlledDevice, Parts
from agent.controls.dispatch import Command, Listen, Mute


class Switch:
    """A microphone that can be opened and closed."""

    listening = True

    def on(self) -> None:
        """Open it."""
        self.listening = True

    def off(self) -> None:
        """Close it."""
        self.listening = False


class Bystander:
    """Is told, and has something to delete."""

    def applied(self) -> None:
        """Nothing."""

    def purge(self) -> int:
        """Three messages."""
        return 3


@pytest.mark.parametrize(
    ("command", "listening", "result"),
    [
        (Mute(), False, {"value": True}),
        (Mute(value=False), True, {"value": False}),
        (Mute(purge=True), False, {"value": True, "purged": 3}),
        (Mute(value=False, purge=True), True, {"value": False}),
        (Listen(), True, {"value": True}),
        (Listen(value=False), False, {"value": False}),
        (Listen(value=False, purge=True), False, {"value": False, "purged": 3}),
    ],
)
def test_the_reply_repeats_what_was_asked_for(
    tmp_path: Path, command: Command, result: dict[str, object], *, listening: bool
) -> None:
    """Who asked `mute` for ON reads that it is on, not that something is off."""
    microphone, nothing = Switch(), cast("Any", None)
    parts = Parts(cast("Any", microphone), nothing, nothing, nothing, nothing, nothing)
    device = ControlledDevice(Settings(), Applied(tmp_path), parts, cast("Any", Bystander()))
    outcome = device.obey(command)
    assert isinstance(outcome, Outcome)
    assert (microphone.listening, outcome.code, outcome.result) == (listening, "ok", result)
