"""The viewer's side: lines of a running agent."""

import socket
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from agent.errors import AgentError
from agent.terminal.socket_address import VIEWERS, connect

_LONGEST: Final = 1_048_576
_PATIENCE_S: Final = 10.0


class Feed:
    """Lines from the first of `paths` at which an agent listens, as bytes without their ends.

    Raises:
        AgentError: nobody listens at any of them, or we may not ask.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._connection = _first(paths)
        self._connection.settimeout(_PATIENCE_S)
        self._lines = self._connection.makefile("rb")
        self._welcome = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._connection.close()

    def read(self) -> bytes:
        """The next line.

        Raises:
            AgentError: the agent has ended, or does not answer.
        """
        try:
            line = self._lines.readline(_LONGEST)
        except TimeoutError as error:
            raise AgentError(f"the agent has said nothing for {_PATIENCE_S:.0f} s: does it hang?") from error
        except OSError as error:
            raise AgentError("the agent has ended") from error
        if not line.endswith(b"\n"):
            why = "has ended" if self._welcome else f"hangs up: do {VIEWERS} others look at it already?"
            raise AgentError(f"the agent {why}")
        self._welcome = True
        return line.rstrip(b"\n")


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
