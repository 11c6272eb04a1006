from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from agent.audio.frames import SAMPLE_RATE_HZ, Pcm16, Utterance
from agent.bench import latency
from agent.bench.child import PeerError
from agent.bench.clips import Clip
from agent.bench.latency import (
    PAUSE_MS,
    AgentRun,
    Arrival,
    Look,
    Playlist,
    can_be_timed,
    delays_of,
    quiet_room,
    quiet_sound,
    rest,
    string_together,
    take_latency,
)
from agent.bench.process import ProcessPool
from agent.bench.records import Failure, Journal, LatencyBlock, read_journal
from agent.bench.steps import Step, run_steps
from agent.bench.systems import parse_system

PAUSE = PAUSE_MS * SAMPLE_RATE_HZ // 1000
HANG_OVER_S = 0.6
PLAYED_AT_S = 1_000.0
NAMES = ("a", "b", "c")
OURS = parse_system("whisper_cpp:tiny.en-q8_0")


def tone(seconds: float) -> Pcm16:
    """Some sound."""
    return np.full(round(seconds * SAMPLE_RATE_HZ), 1_000, dtype=np.int16)


@pytest.fixture
def playlist() -> Playlist:
    """Clips of one, two and three seconds."""
    return string_together([tone(1.0), tone(2.0), tone(3.0)])


def utterances(playlist: Playlist) -> list[Utterance]:
    """One a clip: 0.3 s of pre-roll, speech to its end, 0.2 s of the pause."""
    found = []
    for index, start in enumerate(playlist.starts):
        first, speech_end = start - 4_800, start + (index + 1) * SAMPLE_RATE_HZ
        pcm = playlist.pcm[first : speech_end + 3_200]
        closed_at = speech_end + round(HANG_OVER_S * SAMPLE_RATE_HZ)
        found.append(Utterance(f"u{index}", pcm, first, 0, speech_end, closed_at))
    return found


def arrival(utterance: Utterance, after_hangover_s: float) -> Arrival:
    """A message about `utterance`, as late as that."""
    started_s = PLAYED_AT_S + utterance.position / SAMPLE_RATE_HZ
    received_s = PLAYED_AT_S + utterance.closed_at / SAMPLE_RATE_HZ + after_hangover_s
    return Arrival(started_s, utterance.duration_s, utterance.id, received_s)


def test_there_is_a_pause_around_every_clip(playlist: Playlist) -> None:
    """Clips keep their samples; in between is faint noise, not the digital silence that no room has."""
    assert playlist.starts == (PAUSE, 2 * PAUSE + 16_000, 3 * PAUSE + 48_000)
    assert len(playlist.pcm) == 4 * PAUSE + 96_000
    assert (playlist.pcm[playlist.starts[1] :][:32_000] == 1_000).all()
    assert 0 < np.abs(playlist.pcm[:PAUSE]).max() < 60


def test_a_delay_is_reckoned_from_both_ends(playlist: Playlist) -> None:
    """The one from the end of speech is longer than the other by the hang-over."""
    arrivals = [arrival(utterance, 0.05) for utterance in utterances(playlist)]
    found = list(delays_of(playlist, NAMES, utterances(playlist), arrivals))
    assert [delay.clip for delay in found] == ["a", "b", "c"]
    assert [delay.after_hangover_s for delay in found] == pytest.approx([0.05] * 3)
    assert [delay.from_speech_end_s for delay in found] == pytest.approx([0.05 + HANG_OVER_S] * 3)


def test_an_utterance_that_is_never_published_is_skipped(playlist: Playlist) -> None:
    """What the evidence rejects does not shift the others."""
    spoken = utterances(playlist)
    found = delays_of(playlist, NAMES, spoken, [arrival(spoken[0], 0.1), arrival(spoken[2], 0.3)])
    assert [(delay.clip, round(delay.after_hangover_s, 6)) for delay in found] == [("a", 0.1), ("c", 0.3)]


def test_an_arrival_that_fits_nothing_is_left_out(playlist: Playlist) -> None:
    """A message of another length is not taken for one of ours."""
    strange = Arrival(PLAYED_AT_S, 7.77, "?", PLAYED_AT_S + 9)
    spoken = utterances(playlist)
    assert len(list(delays_of(playlist, NAMES, spoken, [strange, arrival(spoken[1], 0.2)]))) == 1


def test_libraries_are_no_whole_systems() -> None:
    """Latency at a subscriber needs a system that sends."""
    assert can_be_timed(OURS)
    assert can_be_timed(parse_system("wyoming-faster-whisper:tiny.en-ct2"))
    assert not can_be_timed(parse_system("stock-faster-whisper:tiny.en-ct2"))


def test_a_clip_that_cannot_be_read_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of its block is played; the first one, which warms up, twice."""
    soundfile.write(tmp_path / "good.wav", quiet_room(SAMPLE_RATE_HZ), SAMPLE_RATE_HZ)
    (tmp_path / "bad.wav").write_text("no sound")
    good = Clip("set", "1", tmp_path / "good.wav", "en", "text", 1.0)
    bad, more = replace(good, id="0", path=tmp_path / "bad.wav"), replace(good, id="2")
    heard: list[int] = []

    def play(_system: object, pcm: Pcm16, _language: str) -> AgentRun:
        heard.append(len(pcm))
        return AgentRun((), (Look(1.0, 2.0, 3),))

    monkeypatch.setattr(latency, "run_agent", play)
    steps = [Step(OURS, "block 0", 0, (bad, good, more)), Step(OURS, "block 1", 0, (bad,))]
    journal = Journal(tmp_path)
    assert list(run_steps(steps, take_latency, journal, ProcessPool(journal, 1))) == steps
    journal.close()
    failure, block, another = read_journal(tmp_path)
    assert heard == [len(string_together([quiet_room(SAMPLE_RATE_HZ)] * 3).pcm)]
    assert isinstance(failure, Failure)
    assert (failure.step, failure) == (bad.key, another)
    assert isinstance(block, LatencyBlock)
    assert block.clips == (good.key, more.key)
    assert (block.cpu_s, block.peak_pss_bytes) == (2.0, 3)


def test_loading_does_not_count_as_rest() -> None:
    """The span begins with the first look after loading and ends with the last."""
    looks = [Look(age_s, 3.0, 1) for age_s in (0.0, 10.0, 20.1, 60.0)]
    assert rest(looks) == (looks[2], looks[3])
    with pytest.raises(PeerError):
        rest(looks[:3])


def test_silence_goes_on_for_as_long_as_was_asked(tmp_path: Path) -> None:
    """Recordings of silence are repeated, speech is left out, and without any recording there is a quiet room."""
    path = tmp_path / "hum.wav"
    soundfile.write(path, np.full(SAMPLE_RATE_HZ, 7, np.int16), SAMPLE_RATE_HZ)
    hum = Clip("set", "hum", path, "none", "", 1.0)
    speech = Clip("set", "speech", tmp_path / "missing.wav", "en", "words", 1.0)
    assert (quiet_sound([speech, hum], 2.5) == np.full(40_000, 7)).all()
    room = quiet_sound([speech], 1.0)
    assert len(room) == SAMPLE_RATE_HZ
    assert 4 < room.std() < 16
