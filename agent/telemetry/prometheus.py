"""A snapshot as Prometheus reads it, and the HTTP server that it asks: `GET /metrics`.

https://prometheus.io/docs/instrumenting/exposition_formats/. What the machine cannot tell has no sample.
"""

import io
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Final, cast

from prometheus_client import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from agent import __version__
from agent.config.settings import PrometheusSettings
from agent.telemetry.counters import RTF, STAGES, Histogram
from agent.telemetry.metrics import METRICS
from agent.telemetry.snapshot import Snapshot
from agent.telemetry.tcp import Client, TcpServer
from agent.worker import Worker

log = logging.getLogger(__name__)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX: Final = "edgescribe_"
_PATH: Final = "/metrics"
_REQUEST_S: Final = 5.0
"""For a whole request, and for the client to take the answer."""
_REQUEST_BYTES: Final = 16 * 1024


def exposition(snapshot: Snapshot) -> str:
    """All metrics that have a value, in Prometheus's text format."""
    return generate_latest(_Families(snapshot)).decode()


class _Families(Collector):
    """The metrics of one snapshot, as prometheus_client takes them."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """Every family that has a sample."""
        families = (*self._numbers(), *self._distributions(), *self._facts())
        yield from (family for family in families if family.samples)

    def _numbers(self) -> Iterator[Metric]:
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for metric in METRICS:
            if not metric.prometheus or (value := metric.base(self._snapshot.telemetry)) is None:
                continue
            if metric.prometheus not in families:
                kind = CounterMetricFamily if metric.total else GaugeMetricFamily
                name = _PREFIX + metric.prometheus
                families[metric.prometheus] = kind(name, metric.description, labels=list(metric.labels))
            families[metric.prometheus].add_metric(list(metric.labels.values()), value)
        yield from families.values()

    def _distributions(self) -> Iterator[Metric]:
        rtf, latency = self._snapshot.histograms[RTF], "Where the time of an utterance went."
        factors = HistogramMetricFamily(_PREFIX + "real_time_factor", "Inference time over the utterance's length.")
        factors.add_metric([], _buckets(rtf), rtf.total)
        yield factors
        latencies = HistogramMetricFamily(_PREFIX + "latency_seconds", latency, labels=["stage"])
        for stage in STAGES:
            took_s = self._snapshot.histograms[stage]
            latencies.add_metric([stage], _buckets(took_s), took_s.total)
        yield latencies

    def _facts(self) -> Iterator[Metric]:
        heard_s, speech_s = round(self._snapshot.heard_s, 3), round(self._snapshot.speech_s, 3)
        yield CounterMetricFamily(_PREFIX + "audio_heard_seconds", "Sound that was listened to.", heard_s)
        yield CounterMetricFamily(_PREFIX + "audio_speech_seconds", "Sound of it inside utterances.", speech_s)
        yield _labelled("build_info", "Version of the agent; always 1.", "version", {__version__: 1})
        codes = dict.fromkeys(self._snapshot.problems, 1)
        yield _labelled("problem", "What is wrong, as codes of health; 1 while it is.", "code", codes)
        power = self._snapshot.telemetry.pwr
        rails = (power.rails_w if power else None) or {}
        yield _labelled("rail_power_watts", "What goes through a rail of the board.", "rail", rails)


def _labelled(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(_PREFIX + name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    bounds = (*(f"{bound:g}" for bound in histogram.bounds), "+Inf")
    return list(zip(bounds, histogram.counts, strict=True))


class PrometheusServer(TcpServer):
    """Answers each request in a thread of its own. `render` is called from them, for one request at a time.

    It listens when the constructor returns, or as soon as the name of its host is known, until `close`.

    Raises:
        ConfigError: nobody can listen at this address.
    """

    greeting = f"metrics at http://{{}}{_PATH}"

    def __init__(
        self, settings: PrometheusSettings, render: Callable[[], str], on_failure: Callable[[Worker], None]
    ) -> None:
        self._render = render
        self._rendering = threading.Lock()
        super().__init__("prometheus", settings.host, settings.port, self._answer, on_failure)

    def _answer(self, client: Client) -> None:
        client.until_s, client.left_bytes = time.monotonic() + _REQUEST_S, _REQUEST_BYTES
        _Handler(client, self._metrics)

    def _metrics(self) -> str:
        with self._rendering:
            return self._render()


class _Handler(BaseHTTPRequestHandler):
    """One request; it is answered by the constructor."""

    def __init__(self, client: Client, render: Callable[[], str]) -> None:
        self._client = client
        self._render = render
        super().__init__(client.connection, client.address, cast("Any", None))

    def setup(self) -> None:
        """Read within the limits of the client."""
        super().setup()
        self.rfile = io.BufferedReader(self._client)

    def do_GET(self) -> None:
        """The metrics, or that they are elsewhere."""
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
        """Nothing about our Python."""
        return "edgescribe"

    def log_message(self, form: str, *values: Any) -> None:
        """A scrape is no event."""
        log.debug(f"prometheus: {form % values}")
