import numpy as np
import pytest

from agent.audio.frames import SAMPLE_RATE_HZ, Pcm16, Utterance
from agent.bench.latency import PAUSE_MS, Arrival, Playlist, delays, string_together

PAUSE = PAUSE_MS * SAMPLE_RATE_HZ // 1000
HANG_OVER_S = 0.6
PLAYED_AT_S = 1_000.0


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
    found = delays(playlist, utterances(playlist), arrivals)
    assert [delay.clip for delay in found] == [0, 1, 2]
    assert [delay.after_hangover_s for delay in found] == pytest.approx([0.05] * 3)
    assert [delay.from_speech_end_s for delay in found] == pytest.approx([0.05 + HANG_OVER_S] * 3)


def test_an_utterance_that_is_never_published_is_skipped(playlist: Playlist) -> None:
    """What the evidence rejects does not shift the others."""
    spoken = utterances(playlist)
    found = delays(playlist, spoken, [arrival(spoken[0], 0.1), arrival(spoken[2], 0.3)])
    assert [(delay.clip, round(delay.after_hangover_s, 6)) for delay in found] == [(0, 0.1), (2, 0.3)]


def test_an_arrival_that_fits_nothing_is_left_out(playlist: Playlist) -> None:
    """A message of another length is not taken for one of ours."""
    strange = Arrival(PLAYED_AT_S, 7.77, "?", PLAYED_AT_S + 9)
    spoken = utterances(playlist)
    assert len(delays(playlist, spoken, [strange, arrival(spoken[1], 0.2)])) == 1
