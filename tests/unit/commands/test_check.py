import argparse
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.commands import check
from agent.commands.check import advice, contradictions, missing_files, missing_packages, missing_parts, problems
from agent.config import layers
from agent.config.commanded import LISTENING, Applied
from agent.config.layers import Loaded, load
from agent.errors import ConfigError
from agent.install import extras
from tests.unprivileged import closed


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither this machine's environment nor its /etc has a say in these tests."""
    for name in [name for name in os.environ if name.startswith("EDGESCRIBE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(layers, "DEFAULT_FILE", tmp_path / "etc" / "config.toml")


def loaded(**overrides: Any) -> Loaded:
    """Settings as the command line would set them, `__` for the dot."""
    return load(overrides={key.replace("__", "."): value for key, value in overrides.items()})


def test_the_defaults_contradict_nothing() -> None:
    """Nobody should be warned about what we chose ourselves."""
    assert [*contradictions(loaded()), *advice(loaded()), *missing_files(loaded())] == []


def test_a_device_that_a_command_has_muted_is_warned_about(tmp_path: Path) -> None:
    """Nothing is wrong with the configuration, and yet it will hear nothing."""
    Applied(tmp_path).remember(LISTENING, value=False)
    (warning,) = advice(loaded(state_dir=tmp_path))
    assert warning.startswith("muted by a command (")


@pytest.mark.parametrize(
    ("keyword", "model", "warned"),
    [("HEATER OFF", "tiny.en-q8_0", False), ("电灯", "tiny.en-q8_0", True), ("电灯", "base-q8_0", False)],
)
def test_a_keyword_that_can_never_match_is_warned_about(keyword: str, model: str, warned: bool) -> None:  # noqa: FBT001 - a table
    """The line names the setting and the keyword; it is no reason not to start."""
    settings = loaded(publish__keywords=[keyword], engine__kind="whisper_cpp", engine__model=model)
    warnings = list(advice(settings))
    assert bool(warnings) is warned
    assert all("publish.keywords" in warning and keyword in warning for warning in warnings)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            {"engine__model": "base-ct2"},
            (
                'command line: engine.model = "base-ct2" is a CTranslate2 model: '
                'set engine.kind = "faster_whisper", or engine.model = "base-q8_0"'
            ),
        ),
        (
            {"engine__kind": "faster_whisper", "engine__model": "tiny.en-q8_0"},
            (
                'command line: engine.model = "tiny.en-q8_0" is a ggml model: '
                'set engine.kind = "whisper_cpp", or engine.model = "tiny.en-ct2"'
            ),
        ),
        (
            {"engine__language": "de"},
            (
                'command line: engine.language = "de", but engine.model = "tiny.en-q8_0" knows English only: '
                'set engine.model = "tiny-q8_0" or engine.language = "en"'
            ),
        ),
        (
            {"engine__kind": "faster_whisper", "engine__compute_type": "int8_float16"},
            (
                'command line: engine.compute_type = "int8_float16" needs a GPU: '
                'set engine.device = "cuda", or engine.compute_type = "int8"'
            ),
        ),
    ],
)
def test_contradictions_name_the_key_and_the_remedy(overrides: dict[str, object], expected: str) -> None:
    """Each contradiction is one line: where, which key, what is wrong, what to do."""
    assert list(contradictions(loaded(**overrides))) == [expected]


@pytest.mark.parametrize(
    "overrides",
    [
        {"engine__model": "tiny-q8_0", "engine__language": "de"},
        {"engine__kind": "faster_whisper", "engine__model": "base-ct2"},
        {"engine__kind": "faster_whisper", "engine__device": "cuda", "engine__compute_type": "float16"},
        {"engine__model": "/models/own-ct2", "engine__language": "en"},
        {"engine__kind": "scripted"},
    ],
)
def test_what_fits_together_is_let_pass(overrides: dict[str, object]) -> None:
    """Multilingual models in any language, float16 on a GPU, paths of one's own files."""
    assert list(contradictions(loaded(**overrides))) == []


def test_files_that_are_named_must_exist(tmp_path: Path) -> None:
    """A recording or a certificate that is not there is named with its path."""
    there = tmp_path / "ca.pem"
    there.touch()
    absent = tmp_path / "absent"
    given = loaded(source__kind="wav", source__path=absent, mqtt__tls__enabled=True, mqtt__tls__ca_file=there)
    assert list(missing_files(given)) == []
    assert list(missing_parts(given)) == [f"command line: source.path: {absent} does not exist: correct the path"]
    uncertain = loaded(mqtt__tls__enabled=True, mqtt__tls__ca_file=absent)
    assert list(missing_files(uncertain)) == [
        f"command line: mqtt.tls.ca_file: {absent} does not exist: correct the path"
    ]


def test_a_credential_of_the_service_is_not_missed_outside_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """`docs/broker/` hands the key to the service so; only the service itself can say that it is not there."""
    key = "/run/credentials/edgescribe.service/device-key"
    tls = {"mqtt__tls__enabled": True, "mqtt__tls__cert_file": str(Path(__file__)), "mqtt__tls__key_file": key}
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert list(missing_files(loaded(**tls))) == []
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/edgescribe.service")
    (problem,) = missing_files(loaded(**tls))
    assert key in problem


def test_packages_that_are_needed_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is named with the command that installs it, and only where it is used."""
    given = loaded(engine__kind="faster_whisper")
    engine, source = missing_parts(given, installed=lambda _package: False, alsa=lambda: False)
    assert engine.endswith(f"a package that is not installed: {extras.missing('faster-whisper')}")
    assert source.endswith("apt install alsa-utils")
    for package in ("webrtc_noise_gain", "wyoming"):
        monkeypatch.setitem(sys.modules, package, None)
    (sound,) = missing_packages(loaded(sound__auto_gain=True))
    expected = f"sound.auto_gain needs a package that is not installed: {extras.missing('enhance')}"
    assert sound.endswith(expected)
    plain = loaded(source__kind="wav", source__path=__file__)
    assert list(missing_packages(plain)) == []
    assert list(missing_parts(plain, installed=lambda _package: False)) == []


@pytest.mark.parametrize(
    ("overrides", "absent", "expected"),
    [
        (
            {"assist__enabled": True},
            "wyoming",
            f"command line: assist.enabled needs a package that is not installed: {extras.missing('assist')}",
        ),
        (
            {"sound__noise_suppression": 2},
            "webrtc_noise_gain",
            (
                "command line: sound.noise_suppression needs a package that is not installed: "
                f"{extras.missing('enhance')}"
            ),
        ),
        (
            {"governor__floor": "other"},
            None,
            "command line: governor.floor: unknown model other: see `edgescribe models list`",
        ),
        (
            {"governor__models": ["tiny.en-q8_0", "nope"]},
            None,
            "command line: governor.models: unknown model nope: see `edgescribe models list`",
        ),
    ],
)
def test_what_run_would_not_start_with_is_a_problem(
    overrides: dict[str, object], absent: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packages and models that nobody knows. `doctor` and `service install` have the same list."""
    if absent:
        monkeypatch.setitem(sys.modules, absent, None)
    given = loaded(source__kind="wav", source__path=__file__, **overrides)
    assert list(check.problems_of_settings(given)) == [expected]
    assert expected in problems(given)


@pytest.mark.parametrize(
    "overrides",
    [
        {"governor__enabled": False, "governor__floor": "nope"},
        {"engine__kind": "scripted", "governor__floor": "nope"},
        {"governor__floor": "/own/model.bin", "engine__model": "/own/model.bin"},
        {"engine__kind": "auto", "governor__floor": "tiny.en-q4_0", "governor__models": ["base.en-ct2"]},
    ],
)
def test_a_governor_that_run_takes_is_let_pass(overrides: dict[str, object]) -> None:
    """Off, without models, the user's own model at the top, and names of the catalogue."""
    assert list(check.problems_of_settings(loaded(**overrides))) == []


def test_a_password_in_the_clear_is_advised_against() -> None:
    """Only where it really leaves the machine unencrypted."""
    (line,) = advice(loaded(mqtt__password="x", mqtt__host="broker"))
    assert "unencrypted" in line
    assert list(advice(loaded(mqtt__password="x"))) == []
    assert list(advice(loaded(mqtt__password="x", mqtt__host="broker", mqtt__tls__enabled=True))) == []


def run(*arguments: str) -> int:
    """The verb, called as the command line calls it."""
    top = argparse.ArgumentParser()
    check.add_parser(top.add_subparsers())
    args = top.parse_args(["check", *arguments])
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


def test_auto_without_a_calibration_is_a_warning_or_a_problem(tmp_path: Path) -> None:
    """With the default model it starts, so check only warns; without, it would not start, and check says so."""
    auto = loaded(engine__kind="auto", state_dir=str(tmp_path))
    assert list(contradictions(auto)) == []
    assert list(advice(auto)) == []
    (problem,) = [line for line in problems(auto) if "engine.kind" in line]
    assert "not calibrated: run `edgescribe calibrate`" in problem
    (tmp_path / "models" / "tiny.en-q8_0").mkdir(parents=True)
    (warning,) = advice(auto)
    assert warning.endswith("run `edgescribe calibrate`; until then it is whisper_cpp tiny.en-q8_0")


def test_what_this_user_may_not_see_is_said(tmp_path: Path) -> None:
    """Certificates of root's and a model below somebody's home: a line each, no traceback."""
    private = tmp_path / "private"
    private.mkdir()
    settings = loaded(
        mqtt__tls__enabled=True, mqtt__tls__ca_file=f"{private}/ca.pem", engine__model=f"{private}/own.bin"
    )
    with closed(private):
        assert list(contradictions(settings)) == []
        assert list(missing_files(settings)) == [
            f"command line: mqtt.tls.ca_file: {private}/ca.pem cannot be read by this user: check its owner and mode"
        ]
        said = check.model_problem(settings)
    ca_file = private / "ca.pem"
    ca_file.touch()
    with closed(ca_file):
        assert list(missing_files(settings)) == [
            f"command line: mqtt.tls.ca_file: {ca_file} cannot be read by this user: check its owner and mode"
        ]
    assert list(missing_files(settings)) == []
    assert said == (
        f"command line: {private}/own.bin: cannot be read by this user: check owner and mode, of its folders too, or "
        "use sudo; the service sees nothing below /home"
    )


def test_a_model_is_a_name_wherever_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a folder where this user may not look."""
    monkeypatch.chdir(tmp_path)
    with closed(tmp_path):
        assert check.is_name("tiny.en-q8_0")
