"""The broker of the fleet simulator, and the one subscriber that sees everything."""

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psutil
from fleet_figures import Observation
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

_START_S: Final = 10.0
_LOOPBACK: Final = "127.0.0.1"
_CONFIGURATION: Final = """\
listener {port} {address}
allow_anonymous true
user root
persistence true
persistence_location {folder}/
max_queued_messages 0
max_inflight_messages 1000
set_tcp_nodelay {nodelay}
log_type error
log_type warning
"""


class Broker:
    """A mosquitto that keeps its sessions over an orderly restart, as a service does."""

    def __init__(self, folder: Path, *, nodelay: bool) -> None:
        with socket.socket() as probe:
            probe.bind((_LOOPBACK, 0))
            self.port: int = probe.getsockname()[1]
        self._config = folder / "mosquitto.conf"
        flag = str(nodelay).lower()
        text = _CONFIGURATION.format(port=self.port, address=_LOOPBACK, folder=folder, nodelay=flag)
        self._config.write_text(text, encoding="utf-8")
        self._process: psutil.Popen | None = None

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
        if program is None:
            msg = "mosquitto is missing: apt install mosquitto"
            raise SystemExit(msg)
        self._process = psutil.Popen([program, "-c", str(self._config)], stderr=subprocess.DEVNULL)
        deadline_s = time.monotonic() + _START_S
        while time.monotonic() < deadline_s:
            with contextlib.suppress(OSError), socket.create_connection((_LOOPBACK, self.port), timeout=1.0):
                return
            time.sleep(0.01)
        msg = "mosquitto did not start"
        raise SystemExit(msg)

    def stop(self) -> None:
        """Stop it as systemd would; idempotent."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(_START_S)
            self._process = None

    @property
    def cpu_s(self) -> float:
        """Seconds of CPU that it has used."""
        assert self._process  # noqa: S101 - it runs while it is measured
        times = self._process.cpu_times()
        return float(times.user + times.system)

    @property
    def rss_mb(self) -> float:
        """Memory that it takes."""
        assert self._process  # noqa: S101 - it runs while it is measured
        return float(self._process.memory_info().rss) / 1e6

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Observer:
    """Subscribed to everything, by a session that outlives the broker's restart."""

    def __init__(self, port: int) -> None:
        self.seen = Observation()
        self._subscribed = False
        self._client = Client(
            CallbackAPIVersion.VERSION2, "observer", clean_session=False, protocol=MQTTProtocolVersion.MQTTv311
        )
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe("edgescribe/v1/+/#", qos=1)
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.connect(_LOOPBACK, port)
        self._client.loop_start()
        while not self._subscribed:
            time.sleep(0.01)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_subscribe(self, *_: Any) -> None:
        self._subscribed = True

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        if not message.retain:  # a retained message after a new subscription is old
            self.seen.message(message.topic, bytes(message.payload), time.monotonic())
