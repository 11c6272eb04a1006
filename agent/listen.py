"""The listen stage: frames in, utterances out."""

from collections.abc import Callable
from dataclasses import dataclass

from agent.audio import SAMPLE_RATE_HZ, AudioFrame
from agent.audio_monitor import AudioMonitor
from agent.channel import Channel
from agent.conditioner import Conditioner
from agent.segmenter import Segmenter, SegmenterEvent
from agent.vad import VoiceActivityDetector

FRAMES_AT_REST = 6
"""While the detector hears nothing at all, its gate shut, the thread wakes for every sixth frame: being woken is most
of what a quiet room costs. Speech is noticed up to 160 ms later for it. No sound is lost, and its end comes no later,
for by then the gate is open."""


@dataclass(slots=True)
class ListenCounters:
    """What was heard since the start. Written by the listen thread only; any thread may read."""

    frames: int = 0
    heard_samples: int = 0
    """All sound that came in."""

    @property
    def heard_s(self) -> float:
        """Seconds of sound that came in."""
        return self.heard_samples / SAMPLE_RATE_HZ


class Listener:
    """Feeds frames to the detector and the segmenter, and tells what comes of it.

    `run` is the work of the listen thread. It returns when `frames` is closed and read empty. `on_event` is called from
    that thread with every event of the segmenter, and `on_end` once, when there will be no more, however `run` ends.
    `monitor` hears the sound as it came; detector and segmenter hear what `conditioner` has made of it.
    """

    def __init__(
        self,
        frames: Channel[AudioFrame],
        detector: VoiceActivityDetector,
        segmenter: Segmenter,
        on_event: Callable[[SegmenterEvent], None],
        on_end: Callable[[], None] = lambda: None,
        monitor: AudioMonitor | None = None,
        conditioner: Conditioner | None = None,
    ) -> None:
        self.counters = ListenCounters()
        self.observer: Callable[[AudioFrame, float], None] | None = None
        """Is told of every frame, as it came, and its probability of speech, from the listen thread; any may set it."""
        self._frames = frames
        self._detector = detector
        self._segmenter = segmenter
        self._on_event = on_event
        self._on_end = on_end
        self._monitor = monitor
        self._conditioner = conditioner
        self._expected: int | None = None

    @property
    def noise_floor_dbfs(self) -> float | None:
        """Level of the room without speech, where the detector knows it; any thread may ask."""
        return self._detector.noise_floor_dbfs

    def run(self) -> None:
        """Listen until the frames end."""
        try:
            for frame in self._frames:
                self._note(frame)
                heard = self._conditioner.condition(frame) if self._conditioner else frame
                probability = self._detector.probability(heard.pcm)
                if (observer := self.observer) is not None:
                    observer(frame, probability)
                self._tell(self._segmenter.push(heard, probability))
                self._frames.rouse_at(1 if probability or self._segmenter.listening else FRAMES_AT_REST)
            self._tell(self._segmenter.finish())
        finally:
            self._on_end()

    def _note(self, frame: AudioFrame) -> None:
        """Count the frame if it is sound. Reset the detector where sound is missing before it."""
        if self._expected is not None and frame.position != self._expected:
            self._detector.reset()
        self._expected = frame.end
        if frame.is_edge:
            return
        if self._monitor:
            self._monitor.hear(frame)
        self.counters.frames += 1
        self.counters.heard_samples += len(frame.pcm)

    def _tell(self, events: list[SegmenterEvent]) -> None:
        for event in events:
            self._on_event(event)
