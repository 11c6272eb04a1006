import os
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.audio import libasound
from agent.config import layers
from agent.config.commanded import LISTENING, Applied
from agent.config.layers import Loaded, load
from agent.diagnostics import Status
from agent.diagnostics.configuration import file_problem, findings, is_name
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


def faults(given: Loaded, *subjects: str) -> list[str]:
    """The faults, as `check` prints them; of some subjects only."""
    found = [one for one in findings(given) if one.status is Status.FAIL]
    return [one.text for one in found if not subjects or one.subject in subjects]


def apart(given: Loaded) -> list[str]:
    """The faults of the settings themselves, without those of source and model."""
    return faults(given, "settings")


def advice(given: Loaded) -> list[str]:
    """The warnings, as `check` prints them."""
    return [one.text for one in findings(given) if one.status is Status.WARN]


def test_the_defaults_contradict_nothing() -> None:
    """Nobody should be warned about what we chose ourselves."""
    assert [*apart(loaded()), *advice(loaded())] == []


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
    warnings = advice(settings)
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
    assert apart(loaded(**overrides)) == [expected]


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
    assert apart(loaded(**overrides)) == []


def test_files_that_are_named_must_exist(tmp_path: Path) -> None:
    """A recording or a certificate that is not there is named with its path."""
    there = tmp_path / "ca.pem"
    there.touch()
    absent = tmp_path / "absent"
    given = loaded(source__kind="wav", source__path=absent, mqtt__tls__enabled=True, mqtt__tls__ca_file=there)
    assert apart(given) == []
    assert faults(given, "source") == [f"command line: source.path: {absent} does not exist: correct the path"]
    uncertain = loaded(mqtt__tls__enabled=True, mqtt__tls__ca_file=absent)
    assert apart(uncertain) == [f"command line: mqtt.tls.ca_file: {absent} does not exist: correct the path"]


def test_a_credential_of_the_service_is_not_missed_outside_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """`docs/broker/` hands the key to the service so; only the service itself can say that it is not there."""
    key = "/run/credentials/edgescribe.service/device-key"
    tls = {"mqtt__tls__enabled": True, "mqtt__tls__cert_file": str(Path(__file__)), "mqtt__tls__key_file": key}
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert apart(loaded(**tls)) == []
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/edgescribe.service")
    (problem,) = apart(loaded(**tls))
    assert key in problem


def test_packages_that_are_needed_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is named with the command that installs it, and only where it is used."""
    given = loaded(engine__kind="faster_whisper")
    for package in ("ctranslate2", "webrtc_noise_gain", "wyoming"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(libasound, "installed", lambda: False)
    engine, source = faults(given, "CTranslate2", "source")
    assert engine.endswith(f"a package that is not installed: {extras.missing('faster-whisper')}")
    assert source.endswith("apt install alsa-utils")
    (sound,) = apart(loaded(sound__auto_gain=True))
    expected = f"sound.auto_gain needs a package that is not installed: {extras.missing('enhance')}"
    assert sound.endswith(expected)
    plain = loaded(source__kind="wav", source__path=__file__)
    assert faults(plain, "settings", "CTranslate2", "source") == []


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
    assert apart(given) == [expected]
    assert expected in faults(given)


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
    assert apart(loaded(**overrides)) == []


def test_a_password_in_the_clear_is_advised_against() -> None:
    """Only where it really leaves the machine unencrypted."""
    (line,) = advice(loaded(mqtt__password="x", mqtt__host="broker"))
    assert "unencrypted" in line
    assert advice(loaded(mqtt__password="x")) == []
    assert advice(loaded(mqtt__password="x", mqtt__host="broker", mqtt__tls__enabled=True)) == []


def test_auto_without_a_calibration_is_a_warning_or_a_problem(tmp_path: Path) -> None:
    """With the default model it starts, so check only warns; without, it would not start, and check says so."""
    auto = loaded(engine__kind="auto", state_dir=str(tmp_path))
    assert apart(auto) == []
    assert advice(auto) == []
    (problem,) = faults(auto, "calibration")
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
        assert apart(settings) == [
            f"command line: mqtt.tls.ca_file: {private}/ca.pem cannot be read by this user: check its owner and mode"
        ]
        (said,) = faults(settings, "model")
    ca_file = private / "ca.pem"
    ca_file.touch()
    with closed(ca_file):
        assert apart(settings) == [
            f"command line: mqtt.tls.ca_file: {ca_file} cannot be read by this user: check its owner and mode"
        ]
    assert apart(settings) == []
    assert said == (
        f"command line: {private}/own.bin: cannot be read by this user: check owner and mode, of its folders too, or "
        "use sudo; the service cannot read below /home"
    )


def test_a_model_is_a_name_wherever_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a folder where this user may not look."""
    monkeypatch.chdir(tmp_path)
    with closed(tmp_path):
        assert is_name("tiny.en-q8_0")


def test_pipes_and_standard_input_can_be_read(tmp_path: Path) -> None:
    """A recording may come out of them; the check does not wait for a writer."""
    os.mkfifo(tmp_path / "fifo")
    assert file_problem(tmp_path / "fifo") == ""
    assert file_problem(Path("-")) == ""


def test_folders_and_what_is_not_there_cannot(tmp_path: Path) -> None:
    """The remedy is to correct the path."""
    assert "correct the path" in file_problem(tmp_path)
    assert "correct the path" in file_problem(tmp_path / "absent")


def test_a_secret_in_a_world_readable_file_is_warned_about(tmp_path: Path) -> None:
    """The file works, but the warning names it and the remedy; a private file gives none."""
    config = tmp_path / "config.toml"
    config.write_text('[mqtt]\npassword = "geheim"\n', encoding="utf-8")
    config.chmod(0o600)
    assert advice(load(config)) == []
    config.chmod(0o644)
    (warning,) = advice(load(config))
    assert warning.startswith(f"{config}:2: mqtt.password is a secret in a file that everybody can read: chmod 640")


def test_a_user_name_without_a_password_is_a_warning(tmp_path: Path) -> None:
    """The line says where to put a password; with one in the file beside, all is well."""
    config, beside = tmp_path / "config.toml", tmp_path / "mqtt-password"
    config.write_text('[mqtt]\nusername = "x"\n', encoding="utf-8")
    (line,) = advice(load(config))
    assert line.startswith(f"{config}:2: mqtt.username is set without a password")
    assert str(beside) in line
    beside.write_text("hunter2\n", encoding="utf-8")
    assert advice(load(config)) == []
