import re
import sys

import numpy as np
import pytest
from webrtc_noise_gain import AudioProcessor

from agent.audio.conditioner import create_conditioner
from agent.audio.frames import Pcm16, rms_dbfs
from agent.config.settings import SoundSettings
from agent.errors import ConfigError
from agent.install import extras
from tests.frames import audio_frames
from tests.support.clips import clip, silence


def conditioned(pcm: Pcm16, settings: SoundSettings) -> Pcm16:
    """What comes out, frame by frame."""
    conditioner = create_conditioner(settings)
    assert conditioner is not None
    frames = audio_frames(pcm)
    made = [conditioner.condition(frame) for frame in frames]
    assert [frame.position for frame in made] == [frame.position for frame in frames]
    assert {len(frame.pcm) for frame in made} == {512}
    return np.concatenate([frame.pcm for frame in made])


def test_by_default_nothing_is_done() -> None:
    """Then the package is not even needed."""
    assert create_conditioner(SoundSettings()) is None


def test_steady_noise_goes_and_speech_stays() -> None:
    """The hiss is 10 dB quieter after three seconds; a voice above it loses next to nothing."""
    hiss = silence(6, level=300.0)
    settings = SoundSettings(noise_suppression=3)
    assert rms_dbfs(conditioned(hiss, settings)[48_000:]) < rms_dbfs(hiss) - 10.0
    voice = clip("en_dir-intro")
    assert rms_dbfs(conditioned(voice, settings)) > rms_dbfs(voice) - 3.0


def test_a_quiet_voice_becomes_louder() -> None:
    """A tenth of the amplitude is brought up by more than 6 dB."""
    quiet = (clip("en_dir-intro") // 10).astype(np.int16)
    assert rms_dbfs(conditioned(quiet, SoundSettings(auto_gain=True))) > rms_dbfs(quiet) + 6.0


def test_frames_are_cut_and_put_together_without_a_seam() -> None:
    """What comes out is what WebRTC makes of the sound in one go, 10 ms later."""
    voice = clip("en_dir-intro")[: 150 * 512]
    processor = AudioProcessor(0, 2)
    steps = [voice[first : first + 160].tobytes() for first in range(0, len(voice) - 159, 160)]
    at_once = np.frombuffer(b"".join(processor.Process10ms(step).audio for step in steps), np.int16)
    made = conditioned(voice, SoundSettings(noise_suppression=2))
    assert not made[:160].any()
    assert np.array_equal(made[160:], at_once[: len(made) - 160])


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, exit 78."""
    monkeypatch.setitem(sys.modules, "webrtc_noise_gain", None)
    with pytest.raises(ConfigError, match=re.escape(extras.missing("enhance"))):
        create_conditioner(SoundSettings(auto_gain=True))
