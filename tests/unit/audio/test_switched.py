import threading
import time

import numpy as np
import pytest

from agent.audio.frames import FRAME_SAMPLES, LONGEST_FILLED_GAP, AudioFrame
from agent.audio.switched import SwitchedSource
from agent.channel import Channel
from agent.errors import DeviceUnavailable


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

    def read(self) -> AudioFrame | None:
        """Wait for a frame."""
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
    """A switched source that is read in a thread, as the capture thread does."""

    def __init__(self, *, listening: bool = True) -> None:
        self.room = Room()
        self.waits = 0
        self.frames: Channel[AudioFrame] = Channel(100)
        self.source = SwitchedSource(self.room, live=True, listening=listening, on_wait=self._waited)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _waited(self) -> None:
        self.waits += 1

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
    """What was in the device is not delivered: mute is mute."""
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
    rig.next()
    rig.source.off()
    silence = rig.next()
    rig.source.on()
    rig.room.open[0].hear()
    again = rig.next()
    assert again.pcm.all()
    assert again.position - silence.end >= LONGEST_FILLED_GAP
    rig.room.open[0].hear()
    assert rig.next().position == again.end
    rig.close()


def test_off_and_on_at_once_do_not_join_two_sounds() -> None:
    """Even if the capture thread sees nothing of it, there is a gap."""
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
