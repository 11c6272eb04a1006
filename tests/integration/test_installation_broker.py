"""What a real broker answers to whoever wants to install."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.config.settings import MqttSettings
from agent.install.broker import Answer, ask
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


def answer(port: int, **changes: object) -> Answer:
    """What the broker says to a device called kitchen."""
    return ask(MqttSettings.model_validate({"host": "localhost", "port": port, **changes}), "kitchen")


def test_an_open_broker_lets_us_in(start: Start) -> None:
    """Welcome, and no more to say."""
    assert answer(start("allow_anonymous true").port) == Answer(welcome=True, reason="")


def test_a_broker_with_passwords_tells_right_from_wrong(start: Start, tmp_path: Path) -> None:
    """The name is the device's id if none is given; a wrong password, or none, is a refusal and not an outage."""
    passwords = tmp_path / "passwords"
    passwords.touch(mode=0o600)
    subprocess.run([program("mosquitto_passwd"), "-b", str(passwords), "kitchen", PASSWORD], check=True)
    port = start("allow_anonymous false", f"password_file {passwords}").port
    assert answer(port, password=PASSWORD).welcome
    assert answer(port, username="kitchen", password=PASSWORD).welcome
    for wrong in ({}, {"password": "other"}, {"username": "hall", "password": PASSWORD}):
        refusal = answer(port, **wrong)
        assert (refusal.welcome, refusal.refused) == (False, True)
        assert "authori" in refusal.reason.lower()


def test_a_broker_that_wants_tls_is_told_from_one_that_is_away(start: Start, tmp_path: Path) -> None:
    """Plain text to TLS, an unknown authority, and the right one."""
    authority = Authority(tmp_path)
    cert_file, key_file = authority.issue("broker")
    port = start("allow_anonymous true", f"certfile {cert_file}", f"keyfile {key_file}").port
    assert answer(port).refused
    assert answer(port, tls={"enabled": True}).refused
    assert answer(port, tls={"enabled": True, "ca_file": authority.cert_file}).welcome


def test_nobody_there_is_an_outage(start: Start) -> None:
    """The service may be installed before the broker is."""
    del start
    away = answer(free_port())
    assert (away.welcome, away.refused, away.reason) == (False, False, "connection refused")
