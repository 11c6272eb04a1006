"""The queue of a simulated engine, its spool, and its listener."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from governor_board import Board
from governor_speech import HANG_OVER_S, LOOK_S, Spoken

from agent.governor.policy import Limits

_BYTES_PER_S: Final = 32_000


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another program that takes the processor for a while."""

    begin_h: float
    end_h: float
    leaves: float
    """Share of its speed that is left for the engine."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a simulation."""

    begin_s: float
    end_s: float
    """Since midnight."""
    governed: bool
    limits: Limits = field(default_factory=Limits)
    spool_bytes: int = 32 << 20
    board: Board = field(default_factory=Board)
    neighbours: tuple[Neighbour, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """An utterance for the engine: a draft, a finished one, or one that was kept."""

    spoken: Spoken
    length_s: float
    """Of what there is of it."""
    submitted_s: float
    kind: str
    """`draft`, `final` or `late`."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """Another level is to take over between two utterances."""

    level: int


@dataclass(slots=True)
class Work:
    """What the engine is at."""

    job: Job
    left_s: float
    """At full clock, without neighbours."""
    began_s: float


@dataclass(slots=True)
class Load:
    """An engine that is being loaded, or waits to take over."""

    level: int
    done_s: float
    handed_over: bool = False


@dataclass(slots=True)
class Kept:
    """The spool, by size."""

    max_bytes: int
    waiting: list[Spoken] = field(default_factory=list)

    def put(self, spoken: Spoken) -> bool:
        """Whether there was room."""
        used = sum(one.length_s for one in self.waiting) * _BYTES_PER_S
        fits = used + spoken.length_s * _BYTES_PER_S <= self.max_bytes
        if fits:
            self.waiting.append(spoken)
        return fits


def is_final(job: Job | Exchange) -> bool:
    """Whether it is a finished utterance of now."""
    return isinstance(job, Job) and job.kind == "final"


def events(speech: Iterator[Spoken], plan: Plan) -> Iterator[tuple[float, str, Spoken]]:
    """What the listener notices of each utterance that begins within the plan's time, in order."""
    for spoken in speech:
        if not plan.begin_s <= spoken.start_s < plan.end_s:
            continue
        if spoken.hesitates_s is not None:
            pause_s = spoken.start_s + spoken.hesitates_s
            yield pause_s + LOOK_S, "hesitated", spoken
            yield pause_s + HANG_OVER_S - LOOK_S, "resumed", spoken
        yield spoken.end_s + LOOK_S, "paused", spoken
        yield spoken.end_s + HANG_OVER_S, "ended", spoken
