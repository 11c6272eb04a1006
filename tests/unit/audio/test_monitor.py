import numpy as np
import pytest

from agent.audio.frames import FRAME_SAMPLES, AudioFrame, Pcm16
from agent.audio.monitor import AudioMonitor, Condition
from tests.support.clips import clip, silence


class Rig:
    """A monitor that is played sound."""

    def __init__(self) -> None:
        self.monitor = AudioMonitor()
        self._position = 0

    def play(self, pcm: Pcm16) -> Condition:
        """Whole frames of it; what the monitor says then."""
        for first in range(0, len(pcm) - FRAME_SAMPLES + 1, FRAME_SAMPLES):
            self.monitor.hear(AudioFrame(pcm[first : first + FRAME_SAMPLES], self._position, 0))
            self._position += FRAME_SAMPLES
        return self.monitor.condition

    def skip(self, seconds: float) -> None:
        """Lose so much."""
        self._position += round(seconds * 16_000)

    def resume(self, seconds: float) -> None:
        """Be muted for so long."""
        self.skip(seconds)
        self.monitor.hear(AudioFrame(silence(0.032), self._position, 0, resumed=True))
        self._position += FRAME_SAMPLES


@pytest.fixture
def rig() -> Rig:
    """One that has heard nothing."""
    return Rig()


def level(value: int, seconds: float) -> Pcm16:
    """All samples the same."""
    return np.full(round(seconds * 16_000), value, np.int16)


def test_speech_and_a_quiet_room_are_well(rig: Rig) -> None:
    """What is normal is no condition, and its figures are near zero."""
    assert rig.monitor.condition == Condition()
    condition = rig.play(np.concatenate([silence(10), clip("en_dir-intro"), silence(10)]))
    assert (condition.codes, condition.gaps, condition.silences) == ((), 0, 0)
    assert condition.clip_pct == 0.0
    assert condition.offset_pct == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("value", [0, 137, -32_768])
def test_samples_that_are_all_the_same_are_an_alarm_after_five_seconds(rig: Rig, value: int) -> None:
    """A microphone that is switched off at its cable delivers zeros, a broken one something else; never just that."""
    rig.play(silence(3))
    assert "audio_silent" not in rig.play(level(value, 4.0)).codes
    condition = rig.play(level(value, 3.0))
    assert "audio_silent" in condition.codes
    assert condition.silences == 1
    assert "audio_silent" not in rig.play(silence(4)).codes


def test_a_second_silence_is_counted_again_and_a_moment_of_sound_ends_none(rig: Rig) -> None:
    """A crackle in a dead line does not make it alive."""
    rig.play(level(0, 7.0))
    assert "audio_silent" in rig.play(silence(0.5)).codes
    rig.play(silence(5))
    assert rig.play(level(0, 7.0)).silences == 2


def test_clipping_begins_with_a_second_of_it_and_ends_when_the_minute_is_over(rig: Rig) -> None:
    """A door that slams is none; somebody who shouts into the microphone is."""
    loud = np.clip(silence(0.16, level=60_000), -32_768, 32_767).astype(np.int16)
    rig.play(silence(5))
    slammed = rig.play(np.concatenate([loud, silence(2)]))
    assert slammed.codes == ()
    assert slammed.clip_pct is not None
    assert 1.0 < slammed.clip_pct < 4.0
    shouted = rig.play(np.concatenate([np.tile(loud, 10), silence(2)]))
    assert shouted.codes == ("audio_clipping",)
    assert rig.play(silence(70)).codes == ()


def test_one_sample_at_full_scale_is_no_clipping(rig: Rig) -> None:
    """A converter that is driven to its full range now and then is driven well."""
    pcm = silence(3)
    pcm[::FRAME_SAMPLES] = 32_767
    assert rig.play(pcm).clip_pct == 0.0


def test_an_offset_is_told_in_percent_of_full_scale(rig: Rig) -> None:
    """From five per cent on it is a condition, and below four no more."""
    condition = rig.play(silence(6) + np.int16(2_000))
    assert condition.codes == ("audio_offset",)
    assert condition.offset_pct == pytest.approx(100 * 2_000 / 32_768, abs=0.1)
    assert rig.play(silence(30)).codes == ()


def test_lost_sound_is_counted_and_said_if_it_is_much(rig: Rig) -> None:
    """One short gap is a figure; three in a minute, or a second in all, are a condition until a minute has passed."""
    rig.play(silence(3))
    rig.skip(0.1)
    condition = rig.play(silence(2))
    assert (condition.gaps, condition.lost_s, condition.codes) == (1, 0.1, ())
    rig.skip(1.0)
    condition = rig.play(silence(2))
    assert (condition.gaps, condition.lost_s, condition.codes) == (2, 1.1, ("audio_gaps",))
    assert rig.play(silence(70)).codes == ()


def test_what_was_not_captured_on_purpose_is_not_lost(rig: Rig) -> None:
    """Hours of mute are no gap."""
    rig.play(silence(3))
    rig.resume(3_600.0)
    condition = rig.play(silence(2))
    assert (condition.gaps, condition.lost_s, condition.codes) == (0, 0.0, ())


def test_what_was_wrong_before_a_mute_is_not_wrong_after_it_until_it_is_heard_again(rig: Rig) -> None:
    """Not even for the seconds that it takes to be sure of the opposite."""
    loud = level(32_767, 8.0)
    assert rig.play(loud).codes == ("audio_clipping", "audio_offset", "audio_silent")
    rig.resume(5.0)
    assert rig.monitor.condition.codes == ()
    assert rig.play(silence(3.0)).codes == ()
    assert rig.play(loud).codes == ("audio_clipping", "audio_offset", "audio_silent")
