"""Which message goes next, and which one goes when room runs out. Pure: time is an argument, payloads lie elsewhere.

prompt ─┐                                  replies and the like: no use later, and the first to go for room
live   ─┼─▶ take ─▶ on its way ─▶ settle
late   ─┤    ▲          │                  older than 60 s: slowly, and on a topic of their own
again  ─┘    └ rewind ◀─┴─▶ parked         refused for now
  ▲ delivered.py: what was delivered and is wanted once more, as slowly, after the late ones
"""

import heapq
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from agent.mqtt.delivered import OVERHEAD_BYTES, Delivered
from agent.mqtt.delivery import Fate, Outgoing
from agent.mqtt.pacing import QuotaPause, ReplayPace

LIVE_S: Final = 60.0
"""A transcript that leaves later than this belongs to the backlog: an hour-old "heater on" must not turn it on."""
PARKED_S: Final = 900.0
"""What the broker does not let us publish is tried again after this long, or with the next connection."""


class Place(Enum):
    """Where a message stands."""

    PROMPT = auto()
    LIVE = auto()
    LATE = auto()
    PARKED = auto()
    TAKEN = auto()
    PICKED = auto()
    """To go for room, as soon as the disk has let go of it; nobody else touches it meanwhile."""


_ABSENT: Final = frozenset({Place.TAKEN, Place.PICKED})
"""Places that take no room here, as far as the limits go."""


@dataclass(slots=True)
class Stub:
    """What the queue knows about a message."""

    key: int
    size_bytes: int
    accepted_s: float
    """Monotonic time of this boot; negative for a message that is older than the boot."""
    life_s: float
    """Seconds after which it is worth nothing any more."""
    can_be_late: bool
    """Whether there is a topic for it when it is late. Those are transcripts; everything else goes first for room."""
    of_this_boot: bool = True
    """A message of an earlier boot is late, however young it seems: nobody knows how long the machine was off."""
    place: Place = Place.TAKEN
    """Kept by the queue."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The message whose turn it is."""

    key: int
    late: bool
    """It goes to the topic for late ones."""


class DeliveryQueue:
    """Messages by key; the smaller the key, the older the message. Not thread-safe."""

    def __init__(self, max_messages: int, max_bytes: int, chance: random.Random, delivered: Delivered) -> None:
        self.max_bytes = max_bytes
        """Room for what waits; may be changed at any time."""
        self.dropped = 0
        """Messages given up: for room, expired, refused or lost."""
        self.delivered = delivered
        """What may be sent again. Whoever hands a message out tells it what that says."""
        self.waiting_bytes = 0
        """Room that is taken by what waits."""
        self._max_messages = max_messages
        self._stubs: dict[int, Stub] = {}
        # Heaps of keys. A key counts only where its stub says it is; leftovers are skipped.
        self._lanes: dict[Place, list[int]] = {Place.PROMPT: [], Place.LIVE: [], Place.LATE: []}
        self._parked: list[tuple[float, int]] = []
        self._waiting = 0
        self._pace = ReplayPace(chance)
        self._pause = QuotaPause()

    def __len__(self) -> int:
        return len(self._stubs)

    def __iter__(self) -> Iterator[int]:
        return iter(tuple(self._stubs))

    def waits(self, key: int) -> bool:
        """Whether `key` is here, not on its way, and not about to go."""
        return (stub := self._stubs.get(key)) is not None and stub.place not in _ABSENT

    def add(self, stub: Stub) -> None:
        """A new message."""
        self._stubs[stub.key] = stub
        self._line_up(stub)

    def redate(self, key: int, accepted_s: float) -> None:
        """The age of `key` is known better now."""
        if stub := self._stubs.get(key):
            stub.accepted_s = accepted_s

    def take(self, now_s: float) -> Turn | None:
        """The oldest message that is live, else the oldest of the backlog if it may go; it is on its way then."""
        if self._pause.due_in_s(now_s) > 0:
            return None
        self._reorder(now_s)
        heads = [head for head in (self._head(Place.PROMPT), self._head(Place.LIVE)) if head is not None]
        if heads:
            return self._go(min(heads), late=False)
        late = self._head(Place.LATE)
        if (late is None and not self.delivered.waits) or self._pace.due_in_s(now_s) > 0:
            return None
        self._pace.spend(now_s)
        return self._go(late, late=True) if late is not None else Turn(self.delivered.go(), late=True)

    def due_in_s(self, now_s: float) -> float:
        """Seconds until `take` may have something, if nothing else happens; infinity if nothing waits."""
        pause_s = self._pause.due_in_s(now_s)
        self._reorder(now_s)
        if self._head(Place.PROMPT) is not None or self._head(Place.LIVE) is not None:
            return pause_s
        if self._head(Place.LATE) is not None or self.delivered.waits:
            return max(pause_s, self._pace.due_in_s(now_s))
        if self._parked:
            return max(pause_s, self._parked[0][0] - now_s)
        return float("inf")

    def settle(self, key: int, fate: Fate, now_s: float) -> bool:
        """What became of a message on its way; True if it is to be forgotten."""
        if fate is Fate.BUSY:
            self._pause.refused(now_s)
        elif fate is Fate.DELIVERED:
            self._pause.accepted()
        self.delivered.settled(key, fate, now_s)
        stub = self._stubs.get(key)
        if stub is None or stub.place is not Place.TAKEN:
            return False
        match fate:
            case Fate.BUSY:
                self._line_up(stub)
                return False
            case Fate.PARKED:
                self.park(key, now_s + PARKED_S)
                return False
            case Fate.REFUSED | Fate.EXPIRED:
                self.dropped += 1
            case Fate.DELIVERED:
                pass
        del self._stubs[key]
        return True

    def park(self, key: int, until_s: float) -> None:
        """Set a message on its way aside until `until_s`."""
        self._put(self._stubs[key], Place.PARKED)
        heapq.heappush(self._parked, (until_s, key))

    def rewind(self) -> None:
        """The connection is lost: what was on its way or parked lines up again."""
        self._pace.connection_lost()
        self.delivered.rewind()
        self._parked.clear()
        for stub in self._stubs.values():
            if stub.place in {Place.TAKEN, Place.PARKED}:
                self._line_up(stub)

    def drop(self, key: int) -> None:
        """Give `key` up, wherever it is; nothing if it was forgotten meanwhile."""
        if (stub := self._stubs.pop(key, None)) is None:
            return
        self._count(stub, -1)
        self.dropped += 1

    def clear(self) -> list[int]:
        """Forget whatever waits, uncounted, and whatever could be sent again; return the keys of the former."""
        self.delivered.clear()
        gone = [key for key, stub in self._stubs.items() if stub.place is not Place.TAKEN]
        for key in gone:
            self._count(self._stubs.pop(key), -1)
        return gone

    def expire(self, now_s: float) -> list[int]:
        """Give up what nobody wants any more; return their keys."""
        gone: list[int] = []
        for place in self._lanes:
            while (key := self._head(place)) is not None:
                stub = self._stubs[key]
                if now_s - stub.accepted_s < stub.life_s:
                    break
                self.drop(key)
                gone.append(key)
        return gone

    def make_room(self) -> list[int]:
        """Give up as much as the limits ask for; return the keys."""
        gone: list[int] = []
        while self._waiting and (self._waiting > self._max_messages or self.waiting_bytes > self.max_bytes):
            gone += self.shed(1)
        return gone

    def shed(self, count: int) -> list[int]:
        """Give up `count` messages that wait, if there are so many; return their keys."""
        gone = self.pick(count)
        for key in gone:
            self.drop(key)
        return gone

    def pick(self, count: int) -> list[int]:
        """The first `count` to go when room runs out; nobody else touches them until they are dropped or given back.

        What is of no use later goes first, then the oldest transcripts.
        """
        picked: list[int] = []
        while len(picked) < count and (key := self._first_to_go()) is not None:
            self._put(self._stubs[key], Place.PICKED)
            picked.append(key)
        return picked

    def give_back(self, keys: Iterable[int]) -> None:
        """Line up again what was picked in vain."""
        for key in keys:
            if (stub := self._stubs.get(key)) and stub.place is Place.PICKED:
                self._line_up(stub)

    def _first_to_go(self) -> int | None:
        if (key := self._head(Place.PROMPT)) is not None:
            return key
        oldest = [head for head in (self._head(Place.LATE), self._head(Place.LIVE)) if head is not None]
        self._skip_parked()
        return min(oldest + [key for _, key in self._parked[:1]], default=None)

    def _reorder(self, now_s: float) -> None:
        """Bring back what was parked for long enough, and move what is no longer live."""
        self._skip_parked()
        while self._parked and self._parked[0][0] <= now_s:
            self._line_up(self._stubs[heapq.heappop(self._parked)[1]])
            self._skip_parked()
        while (key := self._head(Place.LIVE)) is not None and now_s - self._stubs[key].accepted_s > LIVE_S:
            heapq.heappop(self._lanes[Place.LIVE])
            self._put(self._stubs[key], Place.LATE)
            heapq.heappush(self._lanes[Place.LATE], key)

    def _skip_parked(self) -> None:
        while self._parked and not self._is_in(self._parked[0][1], Place.PARKED):
            heapq.heappop(self._parked)

    def _line_up(self, stub: Stub) -> None:
        place = Place.PROMPT if not stub.can_be_late else Place.LIVE if stub.of_this_boot else Place.LATE
        self._put(stub, place)
        heapq.heappush(self._lanes[place], stub.key)

    def _go(self, key: int, *, late: bool) -> Turn:
        stub = self._stubs[key]
        heapq.heappop(self._lanes[stub.place])
        self._put(stub, Place.TAKEN)
        self.delivered.expect(key)
        return Turn(key, late)

    def _head(self, place: Place) -> int | None:
        lane = self._lanes[place]
        while lane and not self._is_in(lane[0], place):
            heapq.heappop(lane)
        return lane[0] if lane else None

    def _is_in(self, key: int, place: Place) -> bool:
        return (stub := self._stubs.get(key)) is not None and stub.place is place

    def _put(self, stub: Stub, place: Place) -> None:
        self._count(stub, -1)
        stub.place = place
        self._count(stub, 1)

    def _count(self, stub: Stub, sign: int) -> None:
        if stub.place not in _ABSENT:
            self._waiting += sign
            self.waiting_bytes += sign * (stub.size_bytes + OVERHEAD_BYTES)


def stub_of(key: int, outgoing: Outgoing, max_age_s: int) -> Stub:
    """What the queue needs to know about a message of this boot."""
    life = life_s(outgoing.late_topic, outgoing.expiry_s, max_age_s)
    return Stub(key, len(outgoing.payload), outgoing.accepted_s, life, can_be_late=outgoing.late_topic is not None)


def life_s(late_topic: str | None, expiry_s: int | None, max_age_s: int) -> int:
    """How long a message is worth keeping. A transcript has the backlog to live in: not its expiry, its age counts."""
    return max_age_s if late_topic is not None or expiry_s is None else min(expiry_s, max_age_s)
