from pathlib import Path
from typing import Any, cast

import pytest

from agent.config.commanded import Applied, value_at
from agent.config.settings import Settings, WhisperCppSettings
from agent.mqtt.command_handlers import replay_outcome
from agent.mqtt.delivery import Replay, SeqRange
from tests.support.controlled import Switch, controlled, execute


class Transcriber:
    """One without an engine."""

    def exchange(self, engine: object, timeout_s: float) -> None:
        """Nothing: there is no engine."""


@pytest.mark.parametrize(
    ("name", "arguments", "listening", "result"),
    [
        ("mute", {}, False, {"value": True}),
        ("mute", {"value": False}, True, {"value": False}),
        ("mute", {"purge": True}, False, {"value": True, "purged": 3}),
        ("mute", {"value": False, "purge": True}, True, {"value": False}),
        ("listen", {}, True, {"value": True}),
        ("listen", {"value": False}, False, {"value": False}),
        ("listen", {"value": False, "purge": True}, False, {"value": False, "purged": 3}),
    ],
)
def test_the_reply_repeats_what_was_asked_for(
    tmp_path: Path, name: str, arguments: dict[str, bool], result: dict[str, object], *, listening: bool
) -> None:
    """Who asked `mute` for ON reads that it is on, not that something is off."""
    microphone = Switch()
    device = controlled(Settings(), Applied(tmp_path), source=microphone, purge=lambda: 3)
    outcome = execute(device, name, **arguments)
    assert (microphone.listening, outcome.code, outcome.result) == (listening, "ok", result)


def models(folder: Path, configured: str, *commanded: str) -> list[str]:
    """What a device that is configured with a model answers to commands for others: codes; and what was loaded."""
    loaded: list[str] = []

    def load_engine(settings: Settings) -> Any:
        loaded.append(str(value_at(settings, "engine.model")))

    settings = Settings(engine=WhisperCppSettings(model=configured, language="en"))
    applied = Applied(folder / "state")
    transcriber = cast("Any", Transcriber())
    device = controlled(applied.overlay(settings), applied, transcriber=transcriber, load_engine=load_engine)
    return [execute(device, "model", value=name).code for name in commanded] + loaded


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


def test_the_answer_says_what_goes_what_does_not_and_what_could() -> None:
    """All, some, none, and not now: each has its code; the ranges are written as they are asked for."""
    here = SeqRange(5, 9)
    outcomes = [
        replay_outcome(Replay(3, (), here)),
        replay_outcome(Replay(3, (SeqRange(1, 4),), here)),
        replay_outcome(Replay(0, (SeqRange(1, 4),), here)),
        replay_outcome(Replay(0, (), here, still_waiting=7)),
    ]
    assert [outcome.code for outcome in outcomes] == ["ok", "partial", "not_available", "busy"]
    assert outcomes[1].result == {
        "replayed": 3,
        "missing": [{"from": 1, "to": 4}],
        "available": {"from": 5, "to": 9},
    }
    assert replay_outcome(Replay(0, (SeqRange(1, 4),), None)).result == {
        "replayed": 0,
        "missing": [{"from": 1, "to": 4}],
    }
