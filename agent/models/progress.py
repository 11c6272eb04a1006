"""How a pull tells what it is doing."""

from typing import Protocol


class Progress(Protocol):
    """Called from the thread that pulls, often; must return quickly."""

    def note(self, message: str) -> None:
        """Something begins or was decided: one line for people."""

    def advance(self, label: str, done_bytes: int, total_bytes: int) -> None:
        """`done_bytes` of `total_bytes` of `label` are there; equal means that it is complete."""


class Silent:
    """Says nothing."""

    def note(self, message: str) -> None:
        """Ignore it."""

    def advance(self, label: str, done_bytes: int, total_bytes: int) -> None:
        """Ignore it."""
