"""Messages as JSON lines on standard output: `{"topic": …, "payload": …}`, one object a message."""

import json
import logging
import os
import threading
import time
from typing import TextIO

from agent.messages import Message
from agent.mqtt.delivery import Outgoing

log = logging.getLogger(__name__)


class StdoutSink:
    """Writes each message at once. After a failed write it stops writing; the other sinks go on.

    It logs a failed write (a full disk), but not a reader that has ended (`… | head`).
    """

    def __init__(self, device_id: str, stream: TextIO) -> None:
        self._device_id = device_id
        self._stream = stream
        self._lock = threading.Lock()
        self._abandoned = False

    def send(self, message: Message) -> None:
        """Write `message`; the bare words of `status` and `vad` become JSON strings."""
        outgoing = Outgoing.of(self._device_id, message, time.monotonic())
        payload = outgoing.payload.decode()
        value = payload if outgoing.content_type == "text/plain" else json.loads(payload)
        document = {"topic": outgoing.topic, "payload": value}
        line = json.dumps(document, ensure_ascii=False)
        try:
            line.encode(self._stream.encoding or "utf-8")
        except UnicodeEncodeError:  # a Latin-1 terminal lacks letters, which JSON can escape
            line = json.dumps(document)
        with self._lock:
            self._write(line)

    def _write(self, line: str) -> None:
        if self._abandoned:
            return
        try:
            print(line, file=self._stream, flush=True)
        except OSError as error:
            self._abandoned = True
            # Python flushes its buffer at exit, and would report the error again.
            with open(os.devnull, "wb") as devnull:  # noqa: PTH123 - for its descriptor
                os.dup2(devnull.fileno(), self._stream.fileno())
            if not isinstance(error, BrokenPipeError):
                log.warning(f"stdout: cannot write ({error.strerror}); writing no more messages there")

    def close(self, timeout_s: float) -> int:  # noqa: ARG002 - no message waits
        """Return 0: each message was written at once."""
        return 0
