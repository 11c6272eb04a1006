from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from agent.audio.frames import SAMPLE_RATE_HZ, Pcm16, rms_dbfs
from agent.bench.clips import Clip
from agent.bench.records import StreamBlock
from agent.bench.stream import CLIPS_A_STREAM, Room, StreamStep, lay, measurements, plan_streams, rooms, streams_done
from agent.bench.systems import parse_system
from agent.bench.wire_format import Answer
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
    taken = [StreamBlock(s.system.name, s.room.name, s.block, s.repeat, 1.0, 1.0, 0) for s in steps]
    assert streams_done(taken) == {step.key for step in steps}
    assert len(taken) == len(streams_done(taken))


def test_an_utterance_belongs_to_the_clips_that_it_overlaps_with() -> None:
    """Two utterances in a clip are two pieces of it; one in a pause belongs to none."""
    stream = lay(sounds(2), STEADY, 7)
    (first, (start, end)), (second, (later, _)) = stream.spans.items()
    pieces = [(start - 100, start + 100, "one"), (end - 100, end + 100, "two"), (end + 200, later - 1, "noise")]
    step = StreamStep(SYSTEMS[0], STEADY, 0, tuple(stream.spans), 0)
    answer = Answer("", 0.0, 0.0, 0, 0, pieces=pieces)
    found = {one.clip_id: one for one in measurements(step, stream, answer, {first: "one two", second: ""})}
    assert (found[first.id].text, found[first.id].pieces, found[first.id].whole_text) == ("one two", 2, "one two")
    assert (found[second.id].text, found[second.id].pieces) == ("", 0)
    assert stream.clips_in(*pieces[-1][:2]) == []
