"""A broker on loopback for `edgescribe demo`: mosquitto where it is installed, else amqtt (pure Python, MQTT 3.1.1)."""

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

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


Kind = Literal["mosquitto", "amqtt"]


@dataclass(frozen=True, slots=True)
class EmbeddedBroker:
    """A running broker."""

    kind: Kind
    port: int
    host: str = LOOPBACK

    @property
    def settings(self) -> MqttSettings:
        """Settings that reach it."""
        return MqttSettings(host=self.host, port=self.port)


@contextlib.contextmanager
def embedded_broker(port: int = 0, kind: Kind | None = None) -> Iterator[EmbeddedBroker]:
    """Run a broker for all programs on this machine until the `with` block is left.

    `port` 0 takes a free one. `kind` None takes mosquitto if it is there, else amqtt.

    Raises:
        SinkError: no broker is installed, or it does not start.
    """
    chosen, command, form = _choose(kind)
    broker = EmbeddedBroker(chosen, port or _free_port())
    with tempfile.TemporaryDirectory(prefix="edgescribe-broker-") as folder:
        config, complaints = Path(folder, "broker.conf"), Path(folder, "complaints")
        config.write_text(form.format(host=broker.host, port=broker.port), encoding="utf-8")
        with complaints.open("wb") as stderr:
            # A session of its own: Ctrl-C in the terminal must end the agent first, which says goodbye to the broker.
            process = subprocess.Popen(
                [*command, "-c", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
        try:
            _await_start(broker, process, complaints)
            yield broker
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await_start(broker: EmbeddedBroker, process: "subprocess.Popen[bytes]", complaints: Path) -> None:
    deadline_s = time.monotonic() + _START_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection((broker.host, broker.port), timeout=1.0):
            return
        if process.poll() is not None or time.monotonic() > deadline_s:
            lines = complaints.read_text(encoding="utf-8", errors="replace").splitlines() or ["no output"]
            raise SinkError(f"the embedded broker ({broker.kind}) did not start on port {broker.port}: {lines[-1]}")
        time.sleep(_POLL_S)


def _choose(wanted: Kind | None) -> tuple[Kind, list[str], str]:
    # Debian keeps it in /usr/sbin, which is not on the path of ordinary users.
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
    mosquitto = shutil.which("mosquitto", path=path)
    if mosquitto and wanted != "amqtt":
        return "mosquitto", [mosquitto], _MOSQUITTO_CONFIG
    if importlib.util.find_spec("amqtt") and wanted != "mosquitto":
        return "amqtt", [sys.executable, "-m", "amqtt.scripts.broker_script"], _AMQTT_CONFIG
    raise SinkError(f"no {wanted or 'broker'} to embed: apt install mosquitto, or for amqtt {extras.missing('demo')}")


def _free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as probe:
        return int(probe.getsockname()[1])
