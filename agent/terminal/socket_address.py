"""Where the socket is: in the runtime folder of the service, else in the state folder."""

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

NAME: Final = "top.sock"
SERVICE: Final = Path("/run/edgescribe")
"""The unit's runtime folder."""
VIEWERS: Final = 4
"""Who comes when so many are connected is hung up on."""
_LONGEST: Final = 100
"""unix(7) has room for 107 bytes."""


def own_path(state_dir: Path, environment: Mapping[str, str]) -> Path:
    """Where an agent with this state folder listens. `$RUNTIME_DIRECTORY` is what systemd made for it."""
    if folders := environment.get("RUNTIME_DIRECTORY"):
        return Path(folders.split(":")[0]) / NAME
    return state_dir / NAME


def likely_paths(state_dir: Path, environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Where a running agent may listen: one with the same settings, else the service."""
    return tuple(dict.fromkeys((own_path(state_dir, environment), SERVICE / NAME)))


def listen(path: Path) -> socket.socket:
    """A listening socket that only our user and root can connect to. One that nobody listens at any more is replaced.

    Raises:
        OSError: there can be none, or another agent listens there.
    """
    with _short(path) as name:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            connect(path).close()
            raise FileExistsError(17, "another agent listens there")
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            listener.bind(name)
            # Before anybody can connect: what is bound and does not listen refuses everybody.
            path.chmod(0o600)
            listener.listen()
        except OSError:
            listener.close()
            raise
        return listener


def connect(path: Path) -> socket.socket:
    """A connection to an agent.

    Raises:
        OSError: there is none, or we may not.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(path) as name:
            connection.connect(name)
    except OSError:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name for `path` that is short enough for a socket."""
    if len(os.fsencode(path)) <= _LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
