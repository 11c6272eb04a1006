import threading
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from agent.audio.alsa import AbandonedThreads, AlsaSource
from agent.audio.framer import PcmFormat
from agent.audio.frames import Pcm16
from agent.audio.libasound import AlsaPcm
from agent.config.settings import AlsaSettings
from agent.errors import AgentError, DeviceEndless, DeviceStalled, DeviceUnavailable, SourceError
from tests.support.receiver import eventually

SETTINGS = AlsaSettings(device="mic")


def tone(count: int) -> Pcm16:
    """Some samples."""
    return np.arange(count, dtype=np.int16)


class ScriptedPcm(AlsaPcm):
    """Answers reads from a list, then stays silent; real cards do such things too seldom to wait for them."""

    def __init__(self, answers: Iterable[bytes | AgentError | None]) -> None:
        self.format = PcmFormat(16_000, 1, "S16_LE")
        self.closed_by: str | None = None
        self._answers = deque(answers)
        self._idle = threading.Event()

    def read(self, timeout_s: float) -> bytes | None:
        """The next answer."""
        if not self._answers:
            self._idle.wait(timeout_s)
            return b""
        answer = self._answers.popleft()
        if isinstance(answer, AgentError):
            raise answer
        return answer

    def close(self) -> None:
        """Remember who did it: libasound handles are not to be closed under a thread that reads them."""
        self.closed_by = threading.current_thread().name


class Clock:
    """A tenth of a second passes at every look."""

    def __init__(self) -> None:
        self._ticks: Iterator[int] = iter(range(0, 10**15, 100_000_000))

    def __call__(self) -> int:
        """Nanoseconds."""
        return next(self._ticks)


def test_an_overrun_is_counted_told_and_survived() -> None:
    """After −32 the sound goes on, at a later position, and telemetry hears of the loss."""
    overruns: list[str] = []
    pcm = ScriptedPcm([tone(512).tobytes(), None, tone(512).tobytes()])
    source = AlsaSource(SETTINGS, lambda: overruns.append("overrun"), open_pcm=lambda *_: pcm, clock_ns=Clock())
    first, second = source.read(), source.read()
    source.close()
    assert first is not None
    assert second is not None
    assert second.position > first.end
    assert source.xruns == 1
    assert overruns == ["overrun"]


def test_what_was_captured_before_the_loss_is_delivered_first() -> None:
    """A device that breaks takes no sound with it that had already arrived."""
    lost = DeviceUnavailable("gone")
    pcm = ScriptedPcm([tone(1_024).tobytes(), lost])
    source = AlsaSource(SETTINGS, open_pcm=lambda *_: pcm)
    assert source.read() is not None
    assert source.read() is not None
    with pytest.raises(DeviceUnavailable, match="gone"):
        source.read()


def test_the_device_is_closed_by_the_thread_that_reads_it() -> None:
    """Closing a libasound handle while another thread is inside it crashes; so nobody else does."""
    pcm = ScriptedPcm([])
    source = AlsaSource(SETTINGS, open_pcm=lambda *_: pcm)
    source.close()
    source.close()
    assert pcm.closed_by == "alsa"
    assert source.read() is None


def test_a_burst_that_may_be_endless_is_held_back_and_what_is_endless_never_heard() -> None:
    """Of a device that delivers more than there is time for not a frame of it gets through; then it is lost."""
    flood = [tone(512).tobytes()] * 200
    source = AlsaSource(SETTINGS, open_pcm=lambda *_: ScriptedPcm(flood), clock_ns=lambda: 0)
    heard: list[object] = []
    with pytest.raises(DeviceEndless):
        heard.extend(iter(source.read, None))
    assert len(heard) < 20  # half a second, in which it might still be honest


def test_a_device_that_does_not_open_counts_as_stalled_and_is_let_go_of_when_it_does() -> None:
    """The caller does not hang; the thread that does closes the device as soon as libasound has opened it."""
    opened, pcm = threading.Event(), ScriptedPcm([])

    def open_slowly(*_: object) -> ScriptedPcm:
        opened.wait(30)
        return pcm

    with pytest.raises(DeviceStalled, match=r"has not opened within 0\.1 s"):
        AlsaSource(SETTINGS, open_pcm=open_slowly, open_s=0.1)
    opened.set()
    assert eventually(lambda: pcm.closed_by == "alsa")


def test_threads_that_hang_do_not_pile_up() -> None:
    """At three no more is risked; when libasound lets go, it goes on; after ten minutes a new process is called for."""
    opened, now_s = threading.Event(), [0.0]
    abandoned = AbandonedThreads(clock_s=lambda: now_s[0])

    def open_slowly(*_: object) -> ScriptedPcm:
        opened.wait(30)
        return ScriptedPcm([])

    def attempt() -> None:
        AlsaSource(SETTINGS, abandoned=abandoned, open_pcm=open_slowly, open_s=0.05).close()

    before = threading.active_count()
    for _ in range(10):
        with pytest.raises(DeviceStalled):
            attempt()
    assert threading.active_count() <= before + 3
    now_s[0] = 601.0
    with pytest.raises(SourceError, match="start again") as caught:
        attempt()
    assert not isinstance(caught.value, DeviceUnavailable)
    opened.set()
    assert eventually(lambda: threading.active_count() <= before)
    attempt()
