"""TLS, certificates and passwords, against a real mosquitto: what is let in, and what is said when it is not."""

import logging
import socket
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from agent.config.settings import MqttSettings, TlsSettings
from agent.errors import ConfigError
from tests.integration.conftest import OpenSink
from tests.messages import info, transcript
from tests.support.mosquitto import Authority, StartMosquitto, free_port, program
from tests.support.receiver import Receiver, eventually

pytestmark = pytest.mark.mosquitto


@pytest.fixture(autouse=True)
def _log_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Signs the broker's certificate, and the devices' where they have one."""
    return Authority(tmp_path)


def with_passwords(folder: Path) -> tuple[str, ...]:
    """Configuration of a broker that knows `pi-1` with the password `s3cret`, and `reader`."""
    passwords = folder / "passwords"
    passwords.touch(mode=0o600)
    for user in ("pi-1", "reader"):
        subprocess.run([program("mosquitto_passwd"), "-b", str(passwords), user, "s3cret"], check=True)
    return "allow_anonymous false", f"password_file {passwords}"


def with_tls(
    authority: Authority, name: str = "broker", *lines: str, days: int = 2, starts_in_days: int = -3
) -> tuple[str, ...]:
    """Configuration of a broker whose certificate names `localhost`."""
    cert_file, key_file = authority.issue(name, days=days, starts_in_days=starts_in_days)
    return f"certfile {cert_file}", f"keyfile {key_file}", "allow_anonymous true", *lines


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged as a warning or worse."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_user_name_is_the_device_id(start_mosquitto: StartMosquitto, open_sink: OpenSink, tmp_path: Path) -> None:
    """With a password alone, the device logs in under its id."""
    broker = start_mosquitto(*with_passwords(tmp_path))
    with Receiver(broker.port, user="reader", password="s3cret") as receiver:
        open_sink(MqttSettings(port=broker.port, password=SecretStr("s3cret"))).send(transcript(1))
        assert eventually(lambda: len(receiver.of("transcript")) == 1)


@pytest.mark.parametrize("protocol", ["auto", "3.1.1"])
def test_a_wrong_password_is_said_once_and_not_insisted_on(
    start_mosquitto: StartMosquitto,
    open_sink: OpenSink,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    protocol: str,
) -> None:
    """One line with user and remedy, no password in it, one attempt (the next comes in a minute at the earliest)."""
    broker = start_mosquitto(*with_passwords(tmp_path))
    settings = MqttSettings.model_validate({"port": broker.port, "password": "wr0ng", "protocol": protocol})
    sink = open_sink(settings)
    sink.send(transcript(1))
    assert eventually(lambda: bool(warnings(caplog)))
    time.sleep(1.0)
    (line,) = warnings(caplog)
    assert f"localhost:{broker.port} refuses the user 'pi-1'" in line
    assert "trying again in" in line
    assert "wr0ng" not in caplog.text
    assert broker.log().count("not authorised") == 1
    assert sink.stats.outbox_n == 1


def test_a_missing_password_is_said(
    start_mosquitto: StartMosquitto, open_sink: OpenSink, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who has set none is told to."""
    broker = start_mosquitto(*with_passwords(tmp_path))
    open_sink(MqttSettings(port=broker.port))
    assert eventually(lambda: bool(warnings(caplog)))
    assert "refuses clients without a password" in warnings(caplog)[0]
    assert "set mqtt.password" in warnings(caplog)[0]


def test_a_topic_that_is_forbidden_is_said_once_and_does_not_block_the_rest(
    start_mosquitto: StartMosquitto, open_sink: OpenSink, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Refused transcripts are kept and told of, not repeated for ever, and everything else goes its way."""
    rules = tmp_path / "acl"
    rules.write_text("topic readwrite edgescribe/v1/pi-1/info\ntopic readwrite edgescribe/v1/pi-1/status\n")
    rules.chmod(0o600)
    broker = start_mosquitto("allow_anonymous true", f"acl_file {rules}")
    sink = open_sink(MqttSettings(port=broker.port))
    sink.send(transcript(1))
    sink.send(transcript(2))
    sink.send(info())
    assert eventually(lambda: bool(warnings(caplog)))
    assert eventually(lambda: "edgescribe/v1/pi-1/info" in broker.log())
    time.sleep(0.5)
    assert broker.log().count("edgescribe/v1/pi-1/transcript'") == 2
    (line,) = warnings(caplog)
    assert "does not take edgescribe/v1/pi-1/transcript (Not authorized)" in line


def test_tls_works_with_the_authority_named(
    start_mosquitto: StartMosquitto, open_sink: OpenSink, authority: Authority
) -> None:
    """Encrypted, verified, delivered."""
    broker = start_mosquitto(*with_tls(authority))
    settings = MqttSettings(port=broker.port, tls=TlsSettings(enabled=True, ca_file=authority.cert_file))
    with Receiver(broker.port, tls=authority.context()) as receiver:
        sink = open_sink(settings)
        for seq in range(50):
            sink.send(transcript(seq, "word " * 1_000))
        assert eventually(lambda: len(receiver.of("transcript")) == 50)


@pytest.mark.parametrize(
    ("certificate", "host", "reason"),
    [
        ("unknown", "localhost", "unable to get local issuer certificate"),
        ("good", "localhost.localdomain", "Hostname mismatch"),
    ],
)
def test_a_broker_that_cannot_be_verified_gets_nothing(
    start_mosquitto: StartMosquitto,
    open_sink: OpenSink,
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    certificate: str,
    host: str,
    reason: str,
) -> None:
    """Unknown authority, wrong name: refused for good, with the reason, and no fall-back to anything less."""
    signer = Authority(tmp_path, "other") if certificate == "unknown" else authority
    broker = start_mosquitto(*with_tls(signer))
    monkeypatch.setattr("socket.getaddrinfo", _everything_is_loopback)
    tls = TlsSettings(enabled=True, ca_file=authority.cert_file)
    sink = open_sink(MqttSettings(host=host, port=broker.port, tls=tls, password=SecretStr("s3cret")))
    sink.send(transcript(1))
    assert eventually(lambda: bool(warnings(caplog)))
    time.sleep(1.0)
    (line,) = warnings(caplog)
    assert f"cannot trust the broker at {host}:{broker.port}" in line
    assert reason in line
    assert "mqtt.tls.ca_file" in line
    assert not sink.connected
    assert sink.stats.outbox_n == 1
    assert "CONNECT" not in broker.log()


@pytest.mark.parametrize(
    ("starts_in_days", "days", "reason"),
    [
        (300, 301, "certificate is not yet valid"),
        (-3, -1, "certificate has expired"),
    ],
)
def test_a_certificate_of_another_time_is_explained_with_the_clock(
    start_mosquitto: StartMosquitto,
    open_sink: OpenSink,
    authority: Authority,
    caplog: pytest.LogCaptureFixture,
    starts_in_days: int,
    days: int,
    reason: str,
) -> None:
    """A board without a clock of its own may be years behind: the line has its time, and blames no authority."""
    broker = start_mosquitto(*with_tls(authority, starts_in_days=starts_in_days, days=days))
    tls = TlsSettings(enabled=True, ca_file=authority.cert_file)
    sink = open_sink(MqttSettings(port=broker.port, tls=tls))
    assert eventually(lambda: bool(warnings(caplog)))
    (line,) = warnings(caplog)
    assert reason in line
    assert f"clock says {datetime.now(UTC):%Y-}" in line
    assert "ca_file" not in line
    assert not sink.connected


def test_a_user_name_without_a_password_is_sent(
    start_mosquitto: StartMosquitto, open_sink: OpenSink, tmp_path: Path
) -> None:
    """Some brokers know their users by name alone; mosquitto does, where it has no password file."""
    rules = tmp_path / "acl"
    rules.write_text("user kitchen\ntopic readwrite edgescribe/#\n")
    rules.chmod(0o600)
    broker = start_mosquitto("allow_anonymous true", f"acl_file {rules}")
    sink = open_sink(MqttSettings(port=broker.port, username="kitchen"))
    sink.send(transcript(1))
    assert eventually(lambda: sink.connected and sink.stats.outbox_n == 0)
    assert "u'kitchen'" in broker.log()


def _everything_is_loopback(_host: object, port: int, *_args: object, **_kwargs: object) -> list[tuple[object, ...]]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


def test_a_device_with_a_certificate_is_let_in(
    start_mosquitto: StartMosquitto, open_sink: OpenSink, authority: Authority
) -> None:
    """Mutual TLS: the certificate's name is the user name."""
    broker = start_mosquitto(
        *with_tls(
            authority,
            "broker",
            f"cafile {authority.cert_file}",
            "require_certificate true",
            "use_identity_as_username true",
        )
    )
    cert_file, key_file = authority.issue("pi-1")
    tls = TlsSettings(enabled=True, ca_file=authority.cert_file, cert_file=cert_file, key_file=key_file)
    sink = open_sink(MqttSettings(port=broker.port, tls=tls))
    sink.send(transcript(1))
    assert eventually(lambda: sink.connected and sink.stats.outbox_n == 0)
    assert "u'pi-1'" in broker.log()


@pytest.mark.parametrize("certificate", ["none", "foreign", "expired"])
def test_a_device_without_a_good_certificate_is_told_so(
    start_mosquitto: StartMosquitto,
    open_sink: OpenSink,
    authority: Authority,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    certificate: str,
) -> None:
    """The broker's alert becomes a line about our certificate, and a patient back-off."""
    broker = start_mosquitto(
        *with_tls(authority, "broker", f"cafile {authority.cert_file}", "require_certificate true")
    )
    files: dict[str, Path] = {}
    if certificate != "none":
        signer = Authority(tmp_path, "other") if certificate == "foreign" else authority
        files["cert_file"], files["key_file"] = signer.issue("pi-1", days=-1 if certificate == "expired" else 2)
    tls = TlsSettings.model_validate({"enabled": True, "ca_file": authority.cert_file, **files})
    sink = open_sink(MqttSettings(port=broker.port, tls=tls))
    assert eventually(lambda: bool(warnings(caplog)))
    (line,) = warnings(caplog)
    assert "does not take this device's certificate" in line
    assert "mqtt.tls.cert_file" in line
    assert "trying again in" in line
    assert not sink.connected


def test_a_plain_port_is_not_talked_to_with_tls(
    start_mosquitto: StartMosquitto, open_sink: OpenSink, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """TLS that is asked for is never given up: the sink says that the other end does not speak it."""
    broker = start_mosquitto()
    sink = open_sink(MqttSettings(port=broker.port, tls=TlsSettings(enabled=True, ca_file=authority.cert_file)))
    assert eventually(lambda: bool(warnings(caplog)))
    time.sleep(1.0)
    (line,) = warnings(caplog)
    assert "does not speak TLS" in line
    assert not sink.connected


def test_a_tls_port_is_recognised_from_a_plain_one(
    start_mosquitto: StartMosquitto, open_sink: OpenSink, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """Who forgot to switch TLS on is pointed to it."""
    broker = start_mosquitto(*with_tls(authority))
    open_sink(MqttSettings(port=broker.port))
    assert eventually(lambda: bool(warnings(caplog)))
    assert "mqtt.tls.enabled" in warnings(caplog)[0]


def test_a_certificate_file_that_is_missing_is_an_error_at_once(open_sink: OpenSink, tmp_path: Path) -> None:
    """The wrong path is named before anything else happens."""
    absent = tmp_path / "absent.pem"
    with pytest.raises(ConfigError, match=r"mqtt\.tls: cannot use .*absent\.pem \(No such file or directory\)"):
        open_sink(MqttSettings(port=free_port(), tls=TlsSettings(enabled=True, ca_file=absent)))


def test_a_file_that_is_no_certificate_is_an_error_at_once(open_sink: OpenSink, tmp_path: Path) -> None:
    """A text file with the right name helps nobody."""
    nonsense = tmp_path / "ca.pem"
    nonsense.write_text("not a certificate")
    with pytest.raises(ConfigError, match=r"mqtt\.tls: cannot use .*ca\.pem"):
        open_sink(MqttSettings(port=free_port(), tls=TlsSettings(enabled=True, ca_file=nonsense)))
