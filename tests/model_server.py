"""A small stand-in for Hugging Face, on a real socket."""

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar


@dataclass
class Hub:
    """What the server has, how it behaves, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    """By path."""
    cut_after_bytes: list[int] = field(default_factory=list)
    """The next answers end after so many bytes of content."""
    ignores_ranges: bool = False
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and Range header of each request."""
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[Hub]

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.hub.requests.append((self.path, wanted))
        content = self.hub.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = 0
        if wanted and not self.hub.ignores_ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        body = content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.hub.cut_after_bytes:
            body = body[: self.hub.cut_after_bytes.pop(0)]
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        """Stay quiet."""


class HubServer:
    """Runs the stand-in in a thread until the block ends."""

    def __init__(self) -> None:
        self.hub = Hub()
        handler = type("Handler", (_Handler,), {"hub": self.hub})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Hub:
        self.hub.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread.start()
        return self.hub

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
