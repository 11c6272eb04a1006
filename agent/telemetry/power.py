"""Under-voltage and throttling: what the board says now, and how often it began. Pure: readings come in."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flag:
    """One look at something that is so or not."""

    now: bool | None = None
    """Whether it is so at this moment; None where the board cannot say."""
    seen: int | None = None
    """A count or a flag of the board's own that rises when it happens; None where there is none."""


@dataclass(frozen=True, slots=True)
class PowerReading:
    """What the board says about its power."""

    undervoltage: Flag = Flag()
    throttled: Flag = Flag()


class EventCounter:
    """Counts how often something began, from looks at it that are some seconds apart.

    What came and went between two looks is one event if the board remembers it, and is not noticed if it does not.
    """

    def __init__(self) -> None:
        self.now: bool | None = None
        """Whether it is so, or has been since the look before; None while nothing is known."""
        self.count: int | None = None
        """Events since the start; None while nothing is known."""
        self._seen: int | None = None

    def look(self, flag: Flag) -> None:
        """Take in the next look."""
        if flag.now is None and flag.seen is None:
            self.now = None
            return
        # What had risen before we came happened before we came.
        risen = flag.seen is not None and self._seen is not None and flag.seen > self._seen
        self._seen = self._seen if flag.seen is None else flag.seen
        happening = bool(flag.now) or risen
        self.count = (self.count or 0) + (happening and not self.now)
        self.now = happening
