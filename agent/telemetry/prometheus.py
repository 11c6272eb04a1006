"""The HTTP server that Prometheus asks: `GET /metrics`, in a thread of its own."""

import logging
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final

from agent.config.observing import PrometheusSettings
from agent.errors import ConfigError
from agent.tcp import Port, spelt
from agent.telemetry.exposition import CONTENT_TYPE
from agent.worker import Worker

log = logging.getLogger(__name__)

_PATH: Final = "/metrics"
_REQUEST_S: Final = 2.0
"""Whoever has not asked by then, or does not read the answer, makes room for the next."""
_POLL_S: Final = 0.5
"""Between looks at whether it is to end; and before the next connection is taken where one could not be."""
_JOIN_S: Final = _REQUEST_S + 2 * _POLL_S


class PrometheusServer:
    """Answers one request after the other. `render` is called from its thread, for each request.

    It listens when the constructor returns, or as soon as the name of its host is known; the thread, called
    `prometheus`, ends with `close`.

    Raises:
        ConfigError: nobody can listen at this address.
    """

    def __init__(
        self, settings: PrometheusSettings, render: Callable[[], str], on_failure: Callable[[Worker], None]
    ) -> None:
        try:
            self._server = _Server(Port("prometheus.host", settings.host, settings.port), render)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ConfigError(
                f"prometheus: cannot listen at {spelt(settings.host, settings.port)} ({reason}): set prometheus.port or"
                " prometheus.host"
            ) from error
        self._worker = Worker("prometheus", self._server.serve, on_failure)
        self._worker.start()

    @property
    def port(self) -> int:
        """Where it listens, or will; of interest where the settings said 0, any free one."""
        return self._server.at.number

    def close(self) -> bool:
        """Stop listening; idempotent. False if the thread has not ended in time."""
        self._server.closing.set()
        # Who still asks for a name has nothing under way that could be lost.
        return self._worker.join(_JOIN_S) or not self._server.at.open


class _Server(HTTPServer):
    """Knows what to answer."""

    def __init__(self, at: Port, render: Callable[[], str]) -> None:
        super().__init__(("", at.number), _Handler, bind_and_activate=False)
        self.socket.close()  # the base's own, which cannot wait for its address
        self.at = at
        self.render = render
        self.closing = threading.Event()
        self.troubled = False
        self.timeout = _POLL_S

    def serve(self) -> None:
        """Answer until `closing` is set, then stop listening."""
        if (listener := self.at.wait(self.closing)) is None:
            return
        log.info(f"prometheus: metrics at http://{self.at}{_PATH}")
        self.socket = listener
        with self:
            while not self.closing.is_set():
                self.handle_request()

    def get_request(self) -> tuple[socket.socket, Any]:
        """As its base; where no connection can be taken, it stays there to be taken, and is not asked for in a hurry.

        Raises:
            OSError: there are no descriptors or memory left, or who came has gone again; who calls waits for the next.
        """
        try:
            connection, address = super().get_request()
        except OSError as error:
            if not self.troubled:
                log.warning(f"prometheus: a connection could not be taken ({error.strerror})")
            self.troubled = True
            self.closing.wait(_POLL_S)
            raise
        self.troubled = False
        return connection, address

    def handle_error(self, _request: Any, client_address: Any) -> None:
        """Who asked is gone, or too slow. That is no trouble of ours, and no traceback."""
        log.debug(f"prometheus: {client_address} did not wait for its answer")


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    timeout = _REQUEST_S
    server: _Server

    def do_GET(self) -> None:
        """The metrics, or that they are elsewhere."""
        if self.path.partition("?")[0] == _PATH:
            self._answer(HTTPStatus.OK, CONTENT_TYPE, self.server.render())
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
