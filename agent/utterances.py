"""From sound that is all there to the utterances in it, in the caller's thread; for a microphone see `listen.py`."""

from collections.abc import Iterable, Iterator

import numpy as np

from agent.audio import FRAME_SAMPLES, SAMPLE_RATE_HZ, AudioFrame, Pcm16, Utterance
from agent.segmenter import Ended, Segmenter, SegmenterEvent
from agent.vad import VoiceActivityDetector


def frames_of(pcm: Pcm16) -> Iterator[AudioFrame]:
    """Yield `pcm`, shape (n,), in frames; the last is filled up with silence. Its clock begins at 0."""
    padded = np.pad(pcm, (0, -len(pcm) % FRAME_SAMPLES))
    for position in range(0, len(padded), FRAME_SAMPLES):
        end = position + FRAME_SAMPLES
        yield AudioFrame(padded[position:end], position, end * 1_000_000_000 // SAMPLE_RATE_HZ)


def utterances_in(
    frames: Iterable[AudioFrame], detector: VoiceActivityDetector, segmenter: Segmenter
) -> Iterator[Utterance]:
    """Yield the utterances in `frames`, in order, each as soon as it is over. Neither stage is reset before."""
    for frame in frames:
        yield from _ended(segmenter.push(frame, detector.probability(frame.pcm)))
    yield from _ended(segmenter.finish())


def _ended(events: list[SegmenterEvent]) -> Iterator[Utterance]:
    return (event.utterance for event in events if isinstance(event, Ended))
