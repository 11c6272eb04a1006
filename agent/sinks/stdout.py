"""Messages as JSON lines on standard output: `{"topic": …, "payload": …}`, one object a message."""

import json
import os
import threading
import time
from typing import TextIO

from agent.delivery import Outgoing
from agent.wire import Message


class StdoutSink:
    """Writes each message at once. When the reader goes away (`… | head`), it falls silent instead of failing."""

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
        line = json.dumps({"topic": outgoing.topic, "payload": value}, ensure_ascii=False)
        with self._lock:
            self._write(line)

    def _write(self, line: str) -> None:
        if self._abandoned:
            return
        try:
            print(line, file=self._stream, flush=True)
        except BrokenPipeError:
            self._abandoned = True
            self._divert()

    def _divert(self) -> None:
        """Point the descriptor at nothing: Python flushes what is buffered once more at exit, and would complain."""
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self._stream.fileno())
        os.close(nothing)

    def close(self, timeout_s: float) -> int:  # noqa: ARG002 - writing is never deferred, so there is nothing to wait for
        """Nothing waits, and who went away wanted no more of it: none is undelivered."""
        return 0
