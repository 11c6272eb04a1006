"""Writes a snapshot in Prometheus's text format, and serves it over HTTP: `GET /metrics`.

https://prometheus.io/docs/instrumenting/exposition_formats/. A value that the machine does not have has no sample.
"""

import io
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Final, cast

from prometheus_client import Metric, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from agent import __version__
from agent.config.settings import PrometheusSettings
from agent.messages.telemetry import METRICS
from agent.telemetry.counters import PREFIX
from agent.telemetry.snapshot import Snapshot
from agent.telemetry.tcp import Client, TcpServer
from agent.worker import Worker

log = logging.getLogger(__name__)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_PATH: Final = "/metrics"
_REQUEST_S: Final = 5.0
"""Time for a whole request, and for the client to read the answer."""
_REQUEST_BYTES: Final = 16 * 1024


def exposition(snapshot: Snapshot) -> str:
    """Return all metrics that have a value, in Prometheus's text format."""
    return generate_latest(_Families(snapshot)).decode()


class _Families(Collector):
    """The metrics of one snapshot, in the form of prometheus_client."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """Yield every family that has a sample."""
        families = (*self._numbers(), *self._snapshot.distributions, *self._facts())
        yield from (family for family in families if family.samples)

    def _numbers(self) -> Iterator[Metric]:
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for metric in METRICS:
            if not metric.prometheus or (value := metric.base(self._snapshot.telemetry)) is None:
                continue
            labels = dict([metric.label]) if metric.label else {}
            if metric.prometheus not in families:
                kind = CounterMetricFamily if metric.total else GaugeMetricFamily
                name = PREFIX + metric.prometheus
                families[metric.prometheus] = kind(name, metric.description, labels=list(labels))
            families[metric.prometheus].add_metric(list(labels.values()), value)
        yield from families.values()

    def _facts(self) -> Iterator[Metric]:
        totals, power = self._snapshot.totals, self._snapshot.telemetry.pwr
        heard_s, speech_s = round(totals["heard_s"], 3), round(totals["speech_s"], 3)
        yield CounterMetricFamily(f"{PREFIX}audio_heard_seconds", "Sound that the agent listened to.", heard_s)
        yield CounterMetricFamily(f"{PREFIX}audio_speech_seconds", "Sound inside utterances.", speech_s)
        yield _labelled("build_info", "Version of the agent; always 1.", "version", {__version__: 1})
        codes = dict.fromkeys(self._snapshot.problems, 1)
        yield _labelled("problem", "Current codes of health; always 1.", "code", codes)
        rails = (power.rails_w if power else None) or {}
        yield _labelled("rail_power_watts", "Power of a rail of the board.", "rail", rails)


def _labelled(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def prometheus_server(
    settings: PrometheusSettings, render: Callable[[], str], on_failure: Callable[[Worker], None]
) -> TcpServer:
    """Serve the text of `render`. Each request has a thread of its own; they call `render` one at a time.

    Raises:
        ConfigError: the server cannot listen at this address.
    """
    rendering = threading.Lock()

    def metrics() -> str:
        with rendering:
            return render()

    def answer(client: Client) -> None:
        client.until_s, client.left_bytes = time.monotonic() + _REQUEST_S, _REQUEST_BYTES
        _Handler(client, metrics)

    greeting = f"metrics at http://{{}}{_PATH}"
    return TcpServer("prometheus", settings.host, settings.port, answer, on_failure, greeting)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request, in its constructor."""

    def __init__(self, client: Client, render: Callable[[], str]) -> None:
        self._client = client
        self._render = render
        super().__init__(client.connection, client.address, cast("Any", None))

    def setup(self) -> None:
        """Read within the limits of the client."""
        super().setup()
        self.rfile = io.BufferedReader(self._client)

    def do_GET(self) -> None:
        """Send the metrics, or tell where they are."""
        if self.path.partition("?")[0] == _PATH:
            self._answer(HTTPStatus.OK, CONTENT_TYPE, self._render())
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", f"metrics are at {_PATH}\n")

    def _answer(self, status: HTTPStatus, content_type: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        """Do not tell the version of Python."""
        return "edgescribe"

    def log_message(self, form: str, *values: Any) -> None:
        """Log requests at debug only."""
        log.debug(f"prometheus: {form % values}")
