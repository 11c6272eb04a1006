import json
import tomllib
from pathlib import Path

import pytest

from agent.cli import parser
from agent.config.commanded import LISTENING, Applied
from agent.config.settings import AutoSettings, Settings, WavSettings


def run(*arguments: str) -> int:
    """The verb, called as the command line calls it."""
    args = parser("config").parse_args(["config", *arguments])
    status: int = args.run(args)
    return status


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration with a secret in it."""
    path = tmp_path / "config.toml"
    path.write_text('[mqtt]\nhost = "broker"\npassword = "geheim"\n', encoding="utf-8")
    return path


def test_what_is_printed_can_be_read_back(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The output is TOML that means the same settings, but for the secret, which it does not tell."""
    assert run("--config", str(file), "--set", "source.kind=wav", "--set", "source.path=/a b.wav") == 0
    printed = capsys.readouterr().out
    settings = Settings.model_validate(tomllib.loads(printed))
    assert settings.source == WavSettings(path=Path("/a b.wav"))
    assert settings.mqtt.host == "broker"
    assert settings.mqtt.password is None
    assert "geheim" not in printed
    assert f'# password = "**********"  # {file}:3' in printed.splitlines()


def test_origins_stand_beside_what_is_not_a_default(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """File with line, or command line; a default has no comment."""
    run("--config", str(file), "--set", "engine.threads=2")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"# {file}"
    assert f'host = "broker"  # {file}:2' in lines
    assert "threads = 2  # command line" in lines
    assert "keepalive_s = 30" in lines


def test_json_is_for_programs(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One object with the masked settings and the origin of what was set."""
    run("--config", str(file), "--json")
    printed = json.loads(capsys.readouterr().out)
    assert printed["settings"]["mqtt"]["host"] == "broker"
    assert printed["settings"]["mqtt"]["password"] == "**********"
    assert printed["origins"] == {"mqtt.host": f"{file}:2", "mqtt.password": f"{file}:3"}


def test_what_auto_comes_to_stands_beside_it(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which engine it is now, or why there is none; and the output can still be read back."""
    arguments = ("--config", str(file), "--set", "engine.kind=auto", "--set", f"state_dir={tmp_path}")
    run(*arguments)
    printed = capsys.readouterr().out
    assert Settings.model_validate(tomllib.loads(printed)).engine == AutoSettings()
    assert '# engine.kind = "auto": this device is not calibrated' in printed
    (tmp_path / "models" / "tiny.en-q8_0").mkdir(parents=True)
    run(*arguments, "--json")
    assert json.loads(capsys.readouterr().out)["chosen_engine"].startswith(
        "whisper_cpp tiny.en-q8_0 (this device is not"
    )


def test_what_a_command_has_changed_says_so(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who wonders why the file does not count sees where the value comes from."""
    applied = Applied(tmp_path)
    applied.overlay(Settings())
    applied.remember("vad.threshold", 0.7)
    run("--config", str(file), "--set", f"state_dir={tmp_path}")
    assert f"threshold = 0.7  # a command, {tmp_path}/applied.json" in capsys.readouterr().out.splitlines()


def test_a_device_that_a_command_has_muted_says_so(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the microphone is, and for programs; the output can still be read back."""
    arguments = ("--config", str(file), "--set", f"state_dir={tmp_path}")
    run(*arguments)
    assert "muted" not in capsys.readouterr().out
    Applied(tmp_path).remember(LISTENING, value=False)
    reason = f"muted by a command ({tmp_path}/applied.json): the microphone stays closed until cmd/listen ON"
    run(*arguments)
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[lines.index("[source]") + 1] == f"# {reason}"
    assert Settings.model_validate(tomllib.loads(printed)).state_dir == tmp_path
    run(*arguments, "--json")
    assert json.loads(capsys.readouterr().out)["muted"] == reason
