import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from agent.audio import Source
from agent.audio.frames import FRAME_SAMPLES, AudioFrame
from agent.audio.reconnecting import MicrophoneEvents, ReconnectingSource
from agent.config.settings import SegmenterSettings
from agent.errors import DeviceUnavailable, SourceError
from agent.segmenter import Ended, Segmenter

FRAME_NS = 32_000_000
GONE = DeviceUnavailable("gone")


class ScriptedSource:
    """Gives frames and errors from a list."""

    live = True

    def __init__(self, answers: Iterable[AudioFrame | Exception]) -> None:
        self.closed = False
        self._answers = deque(answers)

    def read(self) -> AudioFrame | None:
        """The next answer; None after the last."""
        answer = self._answers.popleft() if self._answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """Remember it."""
        self.closed = True


def frame(index: int, captured_ns: int) -> AudioFrame:
    """The frame number `index` of a source."""
    return AudioFrame(np.zeros(FRAME_SAMPLES, np.int16), index * FRAME_SAMPLES, captured_ns)


def opener(*openings: Source | Exception) -> Callable[[], Source]:
    """What each attempt to open finds."""
    left = deque(openings)

    def open_next() -> Source:
        found = left.popleft()
        if isinstance(found, Exception):
            raise found
        return found

    return open_next


def test_a_lost_microphone_is_opened_again_and_told_once() -> None:
    """Through a loss and two failed attempts, `read` just takes longer; it is announced once, and so is the return."""
    told: list[str] = []
    events = MicrophoneEvents(absent=lambda error: told.append(str(error)), back=lambda: told.append("back"))
    first = ScriptedSource([frame(0, 0), GONE])
    second = ScriptedSource([frame(0, 10 * FRAME_NS), frame(1, 11 * FRAME_NS)])
    source = ReconnectingSource(
        opener(first, GONE, GONE, second), wait_at_start=False, events=events, clock_ns=lambda: 10 * FRAME_NS
    )
    frames = [source.read(), source.read(), source.read()]
    assert told == ["gone", "back"]
    assert first.closed
    assert [found.position // FRAME_SAMPLES for found in frames if found] == [0, 10, 11]


def test_a_second_absence_is_told_again() -> None:
    """Each absence is an event of its own."""
    told: list[str] = []
    events = MicrophoneEvents(absent=lambda _: told.append("absent"), back=lambda: told.append("back"))
    openings = [ScriptedSource([frame(0, index * FRAME_NS), GONE]) for index in range(3)]
    source = ReconnectingSource(opener(*openings), wait_at_start=True, events=events, clock_ns=lambda: 0)
    for _ in range(3):
        source.read()
    assert told == ["absent", "back", "absent", "back"]


class Unplugged:
    """A microphone that is pulled out while somebody speaks, and is back at the fifth attempt to open it."""

    def __init__(self, attempt_ns: int) -> None:
        self.now_ns = 9 * FRAME_NS
        self.told: list[str] = []
        self._attempt_ns = attempt_ns
        self._attempts = 0
        events = MicrophoneEvents(absent=lambda _: self.told.append("absent"), back=lambda: self.told.append("back"))
        self.source = ReconnectingSource(self._open, wait_at_start=True, events=events, clock_ns=lambda: self.now_ns)

    def _open(self) -> Source:
        self._attempts += 1
        if self._attempts == 1:
            return ScriptedSource([*(frame(index, index * FRAME_NS) for index in range(10)), GONE])
        self.now_ns += self._attempt_ns
        if self._attempts < 5:
            raise GONE
        return ScriptedSource([frame(0, self.now_ns)])

    def read(self) -> AudioFrame:
        """The next frame."""
        found = self.source.read()
        assert found is not None
        return found


@pytest.fixture
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No real time passes between two attempts."""
    monkeypatch.setattr("agent.audio.reconnecting.FIRST_RETRY_S", 0.001)
    monkeypatch.setattr("agent.audio.reconnecting.LONGEST_RETRY_S", 0.001)


@pytest.mark.usefixtures("_hasty")
def test_who_was_cut_off_is_transcribed_while_the_microphone_is_gone() -> None:
    """One silent frame ends the utterance; it is not kept until the microphone is back, hours later."""
    rig = Unplugged(attempt_ns=20 * FRAME_NS)
    segmenter = Segmenter(SegmenterSettings(), 0.5, lambda: "u1")
    for _ in range(10):
        segmenter.push(rig.read(), 1.0)
    silence = rig.read()
    (ended,) = segmenter.push(silence, 0.0)
    assert isinstance(ended, Ended)
    assert rig.told == ["absent"]
    assert not silence.pcm.any()
    assert silence.resumed
    assert silence.captured_ns <= rig.now_ns


@pytest.mark.usefixtures("_hasty")
def test_an_absence_is_silent_once_and_time_goes_on() -> None:
    """The next frame is that of the microphone which is back, and stands where the clock says that it is."""
    rig = Unplugged(attempt_ns=20 * FRAME_NS)
    for _ in range(11):
        rig.read()
    again = rig.read()
    assert rig.told == ["absent", "back"]
    assert again.resumed
    assert again.position == (9 + 4 * 20) * FRAME_SAMPLES


@pytest.mark.usefixtures("_hasty")
def test_a_short_absence_is_bridged_as_ever() -> None:
    """A gap in the middle of a word is no end of it."""
    rig = Unplugged(attempt_ns=5 * FRAME_NS)
    for _ in range(10):
        rig.read()
    assert rig.read().position == (9 + 4 * 5) * FRAME_SAMPLES
    assert rig.told == ["absent", "back"]


def test_an_absent_microphone_is_an_error_at_the_start_unless_waited_for() -> None:
    """Interactive use fails at once; a service waits."""
    with pytest.raises(DeviceUnavailable):
        ReconnectingSource(opener(GONE), wait_at_start=False)
    source = ReconnectingSource(opener(GONE, ScriptedSource([frame(0, 0)])), wait_at_start=True)
    found = source.read()
    assert found is not None
    assert found.position == 0


def test_what_is_unusable_is_not_retried() -> None:
    """An endless or unintelligible source would be no better the second time."""
    source = ReconnectingSource(opener(ScriptedSource([SourceError("endless")])), wait_at_start=False)
    with pytest.raises(SourceError, match="endless"):
        source.read()


def test_close_ends_the_waiting(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping does not wait for a microphone to come back."""
    for name in ("FIRST_RETRY_S", "LONGEST_RETRY_S"):
        monkeypatch.setattr(f"agent.audio.reconnecting.{name}", 600.0)

    def absent() -> Source:
        raise GONE

    source = ReconnectingSource(absent, wait_at_start=True)
    results: list[AudioFrame | None] = []
    reader = threading.Thread(target=lambda: results.append(source.read()))
    with caplog.at_level(logging.WARNING):
        reader.start()
        while not caplog.messages:
            time.sleep(0.01)
        source.close()
        reader.join(60.0)
    assert results == [None]
    assert caplog.messages == ["gone; trying again until it is there"]


def test_a_device_opened_while_closing_is_let_go() -> None:
    """Closing between the opening and the first read leaves no device open."""
    late = ScriptedSource([frame(0, 0)])

    def slow_open() -> Source:
        source.close()
        return late

    source = ReconnectingSource(slow_open, wait_at_start=True)
    assert source.read() is None
    assert late.closed
