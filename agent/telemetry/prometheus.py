"""The HTTP server that Prometheus asks: `GET /metrics`."""

import io
import logging
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Final, cast

from agent.config.settings import PrometheusSettings
from agent.telemetry.exposition import CONTENT_TYPE
from agent.telemetry.tcp import Client, TcpServer
from agent.worker import Worker

log = logging.getLogger(__name__)

_PATH: Final = "/metrics"
_REQUEST_S: Final = 5.0
"""For a whole request, and for the client to take the answer."""
_REQUEST_BYTES: Final = 16 * 1024


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
