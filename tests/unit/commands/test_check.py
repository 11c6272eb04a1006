import os
from pathlib import Path

import pytest

from agent.cli import parser
from agent.config import layers
from agent.errors import ConfigError


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither this machine's environment nor its /etc has a say in these tests."""
    for name in [name for name in os.environ if name.startswith("EDGESCRIBE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(layers, "DEFAULT_FILE", tmp_path / "etc" / "config.toml")


def run(*arguments: str) -> int:
    """The verb, called as the command line calls it."""
    args = parser("check").parse_args(["check", *arguments])
    status: int = args.run(args)
    return status


def test_a_sound_configuration_is_fine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything that is named exists: exit 0 and a word of comfort."""
    recording = tmp_path / "a.wav"
    recording.touch()
    status = run("--set", "source.kind=wav", "--set", f"source.path={recording}", "--set", "engine.kind=scripted")
    assert status == 0
    assert capsys.readouterr().out == "configuration is fine\n"


def test_a_model_that_was_not_pulled_is_named_with_the_command(tmp_path: Path) -> None:
    """Together with everything else that is missing, one line each, exit 78."""
    with pytest.raises(ConfigError) as caught:
        run("--set", "source.kind=wav", "--set", "source.path=/absent.wav", "--set", f"state_dir={tmp_path}")
    assert caught.value.exit_code == 78
    assert str(caught.value).splitlines() == [
        "command line: source.path: /absent.wav does not exist: correct the path",
        "model tiny.en-q8_0 is not on this device: run `edgescribe models pull tiny.en-q8_0`",
    ]


def test_a_model_of_the_wrong_format_is_reported_once(tmp_path: Path) -> None:
    """The contradiction says it; the store does not repeat it."""
    recording = tmp_path / "a.wav"
    recording.touch()
    with pytest.raises(ConfigError) as caught:
        run("--set", "source.kind=wav", "--set", f"source.path={recording}", "--set", "engine.model=base-ct2")
    (line,) = str(caught.value).splitlines()
    assert "is a CTranslate2 model" in line
