"""Where an utterance begins and ends: probabilities in, events out. No input or output, no clock, no thread.

    probability   ····▁▂▇███▆▇██▇▂▁▁▇███▂▁▁▁▁▁▁▁▁▁▁····
                  ├pre-roll┤ speech  ┆  ┆     ├ 200 ms ┤├ rest of the hang-over ┤
    events           SpeechStarted ┘  Paused┘ └Resumed  └ Paused                └ Ended

Everything is reckoned in sample positions, so a recording gives the same utterances however fast it is read. What an
utterance would be is known after 200 ms of silence (`Paused`); if the hang-over passes without more speech, the very
same samples are published (`Ended`), so an engine may start on them in between. Inside an utterance a lower
probability is enough to stay there than it took to get in.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
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
    """Contiguous samples from position `start` to `end`: grows at its end, is cut off at its start.

    Used from one thread. What is appended is kept as it is (no copy), and must not be written to afterwards.
    """

    def __init__(self) -> None:
        self.start = 0
        """Position of the first sample that is still there."""
        self.end = 0
        """Position just behind the last sample."""
        self._pieces: deque[Pcm16] = deque()

    @property
    def empty(self) -> bool:
        """True if there is not a sample."""
        return self.start == self.end

    def append(self, pcm: Pcm16) -> None:
        """Add samples, shape (n,), at the end."""
        self._pieces.append(pcm)
        self.end += len(pcm)

    def drop_before(self, position: int) -> None:
        """Forget what lies before `position` (at most everything)."""
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

    def restart(self, position: int) -> None:
        """Forget everything and go on at `position`."""
        self._pieces.clear()
        self.start = self.end = position


PAUSE_SAMPLES = samples(200)
"""Silence kept behind the last speech, and the time after which an utterance may be over."""
HYSTERESIS = 0.15
CUT_SEARCH_SAMPLES = samples(5000)
"""An utterance that is too long is cut at the quietest moment of this much sound at its end."""
CUT_HOP_SAMPLES = samples(10)
CUT_SMOOTHING_HOPS = 10
"""The energy that decides is that of 100 ms, in steps of 10 ms."""


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Somebody began to speak; comes once there is enough speech to count."""

    position: int
    """Of the first sample that was called speech."""


@dataclass(frozen=True, slots=True)
class Paused:
    """There have been 200 ms of silence: this is the utterance, if nothing more is said."""

    utterance: Utterance


@dataclass(frozen=True, slots=True)
class Resumed:
    """More was said: the utterance of the last `Paused` is void."""


@dataclass(frozen=True, slots=True)
class Ended:
    """An utterance is complete. After a `Paused` without `Resumed` it has the same id and samples."""

    utterance: Utterance


@dataclass(frozen=True, slots=True)
class Discarded:
    """There was less speech than `min_speech_ms`. No other event told of it."""

    position: int
    """Of the first sample that was called speech."""
    speech_ms: int


SegmenterEvent = SpeechStarted | Paused | Resumed | Ended | Discarded


@dataclass(slots=True)
class _Passage:
    """The utterance under way: from the pre-roll on, as long as it is not known to be over."""

    id: str | None
    """None until there is enough speech to count."""
    start: int
    """Position of its first sample."""
    started_ns: int
    speech_start: int
    speech_ends: list[int]
    """Ends of the frames that were called speech, ascending."""
    speech_probs: list[float]
    """Their probabilities."""
    speech_samples: int = 0
    paused: bool = False

    @property
    def speech_end(self) -> int:
        return self.speech_ends[-1]


class Segmenter:
    """Divides a stream of frames into utterances.

    `push` takes every frame in order, with the probability that it holds speech, and tells what that led to; `finish`
    ends the stream. `new_id` is called once for every utterance that will be told of.
    """

    def __init__(self, settings: SegmenterSettings, threshold: float, new_id: Callable[[], str]) -> None:
        self.threshold = threshold
        """Probability from which a frame counts as speech; may be changed at any time, from any thread."""
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
        """Whether somebody may be speaking: an utterance has begun and is not over."""
        return self._passage is not None

    def push(self, frame: AudioFrame, probability: float) -> list[SegmenterEvent]:
        """Take the next frame; return what it led to, in order (as a rule: nothing)."""
        events = self._bridge_gap(frame.position)
        self._buffer.append(frame.pcm)
        self._note_edge(frame)
        passage = self._passage
        if passage is None:
            if probability >= self.threshold:
                self._passage = passage = self._begin(frame)
                events += self._hear(passage, frame, probability)
        elif probability >= max(self.threshold - HYSTERESIS, 0.01):
            events += self._hear(passage, frame, probability)
        else:
            events += self._wait(passage, frame.end)
        if self._passage is None:
            self._buffer.drop_before(self._buffer.end - self._pre_roll)
        return events

    def finish(self) -> list[SegmenterEvent]:
        """End the stream: whatever is under way is over. The segmenter may be used again from there."""
        return self._restart(0)

    def _restart(self, position: int) -> list[SegmenterEvent]:
        """End what is under way, and go on with an empty buffer at `position`."""
        events = self._end(self._passage, self._buffer.end) if self._passage else []
        self._buffer.restart(position)
        self._sound_start = self._sound_end = position
        return events

    def _bridge_gap(self, position: int) -> list[SegmenterEvent]:
        """Bring the buffer to `position`: fill a small gap with zeros, begin anew behind a large one."""
        gap = position - self._buffer.end
        if not gap:
            return []
        if self._buffer.empty or not 0 < gap <= LONGEST_FILLED_GAP:
            return self._restart(position)
        self._buffer.append(np.zeros(gap, np.int16))
        return []

    def _note_edge(self, frame: AudioFrame) -> None:
        """Move the bounds of the sound in the buffer."""
        if self._sound_start == self._sound_end:
            self._sound_start = self._sound_end = frame.position + frame.lead_samples
        if not frame.is_edge:
            self._sound_end = frame.end - frame.tail_samples

    def _begin(self, frame: AudioFrame) -> _Passage:
        start = max(self._buffer.start, frame.position - self._pre_roll)
        self._buffer.drop_before(start)
        return _Passage(None, start, _captured_at(start, frame), frame.position, [], [])

    def _hear(self, passage: _Passage, frame: AudioFrame, probability: float) -> list[SegmenterEvent]:
        """`frame` is speech."""
        events: list[SegmenterEvent] = []
        passage.speech_ends.append(frame.end)
        passage.speech_probs.append(probability)
        passage.speech_samples += len(frame.pcm)
        too_long = frame.end - passage.start >= self._limit
        if passage.id is None and (passage.speech_samples >= self._min_speech or too_long):
            passage.id = self._new_id()
            events.append(SpeechStarted(passage.speech_start))
        if passage.paused:
            passage.paused = False
            events.append(Resumed())
        if too_long and passage.id is not None:
            events.append(self._cut(passage, passage.id, frame))
        return events

    def _wait(self, passage: _Passage, now: int) -> list[SegmenterEvent]:
        """The frame that ends at `now` is not speech."""
        events: list[SegmenterEvent] = []
        silence = now - passage.speech_end
        if passage.id is not None and not passage.paused and silence >= PAUSE_SAMPLES:
            passage.paused = True
            events.append(Paused(self._utterance(passage, passage.id, now)))
        # A pause is the best place to cut, so at the limit the rest of the hang-over is not waited for.
        if silence >= self._hang_over or (passage.paused and now - passage.start >= self._limit):
            events += self._end(passage, now)
        return events

    def _end(self, passage: _Passage, now: int) -> list[SegmenterEvent]:
        """It is over; what lies behind it stays in the buffer as the next one's pre-roll."""
        self._passage = None
        if passage.id is None:
            return [Discarded(passage.speech_start, passage.speech_samples * 1000 // SAMPLE_RATE_HZ)]
        utterance = self._utterance(passage, passage.id, now)
        self._buffer.drop_before(utterance.position + len(utterance.pcm))
        return [Ended(utterance)]

    def _utterance(self, passage: _Passage, utterance_id: str, now: int) -> Utterance:
        end = min(passage.speech_end + PAUSE_SAMPLES, self._buffer.end)
        utterance = self._sound(passage, utterance_id, end, passage.speech_end, now)
        return _with_speech(utterance, passage.speech_probs)

    def _sound(self, passage: _Passage, utterance_id: str, end: int, speech_end: int, now: int) -> Utterance:
        """Return `passage` up to `end`; the silence at the edges of a recording is counted, but no part of it."""
        first = min(max(passage.start, self._sound_start), end)
        last = max(first, min(end, self._sound_end))
        return Utterance(
            utterance_id,
            self._buffer.read(first, last),
            first,
            passage.started_ns + (first - passage.start) * NS_PER_S // SAMPLE_RATE_HZ,
            speech_end,
            now,
            lead_samples=first - passage.start,
            tail_samples=end - last,
        )

    def _cut(self, passage: _Passage, piece_id: str, frame: AudioFrame) -> Ended:
        """Publish what lies before the quietest moment of late; the passage goes on from there."""
        middle = (passage.start + frame.position) // 2
        search_from = max(frame.position - CUT_SEARCH_SAMPLES, middle, passage.speech_ends[0])
        cut = search_from + quietest_moment(self._buffer.read(search_from, frame.position))
        before = bisect_right(passage.speech_ends, cut)
        cuts_speech = cut > passage.speech_ends[before] - FRAME_SAMPLES
        speech_end = cut if cuts_speech else passage.speech_ends[before - 1]
        piece = replace(self._sound(passage, piece_id, cut, speech_end, frame.end), truncated=True)
        self._buffer.drop_before(cut)
        piece = _with_speech(piece, passage.speech_probs[:before])
        del passage.speech_ends[:before], passage.speech_probs[:before]
        passage.id, passage.start, passage.started_ns = self._new_id(), cut, _captured_at(cut, frame)
        return Ended(piece)


def _with_speech(utterance: Utterance, probabilities: list[float]) -> Utterance:
    """`utterance`, with what the detector said of the frames that it called speech; there may be none in a piece."""
    seconds = len(probabilities) * FRAME_SAMPLES / SAMPLE_RATE_HZ
    return replace(utterance, speech_s=seconds, speech_prob=fmean(probabilities) if probabilities else 0.0)


def quietest_moment(pcm: Pcm16) -> int:
    """Index into `pcm`, shape (n,), of the middle of the 100 ms with the least energy; the last ones of equals."""
    hops = len(pcm) // CUT_HOP_SAMPLES
    if hops <= CUT_SMOOTHING_HOPS:
        return len(pcm) // 2
    blocks = pcm[: hops * CUT_HOP_SAMPLES].reshape(hops, CUT_HOP_SAMPLES).astype(np.float64)
    energy = np.concatenate([[0.0], np.cumsum(np.einsum("ij,ij->i", blocks, blocks))])
    windows = energy[CUT_SMOOTHING_HOPS:] - energy[:-CUT_SMOOTHING_HOPS]
    last_quietest = len(windows) - 1 - int(np.argmin(windows[::-1]))
    return (last_quietest + CUT_SMOOTHING_HOPS // 2) * CUT_HOP_SAMPLES


def _captured_at(position: int, frame: AudioFrame) -> int:
    """Capture time of the sample at `position`, reckoned from `frame`, in monotonic ns."""
    return frame.captured_ns - (frame.end - position) * NS_PER_S // SAMPLE_RATE_HZ


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
    """Reads the source, feeds the detector and the segmenter, and passes on what comes of it.

    `run` is the work of the listen thread. It returns when the source ends.

    Args:
        source: Read by that thread only.
        detector, segmenter: Hear the sound that `conditioner` has made of that of the source.
        receivers: Called from that thread with every event of the segmenter.
        on_end: Called once, when there will be no more events, however `run` ends.
        monitor: Hears the sound as it came.
        conditioner: None leaves the sound as it is.
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
        self.counters = ListenCounters()
        self.observer: Callable[[AudioFrame, float], None] | None = None
        """Is told of every frame, as it came, and its probability of speech, from the listen thread; any may set it."""
        self.busy = False
        """True while a frame is being worked on; any thread may read."""
        self.ended = False
        """True once the source has ended; any thread may read."""
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
    def noise_floor_dbfs(self) -> float | None:
        """Level of the room without speech, where the detector knows it; any thread may ask."""
        return self._detector.noise_floor_dbfs

    def run(self) -> None:
        """Listen until the source ends.

        Raises:
            SourceError: as the source does, after the last utterance.
        """
        try:
            for frame in self.captured():
                self._hear(frame)
            self._tell(self._segmenter.finish())
        except SourceError:
            self._tell(self._segmenter.finish())
            raise
        finally:
            self._on_end()

    def captured(self) -> Iterator[AudioFrame]:
        """Yield the frames of the source."""
        try:
            while (frame := self._source.read(self._ready)) is not None:
                self.busy = True
                yield frame
                self.busy = False
        finally:
            self.ended = True

    def _hear(self, frame: AudioFrame) -> None:
        self._note(frame)
        heard = self._conditioner.condition(frame) if self._conditioner else frame
        probability = self._detector.probability(heard.pcm)
        if (observer := self.observer) is not None:
            observer(frame, probability)
        self._tell(self._segmenter.push(heard, probability))
        self._ready = 1 if probability or self._segmenter.listening else FRAMES_AT_REST

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
            for receive in self._receivers:
                receive(event)
