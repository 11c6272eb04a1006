import json
import os
import shutil
import stat
import threading
from pathlib import Path

import pytest

from agent.config import commanded as changes
from agent.config.commanded import FILE, LISTENING, Applied, commanded, value_at, with_value
from agent.config.settings import ScriptedSettings, Settings, VadSettings

CONFIGURED = Settings()


def changed(folder: Path, key: str, value: object) -> Applied:
    """A command has changed something."""
    applied = Applied(folder)
    applied.overlay(CONFIGURED)
    applied.remember(key, value)
    return applied


def test_a_change_outlives_a_restart(tmp_path: Path) -> None:
    """What was set by command is in force after the next start; the file is for its owner only."""
    changed(tmp_path, "vad.threshold", 0.7)
    assert Applied(tmp_path).overlay(CONFIGURED).vad.threshold == 0.7
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


def test_a_configuration_that_was_edited_since_counts_again(tmp_path: Path) -> None:
    """An operator who rolls out another threshold is not overruled by a slider of last year."""
    changed(tmp_path, "vad.threshold", 0.7)
    edited = Settings(vad=VadSettings(threshold=0.4))
    assert Applied(tmp_path).overlay(edited).vad.threshold == 0.4


def test_going_back_to_the_configured_value_leaves_nothing(tmp_path: Path) -> None:
    """The file says only what differs."""
    changed(tmp_path, "vad.threshold", 0.7).remember("vad.threshold", 0.5)
    assert json.loads((tmp_path / FILE).read_text()) == {}


def test_a_mute_device_stays_mute(tmp_path: Path) -> None:
    """A power cut does not open the microphone."""
    assert Applied(tmp_path).listening
    changed(tmp_path, LISTENING, value=False)
    assert not Applied(tmp_path).listening
    assert str(tmp_path / FILE) in Applied(tmp_path).muted


def test_a_device_that_listens_says_nothing_of_being_muted(tmp_path: Path) -> None:
    """Another change is none of the microphone's."""
    assert changed(tmp_path, "vad.threshold", 0.7).muted == ""


@pytest.mark.parametrize(
    ("named", "variables", "expected"),
    [
        (False, {}, False),
        (True, {}, True),
        (False, {"STATE_DIRECTORY": "/nowhere"}, True),
    ],
    ids=["root's own command", "a setting", "the service itself"],
)
def test_root_is_told_what_commands_have_changed_in_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], *, named: bool, expected: bool
) -> None:
    """`sudo edgescribe config` has no STATE_DIRECTORY, and is about the service all the same."""
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "root"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    changed(tmp_path / "service", LISTENING, value=False)
    monkeypatch.setattr(changes, "SERVICE_STATE", tmp_path / "service")
    settings = Settings(state_dir=tmp_path / "named" if named else None)
    assert commanded(settings).listening is expected


def test_two_changes_at_once_are_both_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that is muted while another change is being written down."""
    writing, go = threading.Event(), threading.Event()
    really = os.fsync

    def slow(descriptor: int) -> None:
        writing.set()
        assert go.wait(30.0)
        really(descriptor)

    monkeypatch.setattr("agent.config.commanded.os.fsync", slow)
    applied = Applied(tmp_path)
    applied.overlay(CONFIGURED)
    kept: list[bool] = []
    first = threading.Thread(target=lambda: kept.append(applied.remember("vad.threshold", 0.7)))
    second = threading.Thread(target=lambda: kept.append(applied.remember(LISTENING, value=False)))
    first.start()
    assert writing.wait(30.0)
    second.start()
    second.join(0.2)
    go.set()
    for thread in (first, second):
        thread.join(30.0)
    assert kept == [True, True]
    again = Applied(tmp_path)
    assert not again.listening
    assert again.overlay(CONFIGURED).vad.threshold == 0.7


def test_changes_for_another_kind_of_engine_do_not_count(tmp_path: Path) -> None:
    """A scripted engine has no model."""
    changed(tmp_path, "engine.model", "base-q8_0")
    scripted = Settings(engine=ScriptedSettings())
    assert Applied(tmp_path).overlay(scripted) == scripted


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"vad.threshold": 3}',
        '{"vad.threshold": {"value": "loud", "instead_of": 0.5}}',
        '{"mqtt.host": {"value": "evil", "instead_of": "localhost"}}',
        '{"publish.privacy": {"value": "full", "instead_of": "full"}}',
    ],
)
def test_a_file_that_makes_no_sense_changes_nothing(tmp_path: Path, content: str) -> None:
    """Damaged, or with keys that no command can set: the configuration counts, and the agent starts."""
    (tmp_path / FILE).write_text(content)
    assert Applied(tmp_path).overlay(CONFIGURED) == CONFIGURED


def test_forgetting_a_section_leaves_the_others(tmp_path: Path) -> None:
    """A model that is gone must not keep the device from starting."""
    applied = changed(tmp_path, "engine.model", "base-q8_0")
    applied.remember("vad.threshold", 0.7)
    assert applied.forget("engine")
    assert not applied.forget("engine")
    assert Applied(tmp_path).changes(CONFIGURED) == {"vad.threshold": 0.7}


def test_a_folder_that_cannot_be_written_is_survived(tmp_path: Path) -> None:
    """The change holds for this run, and who asked is told that it will not outlive it."""
    (tmp_path / "file").write_text("")
    applied = changed(tmp_path / "file" / "state", "vad.threshold", 0.6)
    assert not applied.remember("vad.threshold", 0.7)
    assert applied.overlay(CONFIGURED).vad.threshold == 0.7


def test_values_are_reached_and_replaced_by_dotted_keys() -> None:
    """And the settings around them stay as they are."""
    changed = with_value(CONFIGURED, "engine.language", "de")
    assert value_at(changed, "engine.language") == "de"
    assert value_at(changed, "engine.model") == value_at(CONFIGURED, "engine.model")
    assert value_at(CONFIGURED, "engine.batch_size") is None


def test_a_reload_of_the_configuration_is_what_counts_from_then_on(tmp_path: Path) -> None:
    """After SIGHUP, a change is a change of what the file says now."""
    applied = changed(tmp_path, "engine.language", "en")
    edited = Settings(vad=VadSettings(threshold=0.4))
    applied.overlay(edited)
    applied.remember("vad.threshold", 0.7)
    assert Applied(tmp_path).overlay(edited).vad.threshold == 0.7
    assert Applied(tmp_path).overlay(CONFIGURED).vad.threshold == 0.5


def test_a_file_that_is_deleted_under_the_agent_is_written_again(tmp_path: Path) -> None:
    """Else a device that was muted would listen after the next start."""
    folder = tmp_path / "state"
    applied = changed(folder, LISTENING, value=False)
    shutil.rmtree(folder)
    applied.keep()
    assert not Applied(folder).listening


def test_a_change_that_could_not_be_written_is_written_as_soon_as_it_can_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One line in the log says that it waits."""
    folder = tmp_path / "state"
    folder.touch()  # a file in the place of the folder: root is held up as well
    applied = Applied(folder)
    applied.overlay(CONFIGURED)
    caplog.clear()
    assert not applied.remember(LISTENING, value=False)
    for _ in range(3):
        applied.keep()
    assert len(caplog.records) == 1
    folder.unlink()
    applied.keep()
    assert not Applied(folder).listening
