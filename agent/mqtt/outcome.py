"""What commands do: one module for each thing that can be controlled, and the thread that obeys (`desk`)."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a command."""

    msg: str
    """One line for people."""
    code: str = "ok"
    result: dict[str, Any] | None = None
    then: Callable[[], None] | None = None
    """What is to be done once the reply is on its way."""

    @property
    def ok(self) -> bool:
        """Whether it was obeyed."""
        return self.code == "ok"


@dataclass(frozen=True, slots=True)
class Later:
    """A command that takes minutes: others are obeyed meanwhile."""

    start: Callable[[Callable[[Outcome], None]], None]
    """Begins, and tells what became of it once, from another thread."""


def fault(error: Exception) -> Outcome:
    """Log an unexpected exception in a command, with its traceback; return the answer to that command."""
    log.error(f"control: a command met a fault in the agent ({type(error).__name__})", exc_info=error)
    return Outcome("the agent has a fault: its log has the details", "internal_error")
