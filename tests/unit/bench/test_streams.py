from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from agent.audio.frames import SAMPLE_RATE_HZ, Pcm16, rms_dbfs
from agent.bench.child import Answer
from agent.bench.clips import Clip
from agent.bench.records import Record, StreamBlock, StreamClip
from agent.bench.steps import steps_left
from agent.bench.streams import CLIPS_A_STREAM, Room, heard_of, lay, plan_streams, rooms
from agent.bench.summary import ALL, Row, stream_summaries
from agent.bench.systems import parse_system
from agent.errors import ConfigError

STEADY = Room("steady", -58)
SYSTEMS = [
    parse_system(name) for name in ("faster_whisper:tiny.en-ct2", "stock-faster-whisper:tiny.en-ct2", "scripted")
]


def clip(number: int, language: str = "en") -> Clip:
    """A clip that no test reads."""
    return Clip("set", str(number), Path("missing.wav"), language, f"word {number}", 1.0)


def sounds(number: int = 4) -> dict[Clip, Pcm16]:
    """Tones of different lengths, each a second or more."""
    times_s = [np.arange(SAMPLE_RATE_HZ + 1_000 * index) / SAMPLE_RATE_HZ for index in range(number)]
    return {clip(i): (3_000 * np.sin(2_000 * time_s)).astype(np.int16) for i, time_s in enumerate(times_s)}


def test_a_seed_gives_one_stream_and_another_seed_another_one() -> None:
    """Order, pauses and noise follow from the seed alone."""
    first, again, other = (lay(sounds(), STEADY, seed) for seed in (7, 7, 8))
    assert (first.pcm == again.pcm).all()
    assert list(first.spans) == list(again.spans)
    assert list(first.spans.items()) != list(other.spans.items())


@pytest.mark.parametrize("seed", [7, 8, 9])
def test_clips_lie_apart_on_the_same_noise_under_every_seed(seed: int) -> None:
    """Pauses last 2 to 15 s, and what surrounds a clip is the same sound, so that it is decoded whole once."""
    stream, first = lay(sounds(), STEADY, seed), lay(sounds(), STEADY, 7)
    spans = list(stream.spans.items())
    pauses_s = [(after[1][0] - before[1][1]) / SAMPLE_RATE_HZ for before, after in pairwise(spans)]
    assert set(pauses_s) <= {2, 4, 8, 15}
    for one, (start, end) in spans:
        assert (stream.takes[one] == first.takes[one]).all()
        assert (stream.pcm[start:end] == first.takes[one][4_800:-4_800]).all()


def test_the_room_has_the_level_that_its_name_says(tmp_path: Path) -> None:
    """Generated and recorded noise alike, at an odd length too."""
    soundfile.write(tmp_path / "kettle.wav", np.random.default_rng(1).normal(0, 0.1, 5_000), SAMPLE_RATE_HZ)
    recorded = rooms([f"{tmp_path}@-40", str(tmp_path / "kettle.wav")])
    assert [room.level_dbfs for room in recorded] == [-58, -46, -40, -50]
    assert len({room.name for room in recorded}) == 4
    for room in recorded:
        sound = room.sound(40_001, seed=3)
        assert len(sound) == 40_001
        assert rms_dbfs(np.round(sound).astype(np.int16)) == pytest.approx(room.level_dbfs, abs=0.3)


@pytest.mark.parametrize("noise", ["nowhere", "nowhere.wav", "{folder}", "{folder}/text.txt", "{folder}@loud"])
def test_noise_that_is_not_there_is_one_line(noise: str, tmp_path: Path) -> None:
    """The message names what was given."""
    (tmp_path / "text.txt").write_text("no sound")
    given = noise.format(folder=tmp_path)
    with pytest.raises(ConfigError) as raised:
        rooms([given])
    assert given in str(raised.value)
    assert "\n" not in str(raised.value)


def test_only_our_engines_with_a_model_are_streamed_and_nothing_twice() -> None:
    """Each language has streams of its own, long sets several; clips without speech are in none."""
    clips = [clip(n) for n in range(CLIPS_A_STREAM + 1)] + [clip(900, "de"), clip(901, "none")]
    steps = plan_streams([*SYSTEMS, parse_system("whisper_cpp:base-q8_0")], clips, [STEADY], repeats=2)
    english = [step for step in steps if step.system is SYSTEMS[0] and not step.repeat]
    assert sorted(one.id for step in english for one in step.clips) == sorted(str(n) for n in range(CLIPS_A_STREAM + 1))
    assert all(len(step.clips) <= CLIPS_A_STREAM for step in steps)
    assert {one.language for step in steps for one in step.clips if step.system is not SYSTEMS[0]} == {"en", "de"}
    assert {step.system.adapter for step in steps} == {"faster_whisper", "whisper_cpp"}
    taken = [StreamBlock(s.system.name, s.name, s.repeat, s.room, 1.0, 1.0, 0, (), ()) for s in steps]
    assert steps_left(steps, taken) == []
    assert len({step.key for step in steps}) == len(steps)


def test_an_utterance_belongs_to_the_clips_that_it_overlaps_with() -> None:
    """Two utterances in a clip are two pieces of it; one in a pause belongs to none."""
    stream = lay(sounds(2), STEADY, 7)
    (first, (start, end)), (second, (later, _)) = stream.spans.items()
    pieces = [(start - 100, start + 100, "one"), (end - 100, end + 100, "two"), (end + 200, later - 1, "noise")]
    answer = Answer("", pieces=tuple(pieces), wall_s=0.0, cpu_s=0.0, peak_rss_bytes=0, pss_bytes=0)
    found = {one.clip_id: one for one in heard_of(stream, answer, {first: "one two", second: ""})}
    assert (found[first.id].text, found[first.id].pieces, found[first.id].whole_text) == ("one two", 2, "one two")
    assert (found[second.id].text, found[second.id].pieces) == ("", 0)
    assert stream.clips_in(*pieces[-1][:2]) == []


SAID = "turn off all the lights"


def heard(text: str, whole: str = SAID, clip: str = "1", pieces: int = 1) -> StreamClip:
    """One clip in a stream."""
    return StreamClip("set", clip, "en", SAID, text, whole, pieces)


def block(
    *clips: StreamClip, repeat: int = 0, room: str = "quiet", number: int = 0, cpu_s: float = 2.0, strays: int = 0
) -> Record:
    """A stream of a hundred seconds."""
    return StreamBlock("ours", f"{room} {number}", repeat, room, 100.0, cpu_s, strays, (), clips)


def everything(*blocks: Record) -> Row:
    """The row of all streams."""
    return stream_summaries(blocks)[0]


def test_what_is_lost_is_counted_against_the_whole_clip() -> None:
    """First and last words count as lost if the stock library has them and the stream does not."""
    row = everything(
        block(
            heard("off all the lights", clip="1"),
            heard("turn off all the", clip="2", pieces=2),
            heard("off all the lights", whole="off all the lights", clip="3"),
            heard("burn off all the lights", clip="4"),
            strays=3,
        )
    )
    assert row["part"] == ALL
    assert (row["first_lost"], row["last_lost"], row["split"]) == (1, 1, 1)
    assert (row["deletions"], row["whole_deletions"]) == (3, 1)
    assert row["error_rate"] == pytest.approx(4 / 20)
    assert row["whole_error_rate"] == pytest.approx(1 / 20)
    assert (row["strays"], row["cpu_rtf"]) == (3, 0.02)


def test_figures_are_medians_over_seeds() -> None:
    """One unlucky order of the clips does not decide."""
    row = everything(*(block(heard(text), repeat=repeat) for repeat, text in enumerate((SAID, "", "turn off"))))
    assert (row["seeds"], row["clips"], row["deletions"]) == (3, 1, 3)
    assert row["error_rate"] == pytest.approx(0.6)


def test_a_seed_that_was_interrupted_does_not_count() -> None:
    """The clips that it has may be the easier ones, or the harder ones: neither its errors nor its costs are taken."""
    whole_seeds = [
        block(heard("", clip=str(number)), repeat=repeat, number=number) for repeat in range(2) for number in range(2)
    ]
    interrupted = block(heard(SAID, clip="0"), repeat=2, cpu_s=90.0, strays=50)
    row = everything(*whole_seeds, interrupted)
    assert (row["seeds"], row["clips"], row["error_rate"], row["deletions"]) == (2, 2, 1.0, 10)
    assert (row["strays"], row["cpu_rtf"]) == (0, 0.02)
    assert everything(interrupted)["seeds"] == 1


def test_rooms_and_sets_have_rows_of_their_own() -> None:
    """A clip counts once a room; a set has neither strays nor CPU time, for clips of other sets are in its streams."""
    rows = {
        row["part"]: row for row in stream_summaries([block(heard(SAID)), block(heard(""), room="kitchen", strays=1)])
    }
    assert set(rows) == {ALL, "quiet", "kitchen", "set"}
    assert (rows[ALL]["clips"], rows["quiet"]["clips"], rows["kitchen"]["deletions"]) == (2, 1, 5)
    assert (rows["kitchen"]["strays"], rows["set"]["strays"], rows["set"]["cpu_rtf"]) == (1, None, None)


def test_a_reference_without_words_is_left_out() -> None:
    """The normaliser leaves nothing of "Hmm."."""
    assert stream_summaries([block(StreamClip("set", "1", "en", "Hmm.", "", "", 0))]) == ()
