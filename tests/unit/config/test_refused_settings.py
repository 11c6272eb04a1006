"""What is wrong with the settings, in lines that say where, what and what to do."""

from pathlib import Path

import pytest

from agent.config import layers
from agent.config.layers import load, load_settings, models_dir, parse_override, state_dir
from agent.config.settings import Settings
from agent.errors import ConfigError
from tests.unit.config.conftest import WriteToml, problems
from tests.unprivileged import closed


def test_all_problems_come_at_once_with_place_value_and_remedy(
    toml: WriteToml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line for each mistake, in whichever layer it stands."""
    config = toml('[engine]\nthreds = 2\n[mqtt]\nport = 99999\n[vad]\nkind = "silera"\n[source]\nkind = "wav"\n')
    monkeypatch.setenv("EDGESCRIBE_SEGMENTER__HANG_OVER_MS", "soon")
    monkeypatch.setenv("EDGESCRIBE_ENGIN__THREADS", "2")
    overrides = {"log.level": "loud", "engine.batch_size": 2, "engine.language": "English"}
    assert set(problems(config, overrides)) == {
        f"{config}:2: engine.threds is not a setting: did you mean engine.threads?",
        f"{config}:4: mqtt.port = 99999 is not allowed: must be a whole number, 1 to 65535",
        f'{config}:6: vad.kind = "silera" is not allowed: must be one of silero, energy',
        f"{config}:8: source.path is missing: must be a path",
        (
            'EDGESCRIBE_SEGMENTER__HANG_OVER_MS: segmenter.hang_over_ms = "soon" is not allowed: '
            "must be a whole number, 200 to 3000"
        ),
        "EDGESCRIBE_ENGIN__THREADS: engin.threads is not a setting: did you mean engine.threads?",
        'command line: log.level = "loud" is not allowed: must be one of debug, info, warning, error',
        (
            'command line: engine.language = "English" is not allowed: '
            'must be a language code that Whisper knows, such as "en", or "auto"'
        ),
        'command line: engine.batch_size belongs to engine.kind = "faster_whisper": set that kind or remove the key',
    }


def test_an_unknown_kind_does_not_hide_misspelt_keys(toml: WriteToml) -> None:
    """Validation stops at an unknown kind; the misspelt key beside it is reported all the same."""
    config = toml('[engine]\nkind = "whispercpp"\nthreds = 2\n')
    assert problems(config) == [
        (
            f'{config}:2: engine.kind = "whispercpp" is not allowed: '
            "must be one of whisper_cpp, faster_whisper, auto, scripted"
        ),
        f"{config}:3: engine.threds is not a setting: did you mean engine.threads?",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[engine\n", ":1: not valid TOML: "),
        ('[mqtt]\nhost = "a\n', ":2: not valid TOML: "),
        ("a = 1\na = 2\n", ":2: not valid TOML: "),
        ("mqtt = 3\n", ":1: mqtt is not allowed: must be a table, [mqtt]"),
    ],
)
def test_broken_toml_is_reported_with_its_line(toml: WriteToml, text: str, line: str) -> None:
    """A syntax error names file and line, as a compiler would."""
    config = toml(text)
    assert problems(config)[0].startswith(f"{config}{line}")


def test_a_file_that_is_not_text_is_one_clear_line(tmp_path: Path) -> None:
    """Binary rubbish is not a stack trace."""
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xff\xfe\x00")
    assert problems(path) == [f"{path}: not UTF-8 text: save it as UTF-8"]


def test_a_file_that_this_user_may_not_see_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named or not, its folder being closed: never a PermissionError, and never the defaults in its place."""
    path = tmp_path / "config.toml"
    path.touch()
    expected = [f"{path}: cannot be read (Permission denied): check its owner and mode"]
    with closed(tmp_path):
        assert problems(path) == expected
        monkeypatch.setattr(layers, "DEFAULT_FILE", path)
        assert problems() == expected


def test_a_drop_in_that_this_user_may_not_see_is_one_clear_line(toml: WriteToml, tmp_path: Path) -> None:
    """The folder closed, its files closed, or one file: what it says is never passed over in silence."""
    config = toml("")
    folder = tmp_path / "conf.d"
    folder.mkdir()
    site = folder / "site.toml"
    site.write_text('[mqtt]\nhost = "broker"\n', encoding="utf-8")
    with closed(folder):
        assert problems(config) == [f"{folder}: cannot be read (Permission denied): check its owner and mode"]
        folder.chmod(0o444)  # its names can be read
        assert problems(config) == [f"{site}: cannot be read (Permission denied): check its owner and mode"]
    with closed(site):
        assert problems(config) == [f"{site}: cannot be read (Permission denied): check its owner and mode"]
    assert load_settings(config).mqtt.host == "broker"


def test_a_file_in_the_place_of_the_drop_ins_is_said(toml: WriteToml, tmp_path: Path) -> None:
    """A file named `conf.d` holds what nobody reads."""
    config = toml("")
    (tmp_path / "conf.d").touch()
    assert problems(config) == [f"{tmp_path}/conf.d: not a folder: make it one for *.toml files, or remove it"]


def test_a_named_file_must_exist_but_the_default_need_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typo in `--config` or EDGESCRIBE_CONFIG must not silently run on the defaults."""
    absent = tmp_path / "absent.toml"
    assert problems(absent)[0].startswith(f"{absent}: no such configuration file (named by --config)")
    monkeypatch.setenv("EDGESCRIBE_CONFIG", str(absent))
    assert problems()[0].startswith(f"{absent}: no such configuration file (named by EDGESCRIBE_CONFIG)")
    monkeypatch.delenv("EDGESCRIBE_CONFIG")
    assert load().file is None


def test_credentials_of_others_are_let_alone_but_misspelt_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A binary key for somebody else does no harm; `mqtt__pasword` would silently mean no password."""
    (tmp_path / "tls.key").write_bytes(b"\xff\x00")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert load_settings() == Settings()
    (tmp_path / "mqtt__pasword").write_text("geheim", encoding="utf-8")
    assert problems() == ["credential mqtt__pasword: mqtt.pasword is not a setting: did you mean mqtt.password?"]


def test_secrets_never_show_in_errors(toml: WriteToml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a secret of the wrong type nor the value of a misspelt key nor a broken JSON table is repeated."""
    config = toml('[mqtt]\npassword = ["geheim"]\npasswort = "geheim"\nhost = 3\n')
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "mqtt__pasword").write_text("geheim", encoding="utf-8")
    monkeypatch.setenv("EDGESCRIBE_LOG", '{"geheim')
    text = "\n".join(problems(config, {"mqtt.secret": "geheim"}))
    assert "mqtt.password is not allowed: must be secret text" in text
    assert "geheim" not in text


def test_variables_are_checked_at_every_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt variable is refused whether its section exists or not."""
    monkeypatch.setenv("EDGESCRIBE_STATEDIR", "/x")
    monkeypatch.setenv("EDGESCRIBE_MQTT__TLS__ENABLE", "true")
    assert problems() == [
        "EDGESCRIBE_STATEDIR: statedir is not a setting: did you mean state_dir?",
        "EDGESCRIBE_MQTT__TLS__ENABLE: mqtt.tls.enable is not a setting: did you mean mqtt.tls.enabled?",
    ]


def test_contradictions_name_their_section(toml: WriteToml) -> None:
    """What the validators of `config.py` refuse keeps its own words, with a place in front."""
    config = toml('[mqtt.tls]\nca_file = "x"\n')
    (line,) = problems(config)
    assert line.startswith(f"{config}:2: mqtt.tls: certificates are set but TLS is off")


@pytest.mark.parametrize("argument", ["mqtt.host", "=x", "engine.texts=a"])
def test_malformed_overrides_are_explained(argument: str) -> None:
    """No equals sign, no key, or a list that is no JSON."""
    with pytest.raises(ConfigError, match="write it as"):
        parse_override(argument)


def test_a_folder_at_the_home_of_nobody_is_said() -> None:
    """`~x` is the home folder of a user x, whom this machine does not have."""
    with pytest.raises(
        ConfigError, match=r"^state_dir: ~x/state: there is no such user here: write the path without ~$"
    ):
        state_dir(Settings(state_dir=Path("~x/state")))
    with pytest.raises(ConfigError, match=r"^models\.dir: ~x: there is no such user"):
        models_dir(Settings.model_validate({"models": {"dir": "~x"}}))


@pytest.mark.parametrize(
    "host",
    [
        "",
        " ",
        "mqtt://broker",
        "127.0.0.1:18830",
        "broker:1883",
        "[::1]",
        "::1:x",
        "a b",
        "broker/",
        "x." * 130,
        ".",
        "-",
    ],
)
def test_the_broker_is_a_name_or_an_address(host: str) -> None:
    """What people write instead would never be reached; the remedy names where scheme and port go."""
    (line,) = problems(overrides={"mqtt.host": host})
    assert line.startswith("command line: mqtt.host = ")
    assert line.endswith(
        ' is not allowed: must be a name or an address alone, such as "192.168.1.2": the port is mqtt.port'
    )


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "broker.lan",
        "broker.lan.",
        "192.168.1.2",
        "::1",
        "fe80::1%eth0",
        "2001:db8::7",
        "my_broker",
        "kühl.de",
    ],
)
def test_names_and_addresses_of_brokers_are_taken(host: str) -> None:
    """IPv6 too, with its zone; names as home networks have them."""
    assert load_settings(overrides={"mqtt.host": host}).mqtt.host == host


def test_a_password_in_an_address_is_not_repeated() -> None:
    """Whoever pastes a URL."""
    (line,) = problems(overrides={"mqtt.host": "mqtt://kitchen:hunter2@broker"})
    assert line.startswith("command line: mqtt.host is not allowed: must be a name or an address alone")


def test_a_password_in_another_encoding_is_refused(toml: WriteToml, tmp_path: Path) -> None:
    """To go on without a password would only end at the broker, which cannot tell why."""
    (tmp_path / "mqtt-password").write_text("secret", encoding="utf-16")
    assert [line.partition(": ")[0] for line in problems(toml(""))] == [str(tmp_path / "mqtt-password")]


@pytest.mark.parametrize("text", ["x = " + "[" * 100_000, "x = " + "9" * 5_000, "x = {" + "a = {" * 100_000])
def test_a_document_that_python_cannot_hold_is_one_line(toml: WriteToml, text: str) -> None:
    """Deep nesting and endless numbers are mistakes like others."""
    config = toml(text)
    (line,) = problems(config)
    assert line.startswith(f"{config}: ")
