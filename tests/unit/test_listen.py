"""The listen stage with real parts: real speech, the real detector, real channels."""

import threading
from collections.abc import Sequence
from itertools import count

import numpy as np
import pytest

from agent.audio.frames import FRAME_SAMPLES, AudioFrame, Pcm16, Utterance, frames_of, samples
from agent.channel import Channel, Overflow
from agent.config.settings import SegmenterSettings, VadSettings
from agent.errors import SourceError
from agent.segmenter import FRAMES_AT_REST, Ended, Listener, Segmenter, SegmenterEvent, SpeechStarted
from agent.vad import VoiceActivityDetector, create_detector
from tests.frames import audio_frames
from tests.support.clips import clip, silence


class Frames:
    """A source that has them all at once, and remembers how many it was asked to wait for."""

    live = False

    def __init__(self, frames: Sequence[AudioFrame], failure: SourceError | None = None) -> None:
        self.asked: list[int] = []
        self._frames = iter(frames)
        self._failure = failure

    def read(self, ready: int = 1) -> AudioFrame | None:
        """The next one."""
        self.asked.append(ready)
        frame = next(self._frames, None)
        if frame is None and self._failure:
            raise self._failure
        return frame

    def close(self) -> None:
        """There is nothing to release."""


class Stage:
    """A listener with its source, its events kept."""

    def __init__(
        self,
        frames: Sequence[AudioFrame],
        detector: VoiceActivityDetector | None = None,
        failure: SourceError | None = None,
    ) -> None:
        self.source = Frames(frames, failure)
        self.ended = 0
        self.events: list[SegmenterEvent] = []
        ids = count()
        self.listener = Listener(
            self.source,
            detector or create_detector(VadSettings()),
            Segmenter(SegmenterSettings(), 0.5, lambda: str(next(ids))),
            [self.events.append],
            self._end,
        )

    def run(self) -> list[Utterance]:
        """Listen to everything; the utterances that came out."""
        self.listener.run()
        return [event.utterance for event in self.events if isinstance(event, Ended)]

    def _end(self) -> None:
        self.ended += 1


def conversation() -> Pcm16:
    """Three clips with quiet between them."""
    parts = [clip("en_conf-waitforleader"), clip("fr_agent-user"), clip("en_pls-hold-while-try")]
    return np.concatenate([silence(2), *(piece for part in parts for piece in (part, silence(2)))])


def test_speech_comes_out_as_utterances_and_the_end_is_told() -> None:
    """Three sentences with two seconds between them are at least three utterances, told of; all sound is counted."""
    stage = Stage(audio_frames(conversation()))
    utterances = stage.run()
    assert stage.ended == 1
    assert len(utterances) >= 3
    assert sum(isinstance(event, SpeechStarted) for event in stage.events) == len(utterances)
    assert stage.listener.frames == len(audio_frames(conversation()))
    assert stage.listener.heard_s == pytest.approx(len(conversation()) / 16_000, abs=0.032)


def test_what_is_being_said_when_the_sound_ends_is_not_lost() -> None:
    """Frames that end in the middle of a word still give an utterance, up to the last sample."""
    frames = audio_frames(np.concatenate([silence(1), clip("en_dir-intro")[:40_000]]))
    utterances = Stage(frames).run()
    assert utterances[-1].position + len(utterances[-1].pcm) == frames[-1].end


def test_the_silence_around_a_recording_is_heard_and_not_counted() -> None:
    """A word from its first sample to its last is an utterance; the sound that came in is that of the recording."""
    word = clip("en_conf-waitforleader")[8_000:16_000]
    stage = Stage(list(frames_of([word])))
    (utterance,) = stage.run()
    assert utterance.lead_samples + utterance.tail_samples > 0
    assert len(word) <= stage.listener.heard_samples < len(word) + 2 * FRAME_SAMPLES


def test_where_sound_was_lost_the_detector_begins_anew() -> None:
    """At a jump in position, and at one back in time."""

    class Resets:
        noise_floor_dbfs = -60.0

        def __init__(self) -> None:
            self.count = 0

        def probability(self, pcm: Pcm16) -> float:
            return 0.0 * len(pcm)

        def reset(self) -> None:
            self.count += 1

    detector = Resets()
    quiet = silence(1)
    frames = [
        *audio_frames(quiet),
        *audio_frames(quiet, position=32 * FRAME_SAMPLES + samples(2500)),
        *audio_frames(quiet),
    ]
    stage = Stage(frames, detector)
    stage.run()
    assert detector.count == 2
    assert stage.listener.noise_floor_dbfs == -60.0


def test_only_a_quiet_room_lets_the_listener_sleep_on() -> None:
    """Frames are waited for in sixes while the gate is shut, and one by one from onset to end of an utterance."""
    speech = clip("en_conf-waitforleader")
    stage = Stage(audio_frames(np.concatenate([silence(6), speech, silence(6)])))
    (ended,) = stage.run()
    asked = stage.source.asked[1:]  # after each frame, for the next
    assert set(asked[ended.speech_end // FRAME_SAMPLES - 10 : ended.closed_at // FRAME_SAMPLES - 1]) == {1}
    assert asked[150] == asked[-1] == FRAMES_AT_REST


def test_the_words_before_a_damaged_part_are_not_lost() -> None:
    """A recording that cannot be read to its end gives its utterances first; the error comes out of `run`."""
    stage = Stage(audio_frames(clip("en_dir-intro")[:40_000]), failure=SourceError("cut off"))
    with pytest.raises(SourceError, match="cut off"):
        stage.run()
    assert any(isinstance(event, Ended) for event in stage.events)
    assert (stage.ended, stage.listener.ended) == (1, True)


def test_a_failure_closes_the_outgoing_channel() -> None:
    """If the detector fails, the error comes out of `run`, and the next stage is not left waiting."""

    class Broken:
        noise_floor_dbfs = None

        def probability(self, pcm: Pcm16) -> float:
            raise MemoryError(len(pcm))

        def reset(self) -> None:
            """Nothing to forget."""

    stage = Stage(audio_frames(silence(1)), Broken())
    with pytest.raises(MemoryError):
        stage.run()
    assert stage.ended == 1


def test_a_slow_reader_of_the_flat_out_run_loses_nothing() -> None:
    """Through a waiting channel of capacity 1 the same utterances come out as through a wide one."""
    frames = audio_frames(conversation())
    wide = Stage(frames).run()
    outgoing: Channel[Utterance] = Channel(1, Overflow.WAIT)
    ids = count()

    def pass_on(event: SegmenterEvent) -> None:
        if isinstance(event, Ended):
            outgoing.put(event.utterance)

    segmenter = Segmenter(SegmenterSettings(), 0.5, lambda: str(next(ids)))
    listener = Listener(Frames(frames), create_detector(VadSettings()), segmenter, [pass_on], outgoing.close)
    thread = threading.Thread(target=listener.run)
    thread.start()
    received = list(outgoing)
    thread.join(60)
    assert [(u.id, u.position, u.pcm.tobytes()) for u in received] == [
        (u.id, u.position, u.pcm.tobytes()) for u in wide
    ]
