"""Where an utterance begins and ends: probabilities in, events out. No I/O and no clock; only `Listener` has a thread.

    probability   ····▁▂▇███▆▇██▇▂▁▁▇███▂▁▁▁▁▁▁▁▁▁▁····
                  ├pre-roll┤ speech  ┆  ┆     ├ 200 ms ┤├ rest of the hang-over ┤
    events           SpeechStarted ┘  Paused┘ └Resumed  └ Paused                └ Ended

All times are sample positions, so a recording gives the same utterances at any reading speed. After 200 ms of silence
the utterance is known (`Paused`), and an engine may start on it. If the hang-over passes without more speech, `Ended`
has exactly the same samples. A lower probability is enough to stay inside an utterance than to begin one.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from agent.audio import Source
from agent.audio.conditioner import Conditioner
from agent.audio.frames import (
    FRAME_SAMPLES,
    LONGEST_FILLED_GAP,
    NS_PER_S,
    SAMPLE_RATE_HZ,
    AudioFrame,
    Pcm16,
    Utterance,
    samples,
)
from agent.audio.monitor import AudioMonitor
from agent.config.settings import SegmenterSettings
from agent.errors import SourceError
from agent.vad import VoiceActivityDetector


class RingBuffer:
    """Contiguous samples, from `position` at first: grows at its end, is cut off at its start.

    Used from one thread. It keeps appended arrays without a copy: do not write to them afterwards.
    """

    def __init__(self, position: int = 0) -> None:
        self.start = position
        """Position of the first sample in the buffer."""
        self.end = position
        """Position just behind the last sample."""
        self._pieces: deque[Pcm16] = deque()

    def append(self, pcm: Pcm16) -> None:
        """Add samples, shape (n,), at the end."""
        self._pieces.append(pcm)
        self.end += len(pcm)

    def drop_before(self, position: int) -> None:
        """Forget the samples before `position`, at most all."""
        position = min(position, self.end)
        while self._pieces and self.start + len(self._pieces[0]) <= position:
            self.start += len(self._pieces.popleft())
        if position > self.start:
            self._pieces[0] = self._pieces[0][position - self.start :]
            self.start = position

    def read(self, start: int, end: int) -> Pcm16:
        """Copy the samples from `start` to `end`, both within the buffer."""
        if not self.start <= start <= end <= self.end:
            msg = f"samples {start} to {end} are not in the buffer, which has {self.start} to {self.end}"
            raise ValueError(msg)
        if start == end:
            return np.zeros(0, np.int16)
        return np.concatenate(self._pieces)[start - self.start : end - self.start]


PAUSE_SAMPLES = samples(200)
"""Silence kept behind the last speech, and the time after which an utterance may be over."""
HYSTERESIS = 0.15
CUT_SEARCH_SAMPLES = samples(5000)
"""A too long utterance is cut at the quietest moment of this last part of it."""
CUT_HOP_SAMPLES = samples(10)
CUT_SMOOTHING_HOPS = 10
"""The energy of 100 ms decides, in steps of 10 ms."""


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Speech began; comes as soon as there is enough speech for an utterance."""

    position: int
    """Of the first sample that was called speech."""


@dataclass(frozen=True, slots=True)
class Paused:
    """There were 200 ms of silence: this is the utterance, unless speech resumes."""

    utterance: Utterance


@dataclass(frozen=True, slots=True)
class Resumed:
    """Speech resumed: the utterance of the last `Paused` is void."""


@dataclass(frozen=True, slots=True)
class Ended:
    """An utterance is complete. After a `Paused` without `Resumed` it has the same id and samples."""

    utterance: Utterance


@dataclass(frozen=True, slots=True)
class Discarded:
    """There was less speech than `min_speech_ms`. No other event belongs to it."""

    position: int
    """Of the first sample that was called speech."""
    speech_ms: int


SegmenterEvent = SpeechStarted | Paused | Resumed | Ended | Discarded


@dataclass(slots=True)
class _Passage:
    """The utterance under way, from the pre-roll on."""

    start: int
    """Position of its first sample."""
    started_ns: int
    id: str = ""
    """Empty until there is enough speech for an utterance."""
    speech_ends: list[int] = field(default_factory=list)
    """Ends of the frames that were called speech, ascending."""
    speech_probs: list[float] = field(default_factory=list)
    """Their probabilities."""
    paused: bool = False

    @property
    def speech_start(self) -> int:
        return self.speech_ends[0] - FRAME_SAMPLES

    @property
    def speech_samples(self) -> int:
        return len(self.speech_ends) * FRAME_SAMPLES


class Segmenter:
    """Divides a stream of frames into utterances.

    `push` takes each frame in order, with its probability of speech, and returns the events that follow from it.
    `finish` ends the stream. `new_id` is called once for each utterance with an event.
    """

    def __init__(self, settings: SegmenterSettings, threshold: float, new_id: Callable[[], str]) -> None:
        self.threshold = threshold
        """Probability from which a frame counts as speech. Any thread may change it at any time."""
        self._pre_roll = samples(settings.pre_roll_ms)
        self._hang_over = samples(settings.effective_hang_over_ms)
        self._min_speech = samples(settings.min_speech_ms)
        # A frame and the pause may still follow before the limit is acted upon.
        self._limit = samples(settings.max_length_s * 1000) - PAUSE_SAMPLES - FRAME_SAMPLES
        self._new_id = new_id
        self._buffer = RingBuffer()
        self._sound_start = self._sound_end = 0
        """Bounds of the sound in the buffer; beyond them is the silence at the edges of a recording."""
        self._passage: _Passage | None = None

    @property
    def listening(self) -> bool:
        """Whether an utterance has begun and is not over."""
        return self._passage is not None

    def push(self, frame: AudioFrame, probability: float) -> list[SegmenterEvent]:
        """Take the next frame; return its events in order, usually none."""
        events = self._bridge_gap(frame.position)
        self._buffer.append(frame.pcm)
        if self._sound_start == self._sound_end:
            self._sound_start = self._sound_end = frame.position + frame.lead_samples
        if not frame.is_edge:
            self._sound_end = frame.end - frame.tail_samples
        if probability >= (max(self.threshold - HYSTERESIS, 0.01) if self._passage else self.threshold):
            events += self._hear(frame, probability)
        elif self._passage:
            events += self._wait(self._passage, frame.end)
        if self._passage is None:
            self._buffer.drop_before(self._buffer.end - self._pre_roll)
        return events

    def finish(self, position: int = 0) -> list[SegmenterEvent]:
        """End the stream and the utterance under way. The next stream begins at `position`, with an empty buffer."""
        events = self._end(self._passage, self._buffer.end) if self._passage else []
        self._buffer = RingBuffer(position)
        self._sound_start = self._sound_end = position
        return events

    def _bridge_gap(self, position: int) -> list[SegmenterEvent]:
        """Bring the buffer to `position`: fill a small gap with zeros, begin anew behind a large one."""
        gap = position - self._buffer.end
        if not gap:
            return []
        if self._buffer.start == self._buffer.end or not 0 < gap <= LONGEST_FILLED_GAP:
            return self.finish(position)
        self._buffer.append(np.zeros(gap, np.int16))
        return []

    def _hear(self, frame: AudioFrame, probability: float) -> list[SegmenterEvent]:
        """Take a frame with speech."""
        events: list[SegmenterEvent] = []
        if self._passage is None:
            start = max(self._buffer.start, frame.position - self._pre_roll)
            self._buffer.drop_before(start)
            self._passage = _Passage(start, _captured_at(start, frame))
        passage = self._passage
        passage.speech_ends.append(frame.end)
        passage.speech_probs.append(probability)
        too_long = frame.end - passage.start >= self._limit
        if not passage.id and (passage.speech_samples >= self._min_speech or too_long):
            passage.id = self._new_id()
            events.append(SpeechStarted(passage.speech_start))
        if passage.paused:
            passage.paused = False
            events.append(Resumed())
        if too_long:
            events.append(self._cut(passage, frame))
        return events

    def _wait(self, passage: _Passage, now: int) -> list[SegmenterEvent]:
        """Take a frame without speech, which ends at `now`."""
        events: list[SegmenterEvent] = []
        silence = now - passage.speech_ends[-1]
        if passage.id and not passage.paused and silence >= PAUSE_SAMPLES:
            passage.paused = True
            events.append(Paused(self._utterance(passage, now)))
        # A pause is the best place to cut. So at the limit, do not wait for the rest of the hang-over.
        if silence >= self._hang_over or (passage.paused and now - passage.start >= self._limit):
            events += self._end(passage, now)
        return events

    def _end(self, passage: _Passage, now: int) -> list[SegmenterEvent]:
        """End the utterance; the samples behind it stay in the buffer, as pre-roll of the next one."""
        self._passage = None
        if not passage.id:
            return [Discarded(passage.speech_start, passage.speech_samples * 1000 // SAMPLE_RATE_HZ)]
        utterance = self._utterance(passage, now)
        self._buffer.drop_before(utterance.position + len(utterance.pcm))
        return [Ended(utterance)]

    def _cut(self, passage: _Passage, frame: AudioFrame) -> Ended:
        """Publish the part before the quietest moment near the end; the passage goes on from there."""
        middle = (passage.start + frame.position) // 2
        search_from = max(frame.position - CUT_SEARCH_SAMPLES, middle, passage.speech_ends[0])
        cut = search_from + quietest_moment(self._buffer.read(search_from, frame.position))
        piece = self._utterance(passage, frame.end, cut)
        self._buffer.drop_before(cut)
        spoken = bisect_right(passage.speech_ends, cut)
        del passage.speech_ends[:spoken], passage.speech_probs[:spoken]
        passage.id, passage.start, passage.started_ns = self._new_id(), cut, _captured_at(cut, frame)
        return Ended(piece)

    def _utterance(self, passage: _Passage, now: int, cut: int | None = None) -> Utterance:
        """Return `passage` with the silence behind it, or up to `cut`.

        The silence at the edges of a recording is counted, but is no part of it.
        """
        speech_end, probs = passage.speech_ends[-1], passage.speech_probs
        end = min(speech_end + PAUSE_SAMPLES, self._buffer.end)
        if cut is not None:
            end, spoken = cut, bisect_right(passage.speech_ends, cut)
            cuts_speech = cut > passage.speech_ends[spoken] - FRAME_SAMPLES
            speech_end, probs = cut if cuts_speech else passage.speech_ends[spoken - 1], probs[:spoken]
        first = min(max(passage.start, self._sound_start), end)
        last = max(first, min(end, self._sound_end))
        return Utterance(
            passage.id,
            self._buffer.read(first, last),
            first,
            passage.started_ns + (first - passage.start) * NS_PER_S // SAMPLE_RATE_HZ,
            speech_end,
            now,
            truncated=cut is not None,
            speech_s=len(probs) * FRAME_SAMPLES / SAMPLE_RATE_HZ,
            speech_prob=fmean(probs) if probs else 0.0,
            lead_samples=first - passage.start,
            tail_samples=end - last,
        )


def quietest_moment(pcm: Pcm16) -> int:
    """Return the index into `pcm`, shape (n,), of the middle of the quietest 100 ms; the last of equals."""
    hops = len(pcm) // CUT_HOP_SAMPLES
    if hops <= CUT_SMOOTHING_HOPS:
        return len(pcm) // 2
    blocks = pcm[: hops * CUT_HOP_SAMPLES].reshape(hops, CUT_HOP_SAMPLES).astype(np.float64)
    energy = np.concatenate([[0.0], np.cumsum(np.einsum("ij,ij->i", blocks, blocks))])
    windows = energy[CUT_SMOOTHING_HOPS:] - energy[:-CUT_SMOOTHING_HOPS]
    last_quietest = len(windows) - 1 - int(np.argmin(windows[::-1]))
    return (last_quietest + CUT_SMOOTHING_HOPS // 2) * CUT_HOP_SAMPLES


def _captured_at(position: int, frame: AudioFrame) -> int:
    """Return the capture time of the sample at `position`, calculated from `frame`, in monotonic ns."""
    return frame.captured_ns - (frame.end - position) * NS_PER_S // SAMPLE_RATE_HZ


def utterances_in(
    frames: Iterable[AudioFrame], detector: VoiceActivityDetector, segmenter: Segmenter
) -> Iterator[Utterance]:
    """Yield the utterances in `frames`, each as soon as it is over. Neither stage is reset before.

    Raises:
        SourceError: as `frames` does, behind the last utterance.
    """
    failure = None
    events: list[SegmenterEvent] = []
    try:
        for frame in frames:
            events = segmenter.push(frame, detector.probability(frame.pcm))
            yield from (event.utterance for event in events if isinstance(event, Ended))
    except SourceError as error:
        failure = error
    yield from (event.utterance for event in segmenter.finish() if isinstance(event, Ended))
    if failure:
        raise failure


FRAMES_AT_REST = 6
"""While the gate of the detector is shut, the thread wakes for every sixth frame only: waking is most of the cost of a
quiet room. Speech is noticed up to 160 ms later. No sound is lost, and the end of speech is not later: by then the gate
is open."""


class Listener:
    """Reads the source, feeds the detector and the segmenter, and passes on the events.

    `run` is the work of the listen thread. It returns when the source ends.

    Args:
        source: Read by that thread only.
        detector, segmenter: Get the sound after the `conditioner`.
        receivers: Called from that thread with each event of the segmenter.
        on_end: Called once after the last event, even if `run` fails.
        monitor: Gets the sound before the conditioner.
        conditioner: None leaves the sound unchanged.
    """

    def __init__(
        self,
        source: Source,
        detector: VoiceActivityDetector,
        segmenter: Segmenter,
        receivers: Iterable[Callable[[SegmenterEvent], None]],
        on_end: Callable[[], None] = lambda: None,
        monitor: AudioMonitor | None = None,
        conditioner: Conditioner | None = None,
    ) -> None:
        self.frames = 0
        """Frames of sound since the start; any thread may read."""
        self.heard_samples = 0
        """Samples of sound since the start."""
        self.observer: Callable[[AudioFrame, float], None] | None = None
        """Called from the listen thread with each frame of the source and its probability. Any thread may set it."""
        self.busy = False
        """True during the work on a frame; any thread may read."""
        self.ended = False
        """True after the end of the source; any thread may read."""
        self._source = source
        self._detector = detector
        self._segmenter = segmenter
        self._receivers = tuple(receivers)
        self._on_end = on_end
        self._monitor = monitor
        self._conditioner = conditioner
        self._expected: int | None = None
        self._ready = 1

    @property
    def heard_s(self) -> float:
        """Seconds of sound since the start; any thread may read."""
        return self.heard_samples / SAMPLE_RATE_HZ

    @property
    def noise_floor_dbfs(self) -> float | None:
        """Level of the room without speech; None if the detector does not know it. Any thread may read."""
        return self._detector.noise_floor_dbfs

    def run(self) -> None:
        """Listen until the source ends.

        Raises:
            SourceError: as the source does, after the last utterance.
        """
        failure = None
        try:
            try:
                while (frame := self._source.read(self._ready)) is not None:
                    self.busy = True
                    self._hear(frame)
                    self.busy = False
            except SourceError as error:
                failure = error
            finally:
                self.ended = True
            self._tell(self._segmenter.finish())
        finally:
            self._on_end()
        if failure:
            raise failure

    def _hear(self, frame: AudioFrame) -> None:
        if self._expected is not None and frame.position != self._expected:
            self._detector.reset()  # sound is missing before the frame
        self._expected = frame.end
        if not frame.is_edge:
            self.frames += 1
            self.heard_samples += len(frame.pcm)
            if self._monitor:
                self._monitor.hear(frame)
        heard = self._conditioner.condition(frame) if self._conditioner else frame
        probability = self._detector.probability(heard.pcm)
        if (observer := self.observer) is not None:
            observer(frame, probability)
        self._tell(self._segmenter.push(heard, probability))
        self._ready = 1 if probability or self._segmenter.listening else FRAMES_AT_REST

    def _tell(self, events: list[SegmenterEvent]) -> None:
        for event in events:
            for receive in self._receivers:
                receive(event)
