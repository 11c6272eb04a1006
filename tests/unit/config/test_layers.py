"""Which layer wins, and where each value came from; what is refused is in `test_refused_settings.py`."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from agent.config import layers
from agent.config.layers import load, load_settings, models_dir, parse_override, state_dir
from agent.config.settings import FasterWhisperSettings, ScriptedSettings, Settings, WavSettings, WhisperCppSettings
from tests.unit.config.conftest import WriteToml, problems


def test_without_anything_the_defaults_hold() -> None:
    """No file, no variable: the settings are the defaults of `config.py`."""
    assert load_settings() == Settings()


def test_each_layer_overrides_those_below_it(toml: WriteToml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Command line over environment over credentials over conf.d over file over defaults, key by key."""
    config = toml('[device]\nname = "file"\n[mqtt]\nhost = "file"\nusername = "file"\npassword = "file"')
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "10.toml").write_text('[mqtt]\nhost = "ten"\nusername = "ten"', encoding="utf-8")
    (tmp_path / "conf.d" / "20.toml").write_text('[mqtt]\nhost = "conf.d"\nusername = "conf.d"', encoding="utf-8")
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "mqtt__username").write_text("credential\n", encoding="utf-8")
    (credentials / "mqtt__password").write_text("credential\n", encoding="utf-8")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    monkeypatch.setenv("EDGESCRIBE_MQTT__PASSWORD", "environment")
    monkeypatch.setenv("EDGESCRIBE_MQTT__PROTOCOL", "5")

    settings = load_settings(config, {"mqtt.protocol": "3.1.1"})

    assert settings.device.name == "file"
    assert settings.mqtt.host == "conf.d"
    assert settings.mqtt.username == "credential"
    assert settings.mqtt.password is not None
    assert settings.mqtt.password.get_secret_value() == "environment"
    assert settings.mqtt.protocol == "3.1.1"
    assert settings.mqtt.keepalive_s == 30


def test_every_value_knows_where_it_came_from(toml: WriteToml, monkeypatch: pytest.MonkeyPatch) -> None:
    """The origin of a value is its file with the line, its variable, or the command line; defaults have none."""
    config = toml('[mqtt]\n\nhost = "broker"\ntls.enabled = true\n')
    monkeypatch.setenv("EDGESCRIBE_ENGINE__THREADS", "2")
    loaded = load(config, {"log.level": "debug"})
    assert {".".join(path): str(origin) for path, origin in loaded.origins.items()} == {
        "mqtt.host": f"{config}:3",
        "mqtt.tls.enabled": f"{config}:4",
        "engine.threads": "EDGESCRIBE_ENGINE__THREADS",
        "log.level": "command line",
    }


def test_the_environment_refines_the_kind_that_the_file_chose(toml: WriteToml, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable for one key of a section with kinds leaves the kind and its other keys alone."""
    config = toml('[engine]\nkind = "faster_whisper"\nmodel = "base-ct2"\nbeam_size = 3\n')
    monkeypatch.setenv("EDGESCRIBE_ENGINE__THREADS", "2")
    engine = load_settings(config).engine
    assert engine == FasterWhisperSettings(model="base-ct2", beam_size=3, threads=2)


def test_a_changed_kind_drops_what_was_said_for_the_old_one(toml: WriteToml) -> None:
    """Keys that both kinds inherit survive; a model or a beam size, which mean something else or nothing, do not."""
    config = toml(
        '[engine]\nkind = "faster_whisper"\nmodel = "base-ct2"\nbeam_size = 3\nthreads = 2\nlanguage = "de"\n'
        '[source]\ndevice = "plughw:CARD=Mic"\n'
    )
    settings = load_settings(config, {"engine.kind": "whisper_cpp", "source.kind": "wav", "source.path": "a.wav"})
    assert settings.engine == WhisperCppSettings(threads=2, language="de")
    assert settings.source == WavSettings(path=Path("a.wav"))


def test_a_layer_may_change_the_kind_and_set_its_keys_at_once(toml: WriteToml) -> None:
    """What stands beside the new kind in the same layer belongs to the new kind."""
    config = toml('[engine]\nkind = "faster_whisper"\nmodel = "base-ct2"\n')
    overrides = {"engine.kind": "whisper_cpp", "engine.model": "base-q8_0"}
    assert load_settings(config, overrides).engine == WhisperCppSettings(model="base-q8_0")


def test_repeating_the_kind_drops_nothing(toml: WriteToml) -> None:
    """Only a change of kind drops keys."""
    config = toml('[engine]\nkind = "faster_whisper"\nbeam_size = 3\n')
    assert load_settings(config, {"engine.kind": "faster_whisper"}).engine == FasterWhisperSettings(beam_size=3)


def test_the_file_named_by_the_environment_is_read(toml: WriteToml, monkeypatch: pytest.MonkeyPatch) -> None:
    """EDGESCRIBE_CONFIG names a file, and is not itself taken for a misspelt setting."""
    config = toml('[device]\nname = "kitchen"\n')
    monkeypatch.setenv("EDGESCRIBE_CONFIG", str(config))
    assert load_settings().device.name == "kitchen"


def test_the_default_file_and_its_conf_d_are_read() -> None:
    """Without a word, /etc/edgescribe is used; conf.d counts even if there is no config.toml beside it."""
    folder = layers.DEFAULT_FILE.parent / "conf.d"
    folder.mkdir(parents=True)
    (folder / "site.toml").write_text('[device]\nname = "attic"\n', encoding="utf-8")
    assert load_settings().device.name == "attic"
    layers.DEFAULT_FILE.write_text('[mqtt]\nhost = "broker"\n', encoding="utf-8")
    settings = load_settings()
    assert (settings.device.name, settings.mqtt.host) == ("attic", "broker")


@pytest.mark.parametrize("name", ["mqtt__password", "mqtt-password"])
def test_a_credential_may_be_spelt_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """`mqtt__password` as in the environment, `mqtt-password` as in the unit; the newline at its end is no part."""
    (tmp_path / name).write_text("geheim\n", encoding="utf-8")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    password = load_settings().mqtt.password
    assert password is not None
    assert password.get_secret_value() == "geheim"


def test_an_empty_credential_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The unit's default for an operator who gave no password must not become the password ""."""
    (tmp_path / "mqtt-password").touch()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert load_settings().mqtt.password is None


def test_lists_and_tables_are_json_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list or a whole section may be given as JSON; what is not JSON is named, not ignored."""
    monkeypatch.setenv("EDGESCRIBE_ENGINE", '{"kind": "scripted", "delay_s": 1}')
    monkeypatch.setenv("EDGESCRIBE_ENGINE__TEXTS", '["one", "two"]')
    assert load_settings().engine == ScriptedSettings(texts=("one", "two"), delay_s=1)
    monkeypatch.setenv("EDGESCRIBE_ENGINE__TEXTS", "one")
    assert problems()[0].startswith("EDGESCRIBE_ENGINE")


def test_the_password_stands_beside_the_configuration_or_above_it(
    toml: WriteToml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file beside the configuration has it; the environment goes before."""
    config = toml('[mqtt]\nusername = "x"\n')
    assert load_settings(config).mqtt.username_for("pi-1") == "x"
    (config.parent / "mqtt-password").write_text("hunter2\n")
    assert load_settings(config).mqtt.password == SecretStr("hunter2")
    monkeypatch.setenv("EDGESCRIBE_MQTT__PASSWORD", "other")
    assert load_settings(config).mqtt.password == SecretStr("other")


def test_a_password_that_this_user_may_not_read_is_the_services(toml: WriteToml) -> None:
    """Everybody can use the settings of the service; its password stays with it."""
    config = toml('[mqtt]\nusername = "x"\n')
    (config.parent / "mqtt-password").mkdir()  # cannot be read by anybody, root included
    assert load_settings(config).mqtt.password is None


def test_the_service_takes_its_password_from_its_credentials_only(
    toml: WriteToml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a folder of credentials, nothing beside the configuration file is read."""
    config = toml("")
    (config.parent / "mqtt-password").write_text("hunter2\n")
    folder = tmp_path / "credentials"
    folder.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    assert load_settings(config).mqtt.password is None


def test_overrides_are_split_at_the_first_equals_sign() -> None:
    """`--set` takes text as it is, and lists as JSON."""
    assert parse_override("mqtt.host=a=b") == ("mqtt.host", "a=b")
    assert parse_override('engine.texts=["a", "b"]') == ("engine.texts", ["a", "b"])


def test_the_state_folder_is_systemds_or_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The setting wins over $STATE_DIRECTORY, which wins over $XDG_DATA_HOME, which wins over the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert state_dir(Settings()) == tmp_path / ".local" / "share" / "edgescribe"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert state_dir(Settings()) == tmp_path / "data" / "edgescribe"
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/edgescribe:/var/lib/other")
    assert state_dir(Settings()) == Path("/var/lib/edgescribe")
    assert models_dir(Settings()) == Path("/var/lib/edgescribe/models")
    assert state_dir(Settings(state_dir=Path("~/state"))) == tmp_path / "state"


def test_a_byte_order_mark_is_no_part_of_what_people_write(
    toml: WriteToml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows editors put one in front of UTF-8 files: the settings, their drop-ins and the passwords."""
    config = toml('\ufeff[mqtt]\nhost = "file"\n')
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "10.toml").write_text("\ufeffmqtt.port = 1885\n", encoding="utf-8")
    (tmp_path / "mqtt-password").write_text("\ufeffbeside\r\n", encoding="utf-8")
    mqtt = load_settings(config).mqtt
    assert (mqtt.host, mqtt.port, mqtt.password) == ("file", 1885, SecretStr("beside"))
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "mqtt__password").write_text("\ufeffcredential\n", encoding="utf-8")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    assert load_settings(config).mqtt.password == SecretStr("credential")
