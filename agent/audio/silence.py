"""What a source delivers where there is no device: one frame, behind which whatever was being said is over."""

from typing import Final

import numpy as np

from agent.audio.frames import FRAME_SAMPLES, LONGEST_FILLED_GAP, SAMPLE_RATE_HZ, AudioFrame

GAP_SAMPLES: Final = LONGEST_FILLED_GAP + 1
"""Behind a gap of this length an utterance is over."""
_NS_PER_S: Final = 1_000_000_000


def silence_behind(last: AudioFrame) -> AudioFrame:
    """A silent frame, a gap behind `last`."""
    captured_ns = last.captured_ns + (GAP_SAMPLES + FRAME_SAMPLES) * _NS_PER_S // SAMPLE_RATE_HZ
    return AudioFrame(np.zeros(FRAME_SAMPLES, np.int16), last.end + GAP_SAMPLES, captured_ns, resumed=True)


def missed_samples(last: AudioFrame, frame: AudioFrame) -> int:
    """How many samples lie between the two, by the clock."""
    return (frame.captured_ns - last.captured_ns) * SAMPLE_RATE_HZ // _NS_PER_S - len(frame.pcm)
