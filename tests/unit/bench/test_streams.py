import pytest

from agent.bench.records import Record, StreamBlock, StreamMeasurement
from agent.bench.streams import ALL, stream_summaries

SAID = "turn off all the lights"


def heard(
    text: str, whole: str = SAID, clip: str = "1", repeat: int = 0, room: str = "quiet", pieces: int = 1
) -> Record:
    """One clip in a stream."""
    return StreamMeasurement("ours", room, repeat, "set", clip, "en", SAID, text, whole, pieces)


def block(repeat: int = 0, room: str = "quiet", cpu_s: float = 2.0, strays: int = 0) -> Record:
    """A stream of a hundred seconds."""
    return StreamBlock("ours", room, 0, repeat, 100.0, cpu_s, strays)


def test_what_is_lost_is_counted_against_the_whole_clip() -> None:
    """First and last words count as lost if the stock library has them and the stream does not."""
    records = [
        heard("off all the lights", clip="1"),
        heard("turn off all the", clip="2", pieces=2),
        heard("off all the lights", whole="off all the lights", clip="3"),
        heard("burn off all the lights", clip="4"),
        block(strays=3),
    ]
    everything = stream_summaries(records)[0]
    assert everything.part == ALL
    assert (everything.first_lost, everything.last_lost, everything.split) == (1, 1, 1)
    assert (everything.deletions, everything.whole_deletions) == (3, 1)
    assert everything.error_rate == pytest.approx(4 / 20)
    assert everything.whole_error_rate == pytest.approx(1 / 20)
    assert (everything.strays, everything.cpu_rtf) == (3, 0.02)


def test_figures_are_medians_over_seeds() -> None:
    """One unlucky order of the clips does not decide."""
    records = [record for repeat, text in enumerate((SAID, "", "turn off")) for record in (heard(text, repeat=repeat),)]
    summary = stream_summaries([*records, *(block(repeat) for repeat in range(3))])[0]
    assert (summary.clips, summary.deletions) == (1, 3)
    assert summary.error_rate == pytest.approx(0.6)


def test_rooms_and_sets_have_rows_of_their_own() -> None:
    """A clip counts once a room; a set has neither strays nor CPU time, for clips of other sets are in its streams."""
    records = [heard(SAID), heard("", room="kitchen"), block(), block(room="kitchen", strays=1)]
    rows = {row.part: row for row in stream_summaries(records)}
    assert set(rows) == {ALL, "quiet", "kitchen", "set"}
    assert (rows[ALL].clips, rows["quiet"].clips, rows["kitchen"].deletions) == (2, 1, 5)
    assert (rows["kitchen"].strays, rows["set"].strays, rows["set"].cpu_rtf) == (1, None, None)


def test_a_stream_that_is_taken_again_counts_once() -> None:
    """A run that was cut short between a stream's clips and its end takes the stream again."""
    (summary, *_) = stream_summaries([heard(""), heard(SAID), block()])
    assert (summary.clips, summary.deletions) == (1, 0)


def test_a_reference_without_words_is_left_out() -> None:
    """The normaliser leaves nothing of "Hmm."."""
    record = StreamMeasurement("ours", "quiet", 0, "set", "1", "en", "Hmm.", "", "", 0)
    assert stream_summaries([record, block()]) == ()
