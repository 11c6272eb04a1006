"""`service install` asks a real broker."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.config.settings import MqttSettings
from agent.errors import SinkError
from agent.install.broker import ask
from tests.support.mosquitto import Authority, Mosquitto, free_port, program

pytestmark = pytest.mark.mosquitto
PASSWORD = "s3cret"

Start = Callable[..., Mosquitto]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a broker with these lines of configuration."""
    running: list[Mosquitto] = []

    def begin(*lines: str) -> Mosquitto:
        running.append(Mosquitto(tmp_path, *lines))
        running[-1].start()
        return running[-1]

    yield begin
    for broker in running:
        broker.kill()


def answer(port: int, **changes: object) -> str:
    """Why the broker is out of reach of a device called kitchen; empty if it accepts it."""
    return ask(MqttSettings.model_validate({"host": "localhost", "port": port, **changes}), "kitchen")


def test_an_open_broker_lets_us_in(start: Start) -> None:
    """Without an error."""
    assert answer(start("allow_anonymous true").port) == ""


def test_a_broker_with_passwords_tells_right_from_wrong(start: Start, tmp_path: Path) -> None:
    """The name is the device's id if none is given; a wrong password, or none, is a refusal and not an outage."""
    passwords = tmp_path / "passwords"
    passwords.touch(mode=0o600)
    subprocess.run([program("mosquitto_passwd"), "-b", str(passwords), "kitchen", PASSWORD], check=True)
    port = start("allow_anonymous false", f"password_file {passwords}").port
    assert answer(port, password=PASSWORD) == ""
    assert answer(port, username="kitchen", password=PASSWORD) == ""
    for wrong in ({}, {"password": "other"}, {"username": "hall", "password": PASSWORD}):
        with pytest.raises(SinkError, match=r"(?i)authori"):
            answer(port, **wrong)


def test_a_broker_that_wants_tls_is_told_from_one_that_is_away(start: Start, tmp_path: Path) -> None:
    """Plain text to TLS, an unknown authority, and the right one."""
    authority = Authority(tmp_path)
    cert_file, key_file = authority.issue("broker")
    port = start("allow_anonymous true", f"certfile {cert_file}", f"keyfile {key_file}").port
    for wrong in ({}, {"tls": {"enabled": True}}):
        with pytest.raises(SinkError):
            answer(port, **wrong)
    assert answer(port, tls={"enabled": True, "ca_file": authority.cert_file}) == ""


def test_nobody_there_is_an_outage(start: Start) -> None:
    """The service may be installed before the broker is."""
    del start
    assert answer(free_port()) == "connection refused"
