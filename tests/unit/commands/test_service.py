import io
import os
import re
import sys
from pathlib import Path

import pytest

from agent.cli import parser
from agent.commands import service
from agent.config import layers
from agent.errors import AgentError, ConfigError, InstallError
from agent.install import extras, facts
from agent.install.plan import MODELS


@pytest.fixture(autouse=True)
def _a_bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings from outside, no file of an installation, and an environment that the service would see."""
    for name in [name for name in os.environ if name.startswith("EDGESCRIBE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("STATE_DIRECTORY", "")  # so that it is gone again after the verb has set it
    monkeypatch.delenv("STATE_DIRECTORY")
    for module, name in ((layers, "DEFAULT_FILE"), (facts, "CONFIG")):
        monkeypatch.setattr(module, name, tmp_path / "config.toml")
    for name in ("PASSWORD", "COMMAND", "UNIT_FILE", "RECORD"):
        monkeypatch.setattr(facts, name, tmp_path / name)
    monkeypatch.setattr(facts, "program_problem", lambda _program: "")


def run(*arguments: str) -> int:
    """The verb, called as the command line calls it."""
    args = parser("service").parse_args(["service", *arguments])
    status: int = args.run(args)
    return status


def test_a_dry_run_shows_all_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every file with its mode and its text, but for the password; the machine stays as it was."""
    monkeypatch.setattr("sys.stdin", io.StringIO("hunter2\n"))
    said = (
        "--device",
        "plughw:CARD=Device",
        "--mqtt-host",
        "127.0.0.1",
        "--set",
        "mqtt.port=1",
        "--password-file",
        "-",
    )
    assert run("install", "--dry-run", *said) == 0
    printed = capsys.readouterr()
    assert f"would fetch tiny.en-q8_0 into {MODELS}" in printed.out
    assert "would write /etc/systemd/system/edgescribe.service, mode 644" in printed.out
    assert '[source]\n    device = "plughw:CARD=Device"' in printed.out
    assert "port = 1\n" in printed.out
    assert "would write /etc/edgescribe/mqtt-password, mode 600:\n    (the password)" in printed.out
    assert "hunter2" not in printed.out + printed.err
    assert "no broker at 127.0.0.1:1" in printed.err
    assert not list(tmp_path.iterdir())


def test_settings_that_are_there_are_kept_and_the_model_goes_where_they_say(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Somebody's own file names no folder of models: then it is the state folder, as the service will see it."""
    (tmp_path / "config.toml").write_text('mqtt.host = "127.0.0.1"\nmqtt.port = 1\n')
    assert run("install", "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "would fetch tiny.en-q8_0 into /var/lib/edgescribe/models" in printed
    assert "config.toml, mode" not in printed


def test_a_device_with_a_certificate_can_be_installed_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Its key is a credential, which only the service sees: neither is it missed, nor the broker asked without it."""
    (tmp_path / "config.toml").write_text(
        '[mqtt]\nhost = "127.0.0.1"\nport = 1\n[mqtt.tls]\nenabled = true\ncert_file = "/etc/passwd"\n'
        'key_file = "/run/credentials/edgescribe.service/device-key"\n'
    )
    assert run("install", "--dry-run") == 0
    assert "no broker" not in capsys.readouterr().err


def test_without_root_one_line_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same command line, with sudo and the whole path of the program."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("sys.argv", ["/opt/edgescribe/bin/edgescribe", "service", "install", "--device", "a b"])
    with pytest.raises(InstallError, match=r"root: sudo /opt/edgescribe/bin/edgescribe service install --device 'a b'"):
        run("install", "--device", "a b")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--set", "mqtt.hots=x"), r"mqtt\.hots is not a setting: did you mean mqtt\.host\?"),
        (("--set", "mqtt.port=much"), r"mqtt\.port"),
        (("--set", "mqtt.password=hunter2"), "--password-file"),
        (("--password-file", "/nowhere"), r"--password-file /nowhere cannot be read \(No such file"),
        (("--model", "tiny.en-q8_0", "--set", "engine.language=de"), "knows English only"),
        (("--mqtt-host", "mqtt://x"), r'mqtt\.host = "mqtt://x" is not allowed: .* the port is mqtt\.port'),
        (("--mqtt-host", ""), r'mqtt\.host = "" is not allowed'),
        (("--set", "governor.floor=nope"), r"governor\.floor: unknown model nope"),
        (("--set", "assist.enabled=true"), re.escape(extras.missing("assist"))),
        (("--set", "mqtt.tls.enabled=true", "--set", "mqtt.tls.ca_file=/none.pem"), r"/none\.pem does not exist"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    arguments: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is written; and no secret is repeated."""
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    monkeypatch.setitem(sys.modules, "wyoming", None)
    with pytest.raises(AgentError, match=says) as caught:
        run("install", "--dry-run", "--device", "plughw:CARD=Device", "--mqtt-host", "127.0.0.1", *arguments)
    assert isinstance(caught.value, ConfigError)
    assert "hunter2" not in str(caught.value) + capsys.readouterr().out


def test_nothing_to_remove_is_no_failure(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A second `uninstall` succeeds like the first."""
    monkeypatch.setattr(service, "_require_root_and_systemd", lambda: None)
    assert run("uninstall") == 0
    assert "no file to remove" in capsys.readouterr().out
