"""Samples as the frames of a source."""

from agent.audio.frames import FRAME_SAMPLES, SAMPLE_RATE_HZ, AudioFrame, Pcm16
from tests.support.clips import frames_of


def audio_frames(pcm: Pcm16, position: int = 0, epoch_ns: int = 0) -> list[AudioFrame]:
    """Frames of a source whose clock stood at `epoch_ns` when it was opened; the last one is zero-padded."""
    starts = range(position, position + len(pcm), FRAME_SAMPLES)
    return [
        AudioFrame(frame, start, epoch_ns + (start + FRAME_SAMPLES) * 1_000_000_000 // SAMPLE_RATE_HZ)
        for start, frame in zip(starts, frames_of(pcm), strict=True)
    ]
