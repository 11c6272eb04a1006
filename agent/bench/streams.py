"""Speech in a stream, from raw results to figures: medians over seeds. Pure functions."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from agent.bench.records import Record, StreamBlock, StreamMeasurement
from agent.bench.scoring import Alignment, align

ALL = "all"


@dataclass(frozen=True, slots=True)
class StreamSummary:
    """One system in all streams, in one room, or on one set."""

    name: str
    part: str
    clips: int
    """Of one seed; a clip counts once a room."""
    error_rate: float
    """In the stream. Words as Whisper's normaliser leaves them; what is spelled is not joined."""
    whole_error_rate: float
    """Of the stock library, each clip by itself."""
    deletions: float
    whole_deletions: float
    first_lost: float
    """Clips whose first word the stock library hears and the stream leaves out."""
    last_lost: float
    split: float
    """Clips that are published in two utterances or more."""
    strays: float | None
    """Published utterances without a clip; None for a set."""
    cpu_rtf: float | None
    """CPU seconds a second of the stream; None for a set."""


@dataclass(frozen=True, slots=True)
class _Scored:
    measured: StreamMeasurement
    stream: Alignment
    whole: Alignment

    def loses(self, index: int) -> bool:
        """Whether the stream leaves out a word that the stock library hears."""
        return self.whole.operations[index] == "equal" and self.stream.operations[index] == "delete"


def stream_summaries(records: Sequence[Record]) -> tuple[StreamSummary, ...]:
    """What was measured in streams: by system in all, by room, and by set."""
    latest = {
        (one.system, one.room, one.repeat, one.set_name, one.clip_id): one
        for one in records
        if isinstance(one, StreamMeasurement)
    }
    scored = [_Scored(one, *_alignments(one)) for one in latest.values()]
    scored = [one for one in scored if one.whole.operations]
    blocks = [one for one in records if isinstance(one, StreamBlock)]
    return tuple(
        part for name in dict.fromkeys(one.measured.system for one in scored) for part in _parts(name, scored, blocks)
    )


def _alignments(one: StreamMeasurement) -> tuple[Alignment, Alignment]:
    return align(one.reference, one.text, one.language), align(one.reference, one.whole_text, one.language)


def _parts(name: str, scored: Sequence[_Scored], blocks: Sequence[StreamBlock]) -> Iterator[StreamSummary]:
    ours = [one for one in scored if one.measured.system == name]
    heard = [block for block in blocks if block.system == name]
    yield _summary(name, ALL, ours, heard)
    for room in dict.fromkeys(one.measured.room for one in ours):
        of_room = [one for one in ours if one.measured.room == room]
        yield _summary(name, room, of_room, [block for block in heard if block.room == room])
    for set_name in sorted({one.measured.set_name for one in ours}):
        yield _summary(name, set_name, [one for one in ours if one.measured.set_name == set_name], [])


def _summary(name: str, part: str, scored: Sequence[_Scored], blocks: Sequence[StreamBlock]) -> StreamSummary:
    repeats = {one.measured.repeat for one in scored}
    by_repeat = [[one for one in scored if one.measured.repeat == repeat] for repeat in repeats]

    def median(figure: Callable[[list[_Scored]], float]) -> float:
        return statistics.median(map(figure, by_repeat))

    return StreamSummary(
        name=name,
        part=part,
        clips=max(map(len, by_repeat)),
        error_rate=median(lambda group: _error_rate([one.stream for one in group])),
        whole_error_rate=median(lambda group: _error_rate([one.whole for one in group])),
        deletions=median(lambda group: sum(one.stream.errors.deletions for one in group)),
        whole_deletions=median(lambda group: sum(one.whole.errors.deletions for one in group)),
        first_lost=median(lambda group: sum(one.loses(0) for one in group)),
        last_lost=median(lambda group: sum(one.loses(-1) for one in group)),
        split=median(lambda group: sum(one.measured.pieces > 1 for one in group)),
        strays=sum(block.strays for block in blocks) / len(repeats) if blocks else None,
        cpu_rtf=sum(block.cpu_s for block in blocks) / sum(block.audio_s for block in blocks) if blocks else None,
    )


def _error_rate(alignments: Sequence[Alignment]) -> float:
    return sum(one.errors.total for one in alignments) / sum(one.errors.reference for one in alignments)
