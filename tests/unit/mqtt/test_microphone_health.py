import numpy as np
import pytest

from agent.audio import Source
from agent.audio.frames import FRAME_SAMPLES, AudioFrame
from agent.audio.microphone import Microphone
from agent.audio.monitor import AudioMonitor
from agent.errors import DeviceEndless, DeviceStalled, DeviceUnavailable
from agent.messages import Health, Message
from agent.mqtt.publisher import Publisher
from agent.mqtt.reporting import MicrophoneHealth
from agent.telemetry.counters import Counters


class Basket:
    """A sink that keeps the codes of every `health`."""

    def __init__(self) -> None:
        self.codes: list[tuple[str, ...]] = []

    def send(self, message: Message) -> None:
        """Keep it."""
        if isinstance(message, Health):
            self.codes.append(message.codes)

    def close(self, timeout_s: float) -> int:
        """Nothing is ever left."""
        return int(timeout_s * 0)


class Rig:
    """A microphone that is muted, unless it is told what is wrong with it, and everything around its health."""

    def __init__(self, *, is_recording: bool = False) -> None:
        self.basket = Basket()
        self.counters = Counters()
        self.monitor = AudioMonitor()
        publisher = Publisher(self.counters, "boot-1")
        publisher.open([self.basket])
        self.basket.codes.clear()
        self.microphone = Microphone(absent, wait_at_start=True)
        self.health = MicrophoneHealth(
            self.microphone, self.monitor, publisher, self.counters, is_recording=is_recording
        )

    def becomes(self, trouble: DeviceUnavailable | None) -> None:
        """As `Microphone` does."""
        self.microphone.trouble = trouble
        self.microphone.on_change()

    def zeros(self, seconds: int) -> None:
        """Play dead silence."""
        for index in range(seconds * 32):
            self.monitor.hear(AudioFrame(np.zeros(FRAME_SAMPLES, np.int16), index * FRAME_SAMPLES, 0))
        self.health.update()


def absent() -> Source:
    """There is no device."""
    raise DeviceUnavailable("gone")


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (DeviceUnavailable("gone"), "mic_absent", "no microphone x: waiting for it"),
        (DeviceStalled("hangs"), "mic_stalled", "microphone x hangs: waiting for it"),
        (DeviceEndless("flood"), "mic_endless", "microphone x delivers audio faster than real time: waiting for it"),
    ],
)
def test_a_trouble_is_said_once_until_it_is_over(error: DeviceUnavailable, code: str, status: str) -> None:
    """In `health` and for systemd, each in its own words; and it is counted."""
    rig = Rig()
    rig.becomes(error)
    rig.health.update()
    assert rig.health.status("microphone x") == status
    rig.becomes(None)
    assert rig.basket.codes == [(code,), ()]
    assert rig.health.status("microphone x") == ""
    assert rig.counters.audio().losses == 1


def test_another_trouble_takes_the_place_of_the_first() -> None:
    """A microphone that hung and was then pulled out is absent, and one loss."""
    rig = Rig()
    rig.becomes(DeviceStalled("hangs"))
    rig.becomes(DeviceUnavailable("gone"))
    assert rig.basket.codes == [("mic_stalled",), ("mic_absent",)]
    assert rig.counters.audio().losses == 1


def test_the_sound_itself_is_watched_and_only_that_of_a_microphone() -> None:
    """Dead silence is a problem, unless it is in a recording; it is counted in either."""
    rig, recording = Rig(), Rig(is_recording=True)
    for each in (rig, recording):
        each.zeros(7)
        assert each.counters.audio().silences == 1
    assert rig.basket.codes == [("audio_silent",)]
    assert recording.basket.codes == []


def test_of_a_microphone_that_is_gone_the_sound_is_of_no_interest() -> None:
    """`health` says the one thing that is to be done."""
    rig = Rig()
    rig.zeros(7)
    rig.becomes(DeviceUnavailable("gone"))
    assert rig.basket.codes[-1] == ("mic_absent",)


def test_of_a_microphone_that_is_muted_nothing_is_wrong() -> None:
    """Its user knows why nothing comes."""
    rig = Rig()
    rig.zeros(7)
    rig.microphone.off()
    assert rig.basket.codes == [("audio_silent",), ()]
    rig.microphone.on()
    rig.becomes(DeviceUnavailable("gone"))
    rig.microphone.off()
    assert rig.basket.codes[-2:] == [("mic_absent",), ()]
    assert rig.health.status("microphone x") == ""
