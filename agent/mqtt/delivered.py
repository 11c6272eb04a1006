"""The last transcripts that the broker has, for whoever asks for them again. In memory only, and pure.

expect, handed ─▶ on its way ─ settled ─▶ kept ─ ask ─▶ waiting ─ go ─▶ on its way again ─ settled ─▶ done
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import Final, Self

from agent.mqtt.delivery import Entry, Fate, Outgoing, Replay, SeqRange

MAX_MESSAGES: Final = 256
MAX_BYTES: Final = 256 << 10
OVERHEAD_BYTES: Final = 256
"""What a message takes besides its payload, roughly."""


class Delivered:
    """At most `max_messages` of `max_bytes`, none older than `max_age_s`; the oldest go first. Not thread-safe.

    Nothing is ever kept with `max_messages = 0`. Keys of what is sent again are negative, so that they are no keys of
    an outbox.
    """

    def __init__(self, max_age_s: int, max_messages: int = MAX_MESSAGES, max_bytes: int = MAX_BYTES) -> None:
        self._max_age_s = max_age_s
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._on_their_way: dict[int, Outgoing | None] = {}
        self._kept: dict[int, Outgoing] = {}
        self._bytes = 0
        self._waiting: dict[int, Outgoing] = {}
        self._going: dict[int, Outgoing] = {}
        self._keys = itertools.count(-1, -1)

    @classmethod
    def of(cls, max_age_s: int, *, replayable: bool) -> Self:
        """With the usual room, or none where words must not be kept longer than needed."""
        return cls(max_age_s, MAX_MESSAGES if replayable else 0)

    def expect(self, key: int) -> None:
        """A message of the outbox is about to go to the broker."""
        self._on_their_way[key] = None

    def handed(self, key: int, outgoing: Outgoing) -> None:
        """It goes, and this is what it says; of no interest any more if all was to be forgotten meanwhile.

        Nor is what has a number and no words: it has no topic for late ones.
        """
        if key in self._on_their_way and outgoing.late_topic is not None and self._max_messages:
            self._on_their_way[key] = outgoing

    def settled(self, key: int, fate: Fate, now_s: float) -> None:
        """What became of a message that was handed over, or that went again."""
        if (again := self._going.pop(key, None)) is not None:
            if fate is Fate.BUSY:
                self._waiting = dict(sorted({**self._waiting, key: again}.items(), reverse=True))
            return  # whatever else happened to it, who asked may ask once more
        outgoing = self._on_their_way.pop(key, None)
        if outgoing is not None and outgoing.seq is not None and fate is Fate.DELIVERED:
            self._forget([outgoing.seq])
            self._kept[outgoing.seq] = outgoing
            self._bytes += _size_bytes(outgoing)
            self._keep_to_limits(now_s)

    def rewind(self) -> None:
        """The connection is lost: what was on its way will be handed over again, and what goes again waits again."""
        self._on_their_way.clear()
        self._waiting = dict(sorted({**self._waiting, **self._going}.items(), reverse=True))
        self._going.clear()

    def clear(self) -> None:
        """Forget everything, also what is only just being delivered."""
        self._on_their_way.clear()
        self._kept.clear()
        self._waiting.clear()
        self._going.clear()
        self._bytes = 0

    def ask(self, wanted: SeqRange, now_s: float) -> Replay:
        """Let what is here of `wanted` wait to go again, oldest first; nothing, while others still do."""
        self._keep_to_limits(now_s)
        kept = sorted(self._kept)
        available = SeqRange(kept[0], kept[-1]) if kept else None
        found = [seq for seq in kept if wanted.first <= seq <= wanted.last]
        missing = tuple(_gaps(wanted, found))
        if left := len(self._waiting) + len(self._going):
            return Replay(0, missing, available, still_waiting=left)
        self._waiting = {next(self._keys): self._kept[seq].replayed(self._max_age_s) for seq in found}
        return Replay(len(found), missing, available)

    @property
    def waits(self) -> bool:
        """Whether something is to go again."""
        return bool(self._waiting)

    def go(self) -> int:
        """The key of the oldest that is to go again; it is on its way then. Only to be called if one `waits`."""
        key = next(iter(self._waiting))
        self._going[key] = self._waiting.pop(key)
        return key

    def entry(self, key: int) -> Entry | None:
        """What goes again under `key`; None if it is not one of ours."""
        outgoing = self._going.get(key)
        return None if outgoing is None else Entry(key, outgoing)

    def _keep_to_limits(self, now_s: float) -> None:
        aged = [seq for seq, outgoing in self._kept.items() if now_s - outgoing.accepted_s >= self._max_age_s]
        self._forget(aged)
        while self._kept and (len(self._kept) > self._max_messages or self._bytes > self._max_bytes):
            self._forget([next(iter(self._kept))])

    def _forget(self, seqs: Iterable[int]) -> None:
        for seq in seqs:
            if outgoing := self._kept.pop(seq, None):
                self._bytes -= _size_bytes(outgoing)


def _size_bytes(outgoing: Outgoing) -> int:
    return len(outgoing.payload) + OVERHEAD_BYTES


def _gaps(wanted: SeqRange, found: Iterable[int]) -> Iterator[SeqRange]:
    """What of `wanted` is not in `found`, which goes up."""
    first = wanted.first
    for seq in found:
        if seq > first:
            yield SeqRange(first, seq - 1)
        first = seq + 1
    if first <= wanted.last:
        yield SeqRange(first, wanted.last)
