"""The broker's configuration that we ship, as it is: who gets in, who hears whom, and what a device says about it."""

import json
import logging
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.config import MqttSettings
from tests.clips import silence
from tests.integration.agent_process import AgentProcess, write_wav
from tests.integration.conftest import OpenSink
from tests.integration.mosquitto import await_expiry, program
from tests.integration.receiver import LIMIT_S, eventually
from tests.integration.shipped_broker import PASSWORD, SHIPPED, ShippedBroker
from tests.integration.somebody import Somebody
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
def test_a_device_hears_and_says_only_what_is_its_own(
    broker: ShippedBroker,
    invite: Invite,
    user: bool,  # noqa: FBT001 - a parameter
) -> None:
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

    assert "Denied PUBLISH" in broker.log(), "other tests rely on these words"
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


@pytest.mark.parametrize("mode", ["device", "component"])
def test_a_whole_agent_needs_no_more_than_it_may(
    broker: ShippedBroker, invite: Invite, tmp_path: Path, mode: str
) -> None:
    """Discovery, state, commands to the device and its group, answers: nothing that an agent does is denied."""
    home, operator = invite("homeassistant", user=True).listen("#"), invite("operator", user=True).listen("#")
    (tmp_path / "agent").mkdir()
    quiet = write_wav(tmp_path / "quiet.wav", silence(300.0))
    mqtt = broker.device("pi-1")
    files = {f"mqtt__tls__{key}": getattr(mqtt.tls, key) for key in ("ca_file", "cert_file", "key_file")}
    link = {"mqtt__host": mqtt.host, "mqtt__port": mqtt.port, "mqtt__tls__enabled": True, **files}
    source = {"source__kind": "wav", "source__path": quiet, "engine__kind": "scripted", "publish__keywords": ["lights"]}
    ours = {"device__id": "pi-1", "commands__groups": ["upstairs"], "discovery__mode": mode, "telemetry__interval_s": 1}
    agent = AgentProcess(tmp_path / "agent", {**link, **source, **ours})
    try:
        assert eventually(lambda: "edgescribe/v1/pi-1/telemetry" in operator.topics(), 60.0), agent.stderr
        assert eventually(lambda: any(topic.startswith("homeassistant/") for topic in home.topics()))
        assert home.may_write("homeassistant/status", "online")
        assert home.may_write("edgescribe/v1/pi-1/cmd/vad_threshold", "0.6")
        assert operator.may_write("edgescribe/v1/_group/upstairs/cmd/identify", answer="edgescribe/v1/_reply/me")
        assert eventually(lambda: "edgescribe/v1/_reply/me" in operator.topics())
        assert eventually(lambda: any("reply" in topic for topic in home.topics()))
        agent.stop()
        assert agent.wait() == 0, agent.stderr
    finally:
        agent.kill()
    assert eventually(lambda: ("edgescribe/v1/pi-1/status", "offline") in operator.heard)
    assert "Denied" not in broker.log()
    assert "does not take" not in agent.stderr


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
    """Sign the device's key anew, by the same authority, until now."""
    key, request = ["-key", str(folder / f"{device_id}.key")], str(folder / "request")
    authority = ["-CA", str(folder / "ca.crt"), "-CAkey", str(folder / "ca.key"), "-set_serial", "1"]
    out = str(folder / f"{device_id}.crt")
    for arguments in (
        ["req", "-new", *key, "-subj", f"/CN={device_id}", "-out", request],
        ["x509", "-req", "-in", request, *authority, "-days", "0", "-out", out],
    ):
        subprocess.run([program("openssl"), *arguments], check=True, capture_output=True)
    await_expiry(Path(out))


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


def test_what_a_renamed_device_may_not_withdraw_is_told_in_one_line(broker: ShippedBroker, tmp_path: Path) -> None:
    """The shipped rules let a device write below its own name only: it says so, and goes on."""
    recording = write_wav(tmp_path / "silence.wav", silence(2.0))
    for name in ("pi-1", "pi-2"):
        mqtt = broker.device(name)
        settings = {
            "device__id": name,
            "state_dir": tmp_path / "state",
            "engine__kind": "scripted",
            "source__kind": "wav",
            "source__path": recording,
            "mqtt__host": mqtt.host,
            "mqtt__port": mqtt.port,
            **{f"mqtt__tls__{key}": value for key, value in mqtt.tls.model_dump(exclude_none=True).items()},
        }
        agent = AgentProcess(tmp_path, settings)
        assert agent.wait() == 0, agent.stderr
    assert agent.stderr.count("WARNING") == 1, agent.stderr
    assert "edgescribe/v1/pi-1/status" in agent.stderr
