"""The microphone's states: open, muted, absent."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from agent.audio import Source
from agent.audio.frames import FRAME_SAMPLES, LONGEST_FILLED_GAP, AudioFrame
from agent.audio.microphone import Microphone
from agent.channel import Channel
from agent.config.settings import SegmenterSettings
from agent.errors import DeviceStalled, DeviceUnavailable, SourceError
from agent.segmenter import Ended, Segmenter
from tests.support.receiver import eventually

FRAME_NS = 32_000_000
GONE = DeviceUnavailable("gone")


class ScriptedSource:
    """Gives frames and errors from a list."""

    live = True

    def __init__(self, answers: Iterable[AudioFrame | Exception]) -> None:
        self.closed = False
        self._answers = deque(answers)

    def read(self, ready: int = 1) -> AudioFrame | None:
        """The next answer; None after the last."""
        assert ready == 1
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


def told_by(source: Microphone) -> list[str]:
    """What `source` tells from now on: its troubles, and that there is none."""
    told: list[str] = []
    source.on_change = lambda: told.append(str(source.trouble or "back"))
    return told


def test_a_lost_microphone_is_opened_again_and_told_once() -> None:
    """Through a loss and two failed attempts, `read` just takes longer; it is announced once, and so is the return."""
    first = ScriptedSource([frame(0, 0), GONE])
    second = ScriptedSource([frame(0, 10 * FRAME_NS), frame(1, 11 * FRAME_NS)])
    source = Microphone(opener(first, GONE, GONE, second), clock_ns=lambda: 10 * FRAME_NS)
    told = told_by(source)
    frames = [source.read(), source.read(), source.read()]
    assert told == ["gone", "back"]
    assert first.closed
    assert [found.position // FRAME_SAMPLES for found in frames if found] == [0, 10, 11]


def test_a_second_absence_is_told_again() -> None:
    """Each absence is an event of its own."""
    openings = [ScriptedSource([frame(0, index * FRAME_NS), GONE]) for index in range(3)]
    source = Microphone(opener(*openings), wait_at_start=True, clock_ns=lambda: 0)
    told = told_by(source)
    for _ in range(3):
        source.read()
    assert told == ["gone", "back", "gone", "back"]


class Unplugged:
    """A microphone that is pulled out while somebody speaks, and is back at the fifth attempt to open it."""

    def __init__(self, attempt_ns: int) -> None:
        self.now_ns = 9 * FRAME_NS
        self._attempt_ns = attempt_ns
        self._attempts = 0
        self.source = Microphone(self._open, wait_at_start=True, clock_ns=lambda: self.now_ns)
        self.told = told_by(self.source)

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
    monkeypatch.setattr("agent.audio.microphone.FIRST_RETRY_S", 0.001)
    monkeypatch.setattr("agent.audio.microphone.LONGEST_RETRY_S", 0.001)


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
    assert rig.told == ["gone"]
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
    assert rig.told == ["gone", "back"]
    assert again.resumed
    assert again.position == (9 + 4 * 20) * FRAME_SAMPLES


@pytest.mark.usefixtures("_hasty")
def test_a_short_absence_is_bridged_as_ever() -> None:
    """A gap in the middle of a word is no end of it."""
    rig = Unplugged(attempt_ns=5 * FRAME_NS)
    for _ in range(10):
        rig.read()
    assert rig.read().position == (9 + 4 * 5) * FRAME_SAMPLES
    assert rig.told == ["gone", "back"]


def test_an_absent_microphone_is_an_error_at_the_start_unless_waited_for() -> None:
    """Interactive use fails at once; a service waits."""
    with pytest.raises(DeviceUnavailable):
        Microphone(opener(GONE))
    source = Microphone(opener(GONE, ScriptedSource([frame(0, 0)])), wait_at_start=True)
    found = source.read()
    assert found is not None
    assert found.position == 0


def test_what_is_unusable_is_not_retried() -> None:
    """An endless or unintelligible source would be no better the second time."""
    source = Microphone(opener(ScriptedSource([SourceError("endless")])))
    with pytest.raises(SourceError, match="endless"):
        source.read()


def test_close_ends_the_waiting(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping does not wait for a microphone to come back."""
    for name in ("FIRST_RETRY_S", "LONGEST_RETRY_S"):
        monkeypatch.setattr(f"agent.audio.microphone.{name}", 600.0)

    def absent() -> Source:
        raise GONE

    source = Microphone(absent, wait_at_start=True)
    results: list[AudioFrame | None] = []
    reader = threading.Thread(target=lambda: results.append(source.read()))
    with caplog.at_level(logging.WARNING):
        reader.start()
        while not caplog.messages:
            time.sleep(0.01)
        source.close()
        reader.join(60.0)
    assert results == [None]
    assert caplog.messages == ["gone; retrying until it is there"]


def test_a_device_opened_while_closing_is_let_go() -> None:
    """Closing between the opening and the first read leaves no device open."""
    late = ScriptedSource([frame(0, 0)])

    def slow_open() -> Source:
        source.close()
        return late

    source = Microphone(slow_open, wait_at_start=True)
    assert source.read() is None
    assert late.closed


# Muted.


class Device:
    """A source that delivers what it is given; counts itself among the open ones until it is closed."""

    live = True

    def __init__(self, room: "Room") -> None:
        self._room = room
        self._frames: Channel[AudioFrame] = Channel(100)
        self._position = 0
        room.open.append(self)

    def hear(self) -> None:
        """Deliver a frame of sound."""
        pcm = np.full(FRAME_SAMPLES, 7, np.int16)
        self._frames.put(AudioFrame(pcm, self._position, time.monotonic_ns()))
        self._position += FRAME_SAMPLES

    def read(self, ready: int = 1) -> AudioFrame | None:
        """Wait for a frame."""
        assert ready == 1
        return self._frames.get()

    def close(self) -> None:
        """Release the device."""
        self._frames.close()
        if self in self._room.open:
            self._room.open.remove(self)


class Room:
    """Opens devices, or fails to."""

    def __init__(self) -> None:
        self.open: list[Device] = []
        self.absent = False

    def __call__(self) -> Device:
        """Open a device."""
        if self.absent:
            raise DeviceUnavailable("there is no such device")
        return Device(self)


class Rig:
    """A microphone that is read in a thread, as the listen thread does."""

    def __init__(self, *, listening: bool = True, wait_at_start: bool = False) -> None:
        self.room = Room()
        self.frames: Channel[AudioFrame] = Channel(100)
        self.source = Microphone(self.room, listening=listening, wait_at_start=wait_at_start)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while (frame := self.source.read()) is not None:
            self.frames.put(frame)
        self.frames.close()

    def next(self) -> AudioFrame:
        """Return the next frame that was read."""
        frame = self.frames.get(10.0)
        assert frame is not None
        return frame

    def close(self) -> None:
        """End the source, and with it the thread."""
        self.source.close()
        self._thread.join(60)
        assert not self._thread.is_alive()


def test_off_closes_the_device_and_nothing_comes_any_more() -> None:
    """What is said from then on is not delivered: mute is mute."""
    rig = Rig()
    (device,) = rig.room.open
    device.hear()
    rig.next()
    rig.source.off()
    device.hear()
    assert rig.room.open == []
    assert not rig.source.listening
    silence = rig.next()
    assert not silence.pcm.any()
    assert rig.frames.get(0.2) is None
    rig.close()


def test_an_utterance_under_way_ends_with_mute() -> None:
    """One silent frame behind a gap that no utterance survives: it is not published hours later, on `listen`."""
    rig = Rig()
    rig.room.open[0].hear()
    heard = rig.next()
    rig.source.off()
    silence = rig.next()
    assert silence.position - heard.end > LONGEST_FILLED_GAP
    assert silence.captured_ns > heard.captured_ns
    rig.close()


def test_on_opens_a_device_and_time_has_gone_on() -> None:
    """Positions go on growing, with a gap between before and after."""
    rig = Rig()
    rig.room.open[0].hear()
    heard = rig.next()
    rig.source.off()
    silence = rig.next()
    rig.source.on()
    rig.room.open[0].hear()
    again = rig.next()
    assert again.pcm.all()
    assert again.position >= silence.end
    assert again.position - heard.end > LONGEST_FILLED_GAP
    rig.room.open[0].hear()
    assert rig.next().position == again.end
    rig.close()


def test_off_and_on_at_once_do_not_join_two_sounds() -> None:
    """Even if the listen thread sees nothing of it, there is a gap."""
    rig = Rig()
    rig.room.open[0].hear()
    before = rig.next()
    rig.source.off()
    rig.source.on()
    rig.room.open[0].hear()
    frame = rig.next()
    while not frame.pcm.any():
        frame = rig.next()
    assert frame.position - before.end > LONGEST_FILLED_GAP
    rig.close()


def test_a_device_that_is_mute_from_the_start_is_never_opened() -> None:
    """It may not even be there."""
    rig = Rig(listening=False)
    assert rig.room.open == []
    rig.source.on()
    rig.room.open[0].hear()
    assert rig.next().pcm.all()
    rig.close()


def test_a_device_that_cannot_be_opened_leaves_the_source_off() -> None:
    """Who asked is told, and can ask again."""
    rig = Rig(listening=False)
    rig.room.absent = True
    with pytest.raises(DeviceUnavailable):
        rig.source.on()
    assert not rig.source.listening
    rig.room.absent = False
    rig.source.on()
    assert len(rig.room.open) == 1
    rig.close()


@pytest.mark.parametrize("listening", [True, False])
def test_closing_ends_it_on_or_off(listening: bool) -> None:  # noqa: FBT001 - the case
    """Twice does no harm, and it cannot be switched on afterwards."""
    rig = Rig(listening=listening)
    rig.close()
    rig.source.close()
    rig.source.on()
    assert rig.source.read() is None


def test_switching_twice_is_switching_once() -> None:
    """Commands may be repeated."""
    rig = Rig()
    rig.source.on()
    assert len(rig.room.open) == 1
    rig.source.off()
    rig.source.off()
    assert rig.room.open == []
    rig.close()


def test_sound_from_before_a_mute_is_heard_although_nobody_had_time_for_it() -> None:
    """Frames that wait when it is muted, or closed, are delivered; then comes the end of the utterance."""
    room = Room()
    source = Microphone(room)
    for end in (source.off, source.close):
        room.open[0].hear()
        source.read()
        room.open[0].hear()
        end()
        waiting = source.read()
        assert waiting is not None
        assert waiting.pcm.all()
        last = source.read()
        source.on()
    assert last is None


def test_a_mute_ends_the_wait_for_a_microphone_and_its_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    """Muted, it is looked for no more, and its absence is no trouble; who listens again is told anew."""
    monkeypatch.setattr("agent.audio.microphone.FIRST_RETRY_S", 600.0)
    rig = Rig(listening=False, wait_at_start=True)
    rig.room.absent = True
    told = told_by(rig.source)
    for _ in range(2):
        rig.source.on()
        assert eventually(lambda: rig.source.trouble is not None)
        rig.source.off()
        assert rig.source.trouble is None
    assert told.count("there is no such device") == 2
    rig.close()


def test_a_late_loss_of_a_muted_microphone_is_none() -> None:
    """Its device hung, and said so when it had been closed already."""
    reading, stalls = threading.Event(), threading.Event()

    class Hangs(ScriptedSource):
        def read(self, ready: int = 1) -> AudioFrame | None:
            reading.set()
            stalls.wait(60)
            raise DeviceStalled(f"hangs {ready}")

    source = Microphone(opener(Hangs([]), ScriptedSource([frame(0, 0)])))
    told = told_by(source)
    reader = threading.Thread(target=source.read)
    reader.start()
    assert reading.wait(60)
    source.off()
    source.on()
    stalls.set()
    reader.join(60)
    assert told == ["back", "back"]


def test_signs_of_life_go_on_while_it_is_muted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog sees that the listen thread is well, although no frames come."""
    monkeypatch.setattr("agent.audio.microphone.BEAT_S", 0.01)
    rig = Rig(listening=False)
    assert eventually(lambda: rig.source.alive_s is not None)
    before_s = rig.source.alive_s
    assert eventually(lambda: rig.source.alive_s != before_s)
    rig.close()
