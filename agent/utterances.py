"""From sound that is all there to the utterances in it, in the caller's thread; for a microphone see `listen.py`."""

from collections.abc import Iterable, Iterator

from agent.audio import AudioFrame, Utterance
from agent.errors import SourceError
from agent.segmenter import Ended, Segmenter, SegmenterEvent
from agent.vad import VoiceActivityDetector


def utterances_in(
    frames: Iterable[AudioFrame], detector: VoiceActivityDetector, segmenter: Segmenter
) -> Iterator[Utterance]:
    """Yield the utterances in `frames`, in order, each as soon as it is over. Neither stage is reset before.

    Raises:
        SourceError: as `frames` does, behind the last utterance.
    """
    failure = None
    try:
        for frame in frames:
            yield from _ended(segmenter.push(frame, detector.probability(frame.pcm)))
    except SourceError as error:
        failure = error
    yield from _ended(segmenter.finish())
    if failure:
        raise failure


def _ended(events: list[SegmenterEvent]) -> Iterator[Utterance]:
    return (event.utterance for event in events if isinstance(event, Ended))
