import numpy as np
import pytest

from agent.audio.frames import FRAME_SAMPLES, AudioFrame
from agent.audio.monitor import AudioMonitor
from agent.errors import DeviceEndless, DeviceStalled, DeviceUnavailable
from agent.messages import Health, Message
from agent.mqtt.hearing import Hearing
from agent.mqtt.publisher import Publisher
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
    """Everything around a `Hearing`."""

    def __init__(self, *, live: bool = True) -> None:
        self.basket = Basket()
        self.counters = Counters()
        self.monitor = AudioMonitor()
        publisher = Publisher(self.counters, "boot-1")
        publisher.open([self.basket])
        self.basket.codes.clear()
        self.hearing = Hearing(publisher, self.counters, self.monitor, lambda: None, live=live)
        self.events = self.hearing.anew()

    def zeros(self, seconds: int) -> None:
        """Play dead silence."""
        for index in range(seconds * 32):
            self.monitor.hear(AudioFrame(np.zeros(FRAME_SAMPLES, np.int16), index * FRAME_SAMPLES, 0))
        self.hearing.tick(listening=True)


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (DeviceUnavailable("gone"), "mic_absent", "no microphone x: waiting for it"),
        (DeviceStalled("hangs"), "mic_stalled", "microphone x hangs: waiting for it"),
        (DeviceEndless("flood"), "mic_endless", "microphone x delivers sound that nobody made: waiting for it"),
    ],
)
def test_why_nothing_comes_is_said_once_until_it_is_over(error: DeviceUnavailable, code: str, status: str) -> None:
    """In `health` and for systemd, each in its own words; and it is counted."""
    rig = Rig()
    rig.events.absent(error)
    rig.events.absent(error)
    assert rig.hearing.trouble("microphone x") == status
    rig.events.back()
    assert rig.basket.codes == [(code,), ()]
    assert rig.hearing.trouble("microphone x") == ""
    assert rig.counters.audio().losses == 1


def test_another_trouble_takes_the_place_of_the_first() -> None:
    """A microphone that hung and was then pulled out is absent, and one loss."""
    rig = Rig()
    rig.events.absent(DeviceStalled("hangs"))
    rig.events.absent(DeviceUnavailable("gone"))
    assert rig.basket.codes == [("mic_stalled",), ("mic_absent",)]
    assert rig.counters.audio().losses == 1


def test_a_microphone_that_is_opened_anew_after_a_mute_owes_nothing() -> None:
    """What the source before it lacked is not what it lacks."""
    rig = Rig()
    rig.events.absent(DeviceUnavailable("gone"))
    rig.hearing.anew()
    assert rig.basket.codes == [("mic_absent",), ()]


def test_what_an_earlier_source_tells_late_counts_for_nothing() -> None:
    """It hung while it was muted and opened anew; neither its trouble nor its return is that of the one after it."""
    rig = Rig()
    earlier, later = rig.events, rig.hearing.anew()
    earlier.absent(DeviceStalled("hangs"))
    assert rig.basket.codes == []
    assert rig.hearing.trouble("microphone x") == ""
    assert rig.counters.audio().losses == 0
    later.absent(DeviceUnavailable("gone"))
    earlier.back()
    assert rig.basket.codes == [("mic_absent",)]
    later.back()
    assert rig.basket.codes == [("mic_absent",), ()]


def test_the_sound_itself_is_watched_and_only_that_of_a_microphone() -> None:
    """Dead silence is a problem, unless it is in a recording; it is counted in either."""
    rig, recording = Rig(), Rig(live=False)
    for each in (rig, recording):
        each.zeros(7)
        assert each.counters.audio().silences == 1
    assert rig.basket.codes == [("audio_silent",)]
    assert recording.basket.codes == []


def test_of_a_microphone_that_is_gone_the_sound_is_of_no_interest() -> None:
    """`health` says the one thing that is to be done."""
    rig = Rig()
    rig.zeros(7)
    rig.events.absent(DeviceUnavailable("gone"))
    rig.hearing.tick(listening=True)
    assert rig.basket.codes[-1] == ("mic_absent",)


def test_of_a_microphone_that_is_closed_nothing_is_wrong() -> None:
    """Whoever muted it knows why nothing comes; what is still wrong when it is opened again is said then."""
    rig = Rig()
    rig.zeros(7)
    rig.hearing.tick(listening=False)
    assert rig.basket.codes == [("audio_silent",), ()]
    rig.events.absent(DeviceUnavailable("gone"))  # on its way when it was closed
    rig.hearing.tick(listening=False)
    assert rig.basket.codes[2:] == [("mic_absent",), ()]
    assert rig.hearing.trouble("microphone x") == ""
    rig.hearing.tick(listening=True)
    assert rig.basket.codes[4:] == [("mic_absent",)]
    assert rig.hearing.trouble("microphone x") == "no microphone x: waiting for it"


def test_an_overrun_is_a_number_and_no_message() -> None:
    """Telemetry counts it."""
    rig = Rig()
    rig.events.overrun()
    assert rig.counters.audio().xruns == 1
    assert rig.basket.codes == []
