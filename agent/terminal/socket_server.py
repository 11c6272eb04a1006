"""Tells who connects what goes on, several times a second; while nobody does, the thread `top` sleeps."""

import contextlib
import logging
import selectors
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.terminal.socket_address import VIEWERS, listen
from agent.worker import Worker

log = logging.getLogger(__name__)

PERIOD_S: Final = 0.25
"""The first line comes after as long, when there is sound to tell of."""
_JOIN_S: Final = 2.0


class TopServer:
    """Serves from construction until `close`.

    `line` is called from its thread, for each line, and `watched` when the first viewer comes and when the last one has
    gone. A viewer that does not read is hung up on: nobody waits for it.

    Raises:
        OSError: nobody can listen there.
    """

    def __init__(
        self,
        path: Path,
        line: Callable[[], bytes],
        watched: Callable[[bool], None],
        on_failure: Callable[[Worker], None],
    ) -> None:
        self._path = path
        self._line = line
        self._watched = watched
        self._viewers: set[socket.socket] = set()
        self._due_s = 0.0
        self._listener = listen(path)
        self._bell, self._ear = socket.socketpair()
        self._worker = Worker("top", self._run, on_failure)
        self._worker.start()

    def close(self) -> bool:
        """Hang up on everybody; idempotent. False if the thread has not ended in time."""
        self._bell.close()  # the other end becomes readable
        return self._worker.join(_JOIN_S)

    # From here on, everything runs in the thread `top`.

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector, self._listener, self._ear:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._ear, selectors.EVENT_READ)
            while True:
                wait_s = max(0.0, self._due_s - time.monotonic()) if self._viewers else None
                ready = [key.fileobj for key, _ in selector.select(wait_s)]
                if self._ear in ready:
                    break
                for each in ready:
                    self._look_after(selector, each)
                if self._viewers and time.monotonic() >= self._due_s:
                    self._due_s = time.monotonic() + PERIOD_S
                    self._tell(selector, self._line())
            for viewer in tuple(self._viewers):
                self._hang_up(selector, viewer)
        with contextlib.suppress(OSError):  # a folder that has become read-only, or is gone
            self._path.unlink()

    def _look_after(self, selector: selectors.BaseSelector, ready: object) -> None:
        if ready is self._listener:
            with contextlib.suppress(OSError):  # it has gone again
                self._welcome(selector, self._listener.accept()[0])
        elif isinstance(ready, socket.socket) and ready in self._viewers:
            with contextlib.suppress(BlockingIOError):
                if not _received(ready):
                    self._hang_up(selector, ready)

    def _welcome(self, selector: selectors.BaseSelector, viewer: socket.socket) -> None:
        if len(self._viewers) >= VIEWERS:
            viewer.close()
            return
        viewer.setblocking(False)
        selector.register(viewer, selectors.EVENT_READ)
        self._viewers.add(viewer)
        if len(self._viewers) == 1:
            self._due_s = time.monotonic() + PERIOD_S
            self._watched(True)

    def _tell(self, selector: selectors.BaseSelector, line: bytes) -> None:
        for viewer in tuple(self._viewers):
            try:
                complete = viewer.send(line) == len(line)
            except OSError:
                complete = False
            if not complete:
                self._hang_up(selector, viewer)

    def _hang_up(self, selector: selectors.BaseSelector, viewer: socket.socket) -> None:
        selector.unregister(viewer)
        viewer.close()
        self._viewers.discard(viewer)
        if not self._viewers:
            self._watched(False)


def _received(viewer: socket.socket) -> bytes:
    """What a viewer says, who has nothing to say; empty when it has gone."""
    try:
        return viewer.recv(4_096)
    except BlockingIOError:
        raise
    except OSError:
        return b""
