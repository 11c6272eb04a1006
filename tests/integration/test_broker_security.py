"""The broker's configuration that we ship, as it is: who gets in, who hears whom, and what a device says about it."""

import json
import logging
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.config import MqttSettings
from agent.sinks.mqtt_tls import tls_context
from tests.integration.conftest import OpenSink
from tests.integration.mosquitto import program
from tests.integration.receiver import LIMIT_S, eventually
from tests.integration.shipped_broker import PASSWORD, SHIPPED, ShippedBroker
from tests.messages import info, transcript

pytestmark = pytest.mark.mosquitto


@pytest.fixture(autouse=True)
def _log_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ShippedBroker]:
    """A running mosquitto with the shipped files; killed at the end."""
    running = ShippedBroker(tmp_path)
    running.start()
    yield running
    running.kill()


class Somebody:
    """A plain MQTT client that may try whatever it wants."""

    def __init__(self, name: str, settings: MqttSettings, port: int | None = None) -> None:
        self.heard: list[tuple[str, str]] = []
        self._answered = threading.Event()
        self._code = -1
        self._client = Client(CallbackAPIVersion.VERSION2, name, protocol=MQTTProtocolVersion.MQTTv5)
        if settings.password:
            self._client.username_pw_set(settings.username, settings.password.get_secret_value())
        self._client.tls_set_context(tls_context(settings.tls))
        self._client.on_connect = lambda _client, _data, _flags, reason, _properties: self._answer(reason.value)
        self._client.on_subscribe = lambda *_: self._answered.set()
        self._client.on_publish = lambda _client, _data, _mid, reason, _properties: self._answer(reason.value)
        self._client.on_message = lambda _client, _data, message: self.heard.append(
            (message.topic, message.payload.decode())
        )
        self._client.connect(settings.host, port or settings.effective_port)
        self._client.loop_start()
        assert self._await() == 0

    def _answer(self, code: int) -> None:
        self._code = code
        self._answered.set()

    def _await(self) -> int:
        assert self._answered.wait(LIMIT_S), "the broker did not answer"
        self._answered.clear()
        return self._code

    def listen(self, topic: str) -> "Somebody":
        """Subscribe; mosquitto accepts every subscription, and delivers only what may be read."""
        self._client.subscribe(topic, options=SubscribeOptions(qos=1))
        self._await()
        return self

    def may_write(self, topic: str, payload: str = "{}") -> bool:
        """Whether the broker takes a message."""
        self._client.publish(topic, payload, qos=1)
        return self._await() == 0

    def topics(self) -> set[str]:
        """What has been heard so far."""
        return {topic for topic, _ in self.heard}

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()


Invite = Callable[..., Somebody]


@pytest.fixture
def invite(broker: ShippedBroker) -> Iterator[Invite]:
    """Somebody at the broker: a device by its certificate, or by a password if `user` is given."""
    guests: list[Somebody] = []

    def invite_one(name: str, *, user: bool = False) -> Somebody:
        settings = broker.device("bystander" if user else name)
        if user:
            tls = {"enabled": True, "ca_file": settings.tls.ca_file}
            changes: dict[str, Any] = {"username": name, "password": PASSWORD, "port": broker.password_port, "tls": tls}
            settings = MqttSettings.model_validate({"host": settings.host, **changes})
        guests.append(Somebody(name, settings))
        return guests[-1]

    yield invite_one
    for guest in guests:
        guest.close()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged as a warning or worse."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("user", [False, True], ids=["certificate", "password"])
def test_a_device_hears_and_says_only_what_is_its_own(invite: Invite, user: bool) -> None:  # noqa: FBT001 - a parameter
    """No speech, state or commands of others; none of their topics or discovery. By certificate or by password."""
    name = "pi-3" if user else "pi-1"
    curious = invite(name, user=user).listen("#").listen("edgescribe/v1/pi-2/#").listen("edgescribe/v1/+/transcript")
    victim, operator = invite("pi-2"), invite("operator", user=True)

    assert victim.may_write("edgescribe/v1/pi-2/transcript")
    assert victim.may_write("edgescribe/v1/pi-2/transcript/backlog")
    assert victim.may_write("edgescribe/v1/_reply/somebody")
    assert operator.may_write("edgescribe/v1/pi-2/cmd/mute")
    assert operator.may_write(f"edgescribe/v1/{name}/cmd/mute")
    assert operator.may_write("edgescribe/v1/_group/upstairs/cmd/mute")

    for topic in (
        "edgescribe/v1/pi-2/transcript",
        "edgescribe/v1/pi-2/status",
        "edgescribe/v1/pi-2/cmd/mute",
        "edgescribe/v1/_group/upstairs/cmd/mute",
        "homeassistant/device/pi-2/config",
        "homeassistant/sensor/pi-2/cpu/config",
        "homeassistant/status",
        "$SYS/broker/uptime",
        "elsewhere",
    ):
        assert not curious.may_write(topic), topic
    for topic in (
        f"edgescribe/v1/{name}/transcript",
        f"edgescribe/v1/{name}/transcript/backlog",
        "edgescribe/v1/_reply/somebody",
        f"homeassistant/device/{name}/config",
        f"homeassistant/sensor/{name}/cpu/config",
    ):
        assert curious.may_write(topic), topic

    own = {f"edgescribe/v1/{name}/{kind}" for kind in ("transcript", "transcript/backlog", "cmd/mute")}
    assert eventually(lambda: own | {"edgescribe/v1/_group/upstairs/cmd/mute"} <= curious.topics())
    assert curious.topics() == own | {"edgescribe/v1/_group/upstairs/cmd/mute"}


def test_readers_hear_the_fleet_and_may_do_what_their_part_is(invite: Invite) -> None:
    """Home Assistant commands devices, an operator groups too, an archive only reads; nobody speaks for a device."""
    readers = {name: invite(name, user=True).listen("#") for name in ("homeassistant", "archive", "operator")}
    device = invite("pi-1")
    for topic in ("edgescribe/v1/pi-1/transcript", "edgescribe/v1/pi-1/transcript/backlog", "edgescribe/v1/pi-1/reply"):
        assert device.may_write(topic)
    assert device.may_write("homeassistant/device/pi-1/config")
    may = {
        name: [
            topic
            for topic in (
                "edgescribe/v1/pi-1/cmd/mute",
                "edgescribe/v1/_group/all/cmd/mute",
                "homeassistant/status",
                "edgescribe/v1/pi-1/transcript",
            )
            if reader.may_write(topic)
        ]
        for name, reader in readers.items()
    }
    assert may == {
        "homeassistant": ["edgescribe/v1/pi-1/cmd/mute", "homeassistant/status"],
        "archive": [],
        "operator": ["edgescribe/v1/pi-1/cmd/mute", "edgescribe/v1/_group/all/cmd/mute"],
    }
    for reader in readers.values():
        assert eventually(
            lambda: {"edgescribe/v1/pi-1/transcript", "edgescribe/v1/pi-1/transcript/backlog"} <= reader.topics()  # noqa: B023 - called at once
        )
    assert eventually(lambda: "homeassistant/device/pi-1/config" in readers["homeassistant"].topics())
    assert "homeassistant/device/pi-1/config" not in readers["archive"].topics() | readers["operator"].topics()


def test_the_agent_gets_in_with_its_certificate_and_delivers(
    broker: ShippedBroker, invite: Invite, open_sink: OpenSink, caplog: pytest.LogCaptureFixture
) -> None:
    """The whole way: script, configuration, access control list, sink. Nothing is refused, TLS is 1.2 or newer."""
    archive = invite("archive", user=True).listen("edgescribe/#")
    sink = open_sink(broker.device("pi-1"))
    sink.send(info())
    sink.send(transcript(1))
    assert eventually(lambda: {"edgescribe/v1/pi-1/transcript", "edgescribe/v1/pi-1/info"} <= archive.topics())
    assert [json.loads(text)["seq"] for topic, text in archive.heard if topic.endswith("transcript")] == [1]
    assert warnings(caplog) == []
    assert "Denied PUBLISH" not in broker.log()


@pytest.mark.parametrize("options", [("-tls1_1",), ("-tls1",)])
def test_old_tls_is_refused(broker: ShippedBroker, options: tuple[str, ...]) -> None:
    """The broker shakes no hand below TLS 1.2."""
    address = ["-connect", f"localhost:{broker.password_port}", "-cipher", "ALL:@SECLEVEL=0"]
    command = [program("openssl"), "s_client", *options, *address]
    done = subprocess.run(command, input=b"", capture_output=True, check=False, timeout=LIMIT_S)
    assert b"Cipher is (NONE)" in done.stdout
    assert b"alert protocol version" in done.stderr


@pytest.mark.parametrize("fault", ["none", "foreign", "expired", "revoked", "broker's"])
def test_a_device_without_a_good_certificate_is_refused_and_says_so(
    broker: ShippedBroker, open_sink: OpenSink, tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    """Missing, of another authority, out of date, revoked, made for another purpose: one line that names the files."""
    settings = _faulty(broker, tmp_path, fault)
    sink = open_sink(settings)
    sink.send(transcript(1))
    assert eventually(lambda: bool(warnings(caplog)))
    (line,) = warnings(caplog)
    assert f"localhost:{broker.port} does not take this device's certificate" in line
    assert "check mqtt.tls.cert_file and key_file" in line
    assert "trying again in" in line
    assert {"expired": "expired", "revoked": "revoked"}.get(fault, "") in line
    assert not sink.connected
    assert sink.stats.outbox_n == 1


def _faulty(broker: ShippedBroker, folder: Path, fault: str) -> MqttSettings:
    good = broker.device("pi-1")
    tls: dict[str, object] = good.tls.model_dump()
    match fault:
        case "none":
            tls |= {"cert_file": None, "key_file": None}
        case "foreign":
            foreign = folder / "foreign"
            script = str(SHIPPED / "make-certificates")
            for arguments in (("ca",), ("device", "pi-1")):
                subprocess.run([script, str(foreign), *arguments], check=True, capture_output=True)
            tls |= {"cert_file": foreign / "pi-1.crt", "key_file": foreign / "pi-1.key"}
        case "expired":
            _let_expire(broker.certificates, "pi-1")
        case "revoked":
            broker.make_certificates("revoke", "pi-1")
            broker.kill()
            broker.start()
        case _:
            tls |= {"cert_file": broker.certificates / "broker.crt", "key_file": broker.certificates / "broker.key"}
    return MqttSettings.model_validate({**good.model_dump(exclude={"tls"}), "tls": tls})


def _let_expire(folder: Path, device_id: str) -> None:
    """Sign the device's key anew, by the same authority, until yesterday."""
    key, request = ["-key", str(folder / f"{device_id}.key")], str(folder / "request")
    authority = ["-CA", str(folder / "ca.crt"), "-CAkey", str(folder / "ca.key"), "-set_serial", "1"]
    out = str(folder / f"{device_id}.crt")
    for arguments in (
        ["req", "-new", *key, "-subj", f"/CN={device_id}", "-out", request],
        ["x509", "-req", "-in", request, *authority, "-days", "-1", "-out", out],
    ):
        subprocess.run([program("openssl"), *arguments], check=True, capture_output=True)


def test_a_device_cannot_pass_for_the_broker(
    broker: ShippedBroker, open_sink: OpenSink, caplog: pytest.LogCaptureFixture
) -> None:
    """A stolen device key answers nobody: its certificate is for clients only."""
    settings = broker.device("pi-1")
    broker.kill()
    for kind in ("crt", "key"):
        shutil.copy(broker.certificates / f"pi-1.{kind}", broker.certificates / f"broker.{kind}")
    broker.start()
    sink = open_sink(settings)
    assert eventually(lambda: bool(warnings(caplog)))
    assert f"cannot trust the broker at localhost:{broker.port}" in warnings(caplog)[0]
    assert not sink.connected


def test_a_renewed_certificate_is_used_without_a_restart(
    broker: ShippedBroker, open_sink: OpenSink, caplog: pytest.LogCaptureFixture
) -> None:
    """Certificate and key are read at every connection: the old one is revoked, the device goes on with the new."""
    sink = open_sink(broker.device("pi-1"))
    assert eventually(lambda: sink.connected)
    broker.make_certificates("revoke", "pi-1")
    broker.make_certificates("device", "pi-1")
    broker.kill()
    assert eventually(lambda: not sink.connected)
    broker.start()
    sink.send(transcript(1))
    assert eventually(lambda: sink.connected and sink.stats.outbox_n == 0)
    assert "revoked" not in caplog.text


def test_half_a_renewal_is_waited_out(
    broker: ShippedBroker, open_sink: OpenSink, caplog: pytest.LogCaptureFixture
) -> None:
    """A key that does not fit (yet) is said in one line about the files, and tried again within moments."""
    settings = broker.device("pi-1")
    sink = open_sink(settings)
    assert eventually(lambda: sink.connected)
    key, kept = broker.certificates / "pi-1.key", broker.certificates / "kept.key"
    key.rename(kept)
    broker.make_certificates("device", "pi-2")
    shutil.copy(broker.certificates / "pi-2.key", key)
    broker.kill()
    broker.start()
    assert eventually(lambda: any("the key must fit the certificate" in line for line in warnings(caplog)))
    assert not any("cannot trust" in line for line in warnings(caplog))
    kept.replace(key)
    sink.send(transcript(1))
    assert eventually(lambda: sink.connected and sink.stats.outbox_n == 0)


@pytest.mark.parametrize("name", ["_group", "+", "#", "Küche", "a/b", "operator", "x" * 37])
def test_the_script_makes_no_device_whose_name_means_something_else(tmp_path: Path, name: str) -> None:
    """A certificate called `_group` or `operator` would have another's rights in the access control list."""
    script = str(SHIPPED / "make-certificates")
    subprocess.run([script, str(tmp_path), "ca"], check=True, capture_output=True)
    done = subprocess.run([script, str(tmp_path), "device", name], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert name in done.stderr
    assert not list(tmp_path.glob("*/*.pem"))


def test_the_script_keeps_keys_to_their_owner_and_never_replaces_the_authority(tmp_path: Path) -> None:
    """Keys are for their owner only; a second authority would disown every device."""
    script = str(SHIPPED / "make-certificates")
    for arguments in (("ca",), ("device", "pi-1")):
        subprocess.run([script, str(tmp_path), *arguments], check=True, capture_output=True)
    assert {path.stat().st_mode & 0o077 for path in tmp_path.glob("*.key")} == {0}
    authority = (tmp_path / "ca.crt").read_bytes()
    again = subprocess.run([script, str(tmp_path), "ca"], capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "exists already" in again.stderr
    assert (tmp_path / "ca.crt").read_bytes() == authority
