"""Which stages are late. Pure: somebody else looks at the clock and at the stages, and tells this object."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Late:
    """A stage that should have been heard from."""

    stage: str
    silent_s: float
    """Seconds since its last sign of life."""

    def __str__(self) -> str:
        return f"{self.stage} has been silent for {self.silent_s:.0f} s"


class Heartbeats:
    """The last sign of life of each stage, and how long it may be silent. Used by one thread.

    A stage that waits for input owes no sign of life: a deadline runs only while there is something to do. Times are
    seconds of any one monotonic clock.
    """

    def __init__(self) -> None:
        self._deadlines: dict[str, tuple[float, float]] = {}

    def expect(self, stage: str, *, since_s: float, within_s: float) -> None:
        """The last sign of life of `stage` was at `since_s`; the next is due within `within_s`."""
        self._deadlines[stage] = (since_s, since_s + within_s)

    def rest(self, stage: str) -> None:
        """`stage` has nothing to do."""
        self._deadlines.pop(stage, None)

    def late(self, now_s: float) -> tuple[Late, ...]:
        """The stages whose deadline has passed at `now_s`, the longest silent first."""
        found = [Late(stage, now_s - since_s) for stage, (since_s, due_s) in self._deadlines.items() if now_s > due_s]
        return tuple(sorted(found, key=lambda late: -late.silent_s))
