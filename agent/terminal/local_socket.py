"""The socket by which an agent tells viewers on its own device about its work, one line at a time."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from agent.errors import AgentError
from agent.worker import Worker

NAME: Final = "top.sock"
SERVICE: Final = Path("/run/edgescribe")
"""The unit's runtime folder."""
VIEWERS: Final = 4
"""Further connections are closed."""
PERIOD_S: Final = 0.25
"""Between two lines. The first one takes as long: by then there is sound to tell of."""
_LONGEST_PATH: Final = 100
"""unix(7) has room for 107 bytes."""
_LONGEST_LINE: Final = 1_048_576
_PATIENCE_S: Final = 10.0
_PAUSE_S: Final = 0.5
"""After a failure to accept a connection."""
_JOIN_S: Final = 2.0


def own_path(state_dir: Path, environment: Mapping[str, str]) -> Path:
    """Return where an agent with this state folder listens. systemd sets `$RUNTIME_DIRECTORY` for the service."""
    if folders := environment.get("RUNTIME_DIRECTORY"):
        return Path(folders.split(":")[0]) / NAME
    return state_dir / NAME


def likely_paths(state_dir: Path, environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return where a running agent may listen: one with the same settings, else the service."""
    return tuple(dict.fromkeys((own_path(state_dir, environment), SERVICE / NAME)))


def listen(path: Path) -> socket.socket:
    """Return a listening socket that only this user and root can connect to. Replaces the socket of a dead agent.

    Raises:
        OSError: there can be none, or another agent listens there.
    """
    with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
        connect(path).close()
        raise FileExistsError(17, "another agent uses this socket")
    path.unlink(missing_ok=True)
    with contextlib.ExitStack() as on_failure, _short(path) as name:
        listener = on_failure.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(name)
        # Before `listen`: until then every connection is refused.
        path.chmod(0o600)
        listener.listen()
        on_failure.pop_all()
    return listener


def connect(path: Path) -> socket.socket:
    """Return a connection to an agent.

    Raises:
        OSError: there is none, or this user may not connect.
    """
    with contextlib.ExitStack() as on_failure, _short(path) as name:
        connection = on_failure.enter_context(socket.socket(socket.AF_UNIX))
        connection.connect(name)
        on_failure.pop_all()
    return connection


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """Give a name for `path` that is short enough for a socket."""
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class SnapshotServer:
    """Sends a line to each viewer every `PERIOD_S`, from construction until `close`. Sleeps without viewers.

    The thread `top` calls `line` for each line, and `watched` when the first viewer comes and when the last one has
    gone. A viewer that does not read is disconnected: the agent never waits for one.

    Raises:
        OSError: the socket cannot be made.
    """

    def __init__(
        self,
        path: Path,
        line: Callable[[], bytes],
        watched: Callable[[bool], None],
        on_failure: Callable[[Worker], None],
    ) -> None:
        self._path, self._line, self._watched = path, line, watched
        self._closing = threading.Event()
        self._listener = listen(path)
        self._worker = Worker("top", self._run, on_failure)
        self._worker.start()

    def close(self) -> bool:
        """Disconnect all viewers; idempotent. Return False if the thread has not ended in time."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        return self._worker.join(_JOIN_S)

    def _run(self) -> None:
        viewers: list[socket.socket] = []
        due_s = 0.0
        while not self._closing.is_set():
            viewer = self._accept(max(0.001, due_s - time.monotonic()) if viewers else None)
            if viewer and len(viewers) >= VIEWERS:
                viewer.close()
            elif viewer:
                viewer.setblocking(False)
                viewers.append(viewer)
                if len(viewers) == 1:
                    due_s = time.monotonic() + PERIOD_S
                    self._watched(True)
            if viewers and time.monotonic() >= due_s:
                due_s = time.monotonic() + PERIOD_S
                viewers = _send(viewers, self._line())
                if not viewers:
                    self._watched(False)
        if viewers:
            self._watched(False)
        for sock in (*viewers, self._listener):
            sock.close()
        with contextlib.suppress(OSError):  # a folder that has become read-only, or is gone
            self._path.unlink()

    def _accept(self, timeout_s: float | None) -> socket.socket | None:
        """Wait for a viewer; return None when the time is up or `close` was called."""
        self._listener.settimeout(timeout_s)
        try:
            return self._listener.accept()[0]
        except TimeoutError:
            return None
        except OSError:  # closed; or the viewer has gone, or no descriptors are left
            self._closing.wait(_PAUSE_S)
            return None


def _send(viewers: Sequence[socket.socket], line: bytes) -> list[socket.socket]:
    """Send `line`; return the viewers that took all of it. The others are disconnected."""
    served = []
    for viewer in viewers:
        with contextlib.suppress(OSError):
            if viewer.send(line) == len(line):
                served.append(viewer)
                continue
        viewer.close()
    return served


def snapshots(paths: Sequence[Path]) -> Generator[bytes, None, None]:
    """Connect to the agent that listens at the first of `paths`; return its lines, without their ends.

    Raises:
        AgentError: no agent listens, or this user may not connect; from the iterator: it has ended, or does not answer.
    """
    return _lines(_first(paths))


def _lines(connection: socket.socket) -> Generator[bytes, None, None]:
    with connection, connection.makefile("rb") as stream:
        connection.settimeout(_PATIENCE_S)
        why = f"hangs up: do {VIEWERS} others look at it already?"
        while True:
            try:
                line = stream.readline(_LONGEST_LINE)
            except TimeoutError as error:
                raise AgentError(f"the agent has been silent for {_PATIENCE_S:.0f} s: does it hang?") from error
            except OSError:
                line = b""
            if not line.endswith(b"\n"):
                raise AgentError(f"the agent {why}")
            why = "has ended"
            yield line.rstrip(b"\n")


def _first(paths: Sequence[Path]) -> socket.socket:
    for path in paths:
        try:
            return connect(path)
        except PermissionError as error:
            remedy = "run this as its user, or as root (`sudo edgescribe top`)"
            raise AgentError(f"{path}: the agent there is another user's: {remedy}") from error
        except OSError:
            continue
    tried = " nor at ".join(str(path) for path in paths)
    raise AgentError(f"no agent answers at {tried}: is it running, and is top.enabled not off? See --socket")
