"""A broker on loopback for `edgescribe demo`: mosquitto where it is installed, else amqtt (pure Python, MQTT 3.1.1)."""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, Literal, Self

from agent.config.settings import MqttSettings
from agent.errors import SinkError
from agent.install import extras

LOOPBACK: Final = "127.0.0.1"
_START_S: Final = 60.0
_STOP_S: Final = 5.0
_POLL_S: Final = 0.05

_MOSQUITTO_CONFIG: Final = """\
listener {port} {host}
allow_anonymous true
persistence false
set_tcp_nodelay true
log_dest stderr
log_type error
"""
_AMQTT_CONFIG: Final = """\
listeners: {{default: {{type: tcp, bind: "{host}:{port}"}}}}
plugins:
  amqtt.plugins.authentication.AnonymousAuthPlugin: {{allow_anonymous: true}}
"""


class EmbeddedBroker:
    """A broker process on a port of its own, for whoever is on this machine; gone on leaving the `with` block.

    `port` 0 takes a free one. `kind` None takes mosquitto if it is there, else amqtt.

    Raises:
        SinkError: neither of them is installed, or it does not start.
    """

    def __init__(self, port: int = 0, kind: Literal["mosquitto", "amqtt"] | None = None) -> None:
        self.host = LOOPBACK
        self.port = port or _free_port()
        self.kind, self._command, self._config = _choose(kind)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def settings(self) -> MqttSettings:
        """Return how to reach it."""
        return MqttSettings(host=self.host, port=self.port)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start it and wait until it can be reached."""
        self._folder = tempfile.TemporaryDirectory(prefix="edgescribe-broker-")
        folder = Path(self._folder.name)
        config, complaints = folder / "broker.conf", folder / "complaints"
        config.write_text(self._config.format(host=self.host, port=self.port), encoding="utf-8")
        with complaints.open("wb") as stderr:
            # A session of its own: Ctrl-C in the terminal is for the agent, which still has to say goodbye to it.
            self._process = subprocess.Popen(
                [*self._command, "-c", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
        try:
            self._await_start(complaints)
        except SinkError:
            self.close()
            raise

    def _await_start(self, complaints: Path) -> None:
        deadline_s = time.monotonic() + _START_S
        while not _reachable(self.host, self.port):
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline_s:
                lines = complaints.read_text(encoding="utf-8", errors="replace").splitlines() or ["it said nothing"]
                msg = f"the embedded broker ({self.kind}) did not start on port {self.port}: {lines[-1]}"
                raise SinkError(msg)
            time.sleep(_POLL_S)

    def close(self) -> None:
        """Stop it; idempotent."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def _choose(wanted: Literal["mosquitto", "amqtt"] | None) -> tuple[str, list[str], str]:
    # Debian keeps it in /usr/sbin, which is not on the path of ordinary users.
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
    mosquitto = shutil.which("mosquitto", path=path)
    if mosquitto and wanted != "amqtt":
        return "mosquitto", [mosquitto], _MOSQUITTO_CONFIG
    if importlib.util.find_spec("amqtt") and wanted != "mosquitto":
        return "amqtt", [sys.executable, "-m", "amqtt.scripts.broker_script"], _AMQTT_CONFIG
    msg = f"no {wanted or 'broker'} to embed: apt install mosquitto, or for amqtt {extras.missing('demo')}"
    raise SinkError(msg)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _reachable(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1.0):
        return True
    return False
