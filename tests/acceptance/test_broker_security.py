"""The broker's configuration that we ship, as it is: who gets in, who hears whom, and what a device says about it."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.agent_process import AgentProcess, mqtt_settings, write_wav
from tests.support.clips import clip, silence
from tests.support.mosquitto import await_expiry, program
from tests.support.peer import Peer
from tests.support.receiver import LIMIT_S, eventually
from tests.support.shipped_broker import SHIPPED, ShippedBroker

pytestmark = pytest.mark.mosquitto


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ShippedBroker]:
    """A running mosquitto with the shipped files; killed at the end."""
    running = ShippedBroker(tmp_path)
    running.start()
    yield running
    running.kill()


Invite = Callable[..., Peer]


@pytest.fixture
def invite(broker: ShippedBroker) -> Iterator[Invite]:
    """A client of the broker: a device by its certificate, or by a password if `user` is given."""
    guests: list[Peer] = []

    def invite_one(name: str, *, user: bool = False) -> Peer:
        guests.append(Peer(name, broker.person(name) if user else broker.device(name)))
        return guests[-1]

    yield invite_one
    for guest in guests:
        guest.close()


StartAgent = Callable[[dict[str, Any]], AgentProcess]


@pytest.fixture
def start_agent(tmp_path: Path) -> Iterator[StartAgent]:
    """Starts the agent of the device `pi-1` with settings `mqtt.*`: it hears a word and silence; killed at the end."""
    agents: list[AgentProcess] = []
    pcm = np.concatenate([silence(1.0), clip("en_conf-waitforleader")[:16_000], silence(300.0)])
    recording = write_wav(tmp_path / "word.wav", pcm)

    def start_one(mqtt: dict[str, Any]) -> AgentProcess:
        folder = tmp_path / "agent"
        folder.mkdir()
        source = {"source__kind": "wav", "source__path": recording, "source__pace": "realtime"}
        settings = {"device__id": "pi-1", "engine__kind": "scripted", "mqtt__reconnect_max_s": 1, **source}
        agents.append(AgentProcess(folder, {**settings, **mqtt_settings(mqtt)}))
        return agents[-1]

    yield start_one
    for agent in agents:
        agent.kill()
        assert "Traceback" not in agent.stderr


def warnings(agent: AgentProcess) -> list[str]:
    """What it has logged as a warning or worse."""
    return [line for line in agent.stderr.splitlines() if re.search(r"\b(WARNING|ERROR|CRITICAL)\b", line)]


def connections(agent: AgentProcess) -> int:
    """How often it has connected."""
    return agent.stderr.count("mqtt: connected to")


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
    broker: ShippedBroker, invite: Invite, start_agent: StartAgent
) -> None:
    """The whole way: script, configuration, access control list, agent. Nothing is refused, TLS is 1.2 or newer."""
    archive = invite("archive", user=True).listen("edgescribe/#")
    agent = start_agent(broker.device("pi-1"))
    assert eventually(lambda: {"edgescribe/v1/pi-1/transcript", "edgescribe/v1/pi-1/info"} <= archive.topics())
    assert [json.loads(text)["seq"] for topic, text in archive.heard if topic.endswith("transcript")] == [1]
    assert warnings(agent) == []
    assert "Denied PUBLISH" not in broker.log()


@pytest.mark.parametrize("mode", ["device", "component"])
def test_a_whole_agent_needs_no_more_than_it_may(
    broker: ShippedBroker, invite: Invite, tmp_path: Path, mode: str
) -> None:
    """Discovery, state, commands to the device and its group, answers: nothing that an agent does is denied."""
    home, operator = invite("homeassistant", user=True).listen("#"), invite("operator", user=True).listen("#")
    (tmp_path / "agent").mkdir()
    quiet = write_wav(tmp_path / "quiet.wav", silence(300.0))
    link = mqtt_settings(broker.device("pi-1"))
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
    broker: ShippedBroker, start_agent: StartAgent, tmp_path: Path, fault: str
) -> None:
    """Missing, of another authority, out of date, revoked, made for another purpose: one line that names the files."""
    agent = start_agent(_faulty(broker, tmp_path, fault))
    assert eventually(lambda: bool(warnings(agent)))
    (line,) = warnings(agent)
    assert f"localhost:{broker.port} does not take this device's certificate" in line
    assert "check mqtt.tls.cert_file and key_file" in line
    assert "trying again in" in line
    assert {"expired": "expired", "revoked": "revoked"}.get(fault, "") in line
    assert connections(agent) == 0


def _faulty(broker: ShippedBroker, folder: Path, fault: str) -> dict[str, Any]:
    good = broker.device("pi-1")
    tls = dict(good["tls"])
    match fault:
        case "none":
            tls = {"ca_file": tls["ca_file"]}
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
    return {**good, "tls": tls}


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


def test_a_device_cannot_pass_for_the_broker(broker: ShippedBroker, start_agent: StartAgent) -> None:
    """A stolen device key is of no use: its certificate is for clients only."""
    mqtt = broker.device("pi-1")
    broker.kill()
    for kind in ("crt", "key"):
        shutil.copy(broker.certificates / f"pi-1.{kind}", broker.certificates / f"broker.{kind}")
    broker.start()
    agent = start_agent(mqtt)
    assert eventually(lambda: bool(warnings(agent)))
    assert f"cannot trust the broker at localhost:{broker.port}" in warnings(agent)[0]
    assert connections(agent) == 0


def test_a_renewed_certificate_is_used_without_a_restart(broker: ShippedBroker, start_agent: StartAgent) -> None:
    """Certificate and key are read at every connection: the old one is revoked, the device goes on with the new."""
    agent = start_agent(broker.device("pi-1"))
    assert eventually(lambda: connections(agent) == 1)
    broker.make_certificates("revoke", "pi-1")
    broker.make_certificates("device", "pi-1")
    broker.kill()
    agent.await_log("lost the broker")
    broker.start()
    assert eventually(lambda: connections(agent) == 2)
    assert "revoked" not in agent.stderr


def test_half_a_renewal_is_waited_out(broker: ShippedBroker, start_agent: StartAgent) -> None:
    """A key that does not fit (yet) is said in one line about the files, and tried again within moments."""
    mqtt = broker.device("pi-1")
    agent = start_agent(mqtt)
    assert eventually(lambda: connections(agent) == 1)
    key, kept = broker.certificates / "pi-1.key", broker.certificates / "kept.key"
    key.rename(kept)
    broker.make_certificates("device", "pi-2")
    shutil.copy(broker.certificates / "pi-2.key", key)
    broker.kill()
    broker.start()
    assert eventually(lambda: any("the key must fit the certificate" in line for line in warnings(agent)))
    assert not any("cannot trust" in line for line in warnings(agent))
    kept.replace(key)
    assert eventually(lambda: connections(agent) == 2)


def test_what_a_renamed_device_may_not_withdraw_is_told_in_one_line(broker: ShippedBroker, tmp_path: Path) -> None:
    """The shipped rules let a device write below its own name only: it says so, and goes on."""
    recording = write_wav(tmp_path / "silence.wav", silence(2.0))
    for name in ("pi-1", "pi-2"):
        settings = {
            "device__id": name,
            "state_dir": tmp_path / "state",
            "engine__kind": "scripted",
            "source__kind": "wav",
            "source__path": recording,
            **mqtt_settings(broker.device(name)),
        }
        agent = AgentProcess(tmp_path, settings)
        assert agent.wait() == 0, agent.stderr
    assert agent.stderr.count("WARNING") == 1, agent.stderr
    assert "edgescribe/v1/pi-1/status" in agent.stderr
