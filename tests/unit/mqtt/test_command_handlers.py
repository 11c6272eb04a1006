from pathlib import Path
from typing import Any, cast

import pytest

from agent.config.commanded import Applied, value_at
from agent.config.settings import Settings, WhisperCppSettings
from agent.mqtt.command_handlers import ControlledDevice, Parts
from agent.mqtt.commands import Command, Listen, Mute, SetModel
from agent.mqtt.outcome import Outcome


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


class Exchanged:
    """A transcriber that takes any engine."""

    def exchange(self, engine: object, timeout_s: float) -> None:
        """Nothing: there is no engine."""


def models(folder: Path, configured: str, *commanded: str) -> list[str]:
    """What a device that is configured with a model answers to commands for others: codes; and what was loaded."""
    loaded: list[str] = []

    def load_engine(settings: Settings) -> Any:
        loaded.append(str(value_at(settings, "engine.model")))

    nothing = cast("Any", None)
    parts = Parts(cast("Any", Switch()), nothing, cast("Any", Exchanged()), nothing, nothing, load_engine)
    settings = Settings(engine=WhisperCppSettings(model=configured, language="en"))
    applied = Applied(folder / "state")
    device = ControlledDevice(applied.overlay(settings), applied, parts, cast("Any", Bystander()))
    outcomes = [device.obey(SetModel(value=name)) for name in commanded]
    return [outcome.code for outcome in outcomes if isinstance(outcome, Outcome)] + loaded


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("mine.bin", "unavailable"),
        ("folder", "unavailable"),
        ("./mine.bin", "invalid"),
        ("folder/../mine.bin", "invalid"),
        ("~/mine.bin", "invalid"),
        ("~root", "invalid"),
        ("/opt/other.bin", "invalid"),
        ("/opt/own.bin/", "invalid"),
        ("no-such-model", "unavailable"),
    ],
)
def test_a_command_reaches_no_file_that_the_configuration_does_not_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str
) -> None:
    """Not even one of the working folder by its bare name; nothing is loaded."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.bin").touch()
    (tmp_path / "folder").mkdir()
    assert models(tmp_path, "/opt/own.bin", name) == [code]


def test_a_command_may_name_the_catalogue_and_the_configured_path(tmp_path: Path) -> None:
    """So a device can come back to a model of its own."""
    names = ["base.en-q8_0", "/opt/own.bin"]
    assert models(tmp_path, "/opt/own.bin", *names) == ["ok", "ok", *names]
