"""`edgescribe watch` as a process of its own, at a real broker."""

import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.agent_process import command, environment
from tests.support.mosquitto import Authority, Mosquitto, StartMosquitto, free_port
from tests.support.peer import Peer
from tests.support.receiver import eventually
from tests.support.shipped_broker import PASSWORD, ShippedBroker

pytestmark = pytest.mark.mosquitto

_ENDS_S = 20.0


class Watching:
    """The process, and what it has written so far."""

    def __init__(self, folder: Path, *arguments: str, terminal: bool = False) -> None:
        self._output, self._errors = folder / "output", folder / "errors"
        master, slave = pty.openpty() if terminal else (None, None)
        variables = environment(folder, TERM="xterm-256color", COLUMNS="100", LINES="20")
        with self._output.open("wb") as out, self._errors.open("wb") as err:
            self._process = subprocess.Popen(
                command("watch", *arguments),
                stdin=subprocess.DEVNULL,
                stdout=out if slave is None else slave,
                stderr=err,
                env=variables,
            )
        self._master = master
        self._read = b""
        if slave is not None:
            os.close(slave)

    @property
    def output(self) -> str:
        """Everything it has written."""
        if self._master is None:
            return self._output.read_text(encoding="utf-8")
        os.set_blocking(self._master, False)
        try:
            while chunk := os.read(self._master, 65_536):
                self._read += chunk
        except (BlockingIOError, OSError):
            pass  # nothing more, or nobody there any more
        return self._read.decode(errors="replace")

    @property
    def errors(self) -> str:
        """What it has complained about."""
        return self._errors.read_text(encoding="utf-8")

    def shows(self, words: str) -> bool:
        """Wait until it has written something."""
        return eventually(lambda: words in self.output)

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Ask it to end; its exit status."""
        if self._process.poll() is None:
            self._process.send_signal(number)
        return self._process.wait(_ENDS_S)

    def close(self) -> None:
        """Kill it, if it still runs."""
        self._process.kill()
        self._process.wait()
        if self._master is not None:
            os.close(self._master)


Watch = Callable[..., Watching]


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    """Starts `edgescribe watch` with these arguments; killed at the end."""
    started: list[Watching] = []

    def start(*arguments: str, terminal: bool = False) -> Watching:
        folder = tmp_path / f"watch-{len(started)}"
        folder.mkdir()
        started.append(Watching(folder, *arguments, terminal=terminal))
        return started[-1]

    yield start
    for watching in started:
        watching.close()


class Device:
    """The device `pi-1` as a subscriber knows it."""

    def __init__(self, broker: Mosquitto) -> None:
        plain = {"host": "localhost", "port": broker.port}
        self.peer = Peer("pi-1", broker.device("pi-1") if isinstance(broker, ShippedBroker) else plain)
        self.say("status", "online")

    def say(self, kind: str, payload: object) -> None:
        """Publish on a topic of the device; a dict goes as JSON."""
        text = payload if isinstance(payload, str) else json.dumps(payload)
        assert self.peer.may_write(f"edgescribe/v1/pi-1/{kind}", text, retain=kind in {"status", "health"})


Connect = Callable[[Mosquitto], Device]


@pytest.fixture
def device() -> Iterator[Connect]:
    """Connects the device `pi-1` to a broker; it leaves at the end."""
    devices: list[Device] = []

    def start(broker: Mosquitto) -> Device:
        devices.append(Device(broker))
        return devices[-1]

    yield start
    for one in devices:
        one.peer.close()


def transcript(text: str) -> dict[str, Any]:
    """A transcript as a device publishes it."""
    return {
        "v": 1,
        "event_type": "transcript",
        "id": "01JD0000000000000000000001",
        "seq": 1,
        "boot_id": "b1946ac9-0000-4000-8000-000000000000",
        "ts": "2026-11-23T12:00:00.250Z",
        "start": "2026-11-23T12:00:00.250Z",
        "time_synced": True,
        "text": text,
        "lang": "en",
        "verdict": "confident",
        "duration_s": 1.5,
        "model": "tiny.en-q8_0",
        "engine": "scripted",
        "audio_ctx": 384,
        "rtf": 0.1,
        "latency_ms": {"vad_close": 600, "queue": 1, "encode_decode": 150, "total_from_speech_end": 751},
        "rms_dbfs": -23.4,
    }


def test_a_pipe_gets_a_line_for_everything_that_happens(
    start_mosquitto: StartMosquitto, device: Connect, watch: Watch
) -> None:
    """What was retained, what is said, what goes wrong; no escapes, and Ctrl-C ends it without a complaint."""
    broker = start_mosquitto()
    pi = device(broker)
    watching = watch("--port", str(broker.port))
    assert watching.shows("pi-1  status  online")
    pi.say("transcript", transcript("turn on the light"))
    pi.say("health", {"v": 1, "problem": "ON", "codes": ["undervoltage"]})
    assert watching.shows("pi-1  transcript  turn on the light  [0.75 s, en]")
    assert watching.shows("pi-1  health  undervoltage")
    assert watching.end() == 0
    assert "\x1b" not in watching.output
    assert watching.errors == ""


def test_json_is_every_message_as_it_is(start_mosquitto: StartMosquitto, device: Connect, watch: Watch) -> None:
    """For jq: topic, whether it was retained, and the payload unchanged; SIGTERM ends it."""
    broker = start_mosquitto()
    pi = device(broker)
    watching = watch("--port", str(broker.port), "--json")
    assert watching.shows('"online"')
    sent = transcript("grüße 🎤")
    pi.say("transcript", sent)
    assert watching.shows("transcript")
    assert eventually(lambda: watching.output.endswith("\n"))
    assert watching.end(signal.SIGTERM) == 0
    messages = [json.loads(line) for line in watching.output.splitlines()]
    assert messages[0]["payload"] == "online"
    assert messages[-1] == {
        "topic": "edgescribe/v1/pi-1/transcript",
        "retained": False,
        "payload": sent,
    }


def test_one_device_can_be_watched_alone(start_mosquitto: StartMosquitto, watch: Watch) -> None:
    """The others are not even asked for."""
    broker = start_mosquitto()
    watching = watch("--port", str(broker.port), "--device", "pi-7")
    assert watching.shows("connected")
    assert eventually(lambda: "edgescribe/v1/pi-7/#" in broker.log())
    assert "edgescribe/v1/+" not in broker.log()


def test_a_broker_that_restarts_is_found_again(start_mosquitto: StartMosquitto, device: Connect, watch: Watch) -> None:
    """The loss is said, and what comes afterwards is shown."""
    broker = start_mosquitto()
    device(broker)
    watching = watch("--port", str(broker.port))
    assert watching.shows("pi-1  status  online")
    broker.kill()
    assert watching.shows("no connection (")
    broker.start()
    assert eventually(lambda: watching.output.count("connected\n") == 2)
    device(broker).say("transcript", transcript("still here"))
    assert watching.shows("still here")


def test_a_terminal_gets_a_picture_and_is_given_back(
    start_mosquitto: StartMosquitto, device: Connect, watch: Watch
) -> None:
    """On the alternate screen, which Ctrl-C leaves with the cursor shown again."""
    broker = start_mosquitto()
    pi = device(broker)
    watching = watch("--port", str(broker.port), terminal=True)
    assert watching.shows("pi-1")
    pi.say("transcript", transcript("for the screen"))
    assert "\x1b[?1049h" in watching.output
    assert eventually(lambda: re.search(r"1 ok", watching.output) is not None)
    assert watching.end() == 0
    assert watching.output.rstrip().endswith("\x1b[?1049l") or "\x1b[?1049l" in watching.output
    assert "\x1b[?25h" in watching.output
    assert watching.errors == ""


def test_a_message_that_is_too_large_is_not_read(start_mosquitto: StartMosquitto, watch: Watch) -> None:
    """Watching goes on without it; where it is retained, and so would come again for ever, one line and 69 say so."""
    broker = start_mosquitto()
    publisher = Client(CallbackAPIVersion.VERSION2)
    publisher.connect("127.0.0.1", broker.port)
    publisher.loop_start()
    topic, large = "edgescribe/v1/pi-1/info", bytes(5 << 20)
    watching = watch("--port", str(broker.port))
    assert watching.shows("connected")
    publisher.publish(topic, large, 1).wait_for_publish(_ENDS_S)
    assert watching.shows(topic)
    assert eventually(lambda: watching.output.count("connected\n") == 2)
    publisher.publish(topic, large, 1, retain=True).wait_for_publish(_ENDS_S)
    assert eventually(lambda: watching._process.poll() == 69)
    again = watch("--port", str(broker.port))
    assert eventually(lambda: again._process.poll() == 69)
    publisher.disconnect()
    publisher.loop_stop()
    for each in (watching, again):
        (line,) = each.errors.splitlines()
        assert topic in line
        assert "mosquitto_pub -r -n" in line


def test_a_certificate_of_the_future_sends_the_operator_to_the_clock(
    start_mosquitto: StartMosquitto, watch: Watch, tmp_path: Path
) -> None:
    """One line with this device's time, and no word about the authority."""
    authority = Authority(tmp_path)
    cert_file, key_file = authority.issue("broker", days=11, starts_in_days=10)
    broker = start_mosquitto(f"certfile {cert_file}", f"keyfile {key_file}", "allow_anonymous true")
    tls = ["--set", "mqtt.tls.enabled=true", "--set", f"mqtt.tls.ca_file={authority.cert_file}"]
    watching = watch("--host", "localhost", "--port", str(broker.port), *tls)
    assert watching._process.wait(_ENDS_S) == 69
    (line,) = watching.errors.splitlines()
    assert "not yet valid" in line
    assert "clock" in line


def test_no_broker_is_one_line_and_a_status(watch: Watch) -> None:
    """What is wrong and how to name another, exit 69, no trace."""
    watching = watch("--port", str(free_port()), "--host", "localhost")
    assert watching._process.wait(_ENDS_S) == 69
    (line,) = watching.errors.splitlines()
    assert line.startswith("edgescribe: no broker at localhost:")
    assert "--host" in line


@pytest.fixture
def shipped(tmp_path: Path) -> Iterator[ShippedBroker]:
    """A running mosquitto with the shipped files; killed at the end."""
    broker = ShippedBroker(tmp_path)
    broker.start()
    yield broker
    broker.kill()


def test_tls_and_a_password_are_those_of_the_settings(
    shipped: ShippedBroker, device: Connect, watch: Watch, tmp_path: Path
) -> None:
    """An operator's view of a fleet behind the shipped configuration; a wrong password is one line."""
    password = tmp_path / "password"
    password.write_text(f"{PASSWORD}\n")
    tls = ["--set", "mqtt.tls.enabled=true", "--set", f"mqtt.tls.ca_file={shipped.certificates / 'ca.crt'}"]
    who = ["--username", "operator", "--password-file", str(password)]
    watching = watch("--port", str(shipped.password_port), *tls, *who)
    assert watching.shows("connected")
    device(shipped).say("transcript", transcript("behind two doors"))
    assert watching.shows("pi-1  transcript  behind two doors")
    assert PASSWORD not in watching.output + watching.errors

    password.write_text("wr0ng")
    refused = watch("--port", str(shipped.password_port), *tls, *who)
    assert refused._process.wait(_ENDS_S) == 69
    (line,) = refused.errors.splitlines()
    assert "does not let us watch (Not authorized): check --username and --password-file" in line
    assert "wr0ng" not in line


@pytest.mark.parametrize(("tls", "remedy"), [(True, "does it want a certificate?"), (False, "does it want TLS?")])
def test_a_broker_that_hangs_up_is_explained(shipped: ShippedBroker, watch: Watch, *, tls: bool, remedy: str) -> None:
    """Without a certificate where one is wanted, and without TLS: one line with what to look at."""
    options = ["--set", "mqtt.tls.enabled=true", "--set", f"mqtt.tls.ca_file={shipped.certificates / 'ca.crt'}"]
    watching = watch("--port", str(shipped.port), *(options if tls else []))
    assert watching._process.wait(_ENDS_S) == 69
    (line,) = watching.errors.splitlines()
    assert f"does not let us watch (it hung up): {remedy}" in line


def test_a_device_may_watch_itself_with_its_own_certificate(
    shipped: ShippedBroker, device: Connect, watch: Watch
) -> None:
    """Whoever is logged in to a device sees that device, by the broker's access control list, and no other."""
    for name in ("pi-1", "pi-2"):
        shipped.device(name)
    files = {
        "ca_file": shipped.certificates / "ca.crt",
        "cert_file": shipped.certificates / "pi-1.crt",
        "key_file": shipped.certificates / "pi-1.key",
    }
    options = [word for key, path in files.items() for word in ("--set", f"mqtt.tls.{key}={path}")]
    watching = watch("--port", str(shipped.port), "--set", "mqtt.tls.enabled=true", *options)
    assert watching.shows("connected")
    device(shipped)
    assert watching.shows("pi-1  status  online")
    time.sleep(0.2)
    assert "pi-2" not in watching.output
