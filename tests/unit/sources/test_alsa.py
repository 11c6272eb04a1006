import threading
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from agent.audio import Pcm16
from agent.config import AlsaSettings
from agent.errors import AgentError, DeviceUnavailable
from agent.sources.alsa import AlsaSource
from agent.sources.alsa_pcm import Chunk
from agent.sources.framer import PcmFormat

SETTINGS = AlsaSettings(device="mic")


def tone(count: int) -> Pcm16:
    """Some samples."""
    return np.arange(count, dtype=np.int16)


class ScriptedPcm:
    """Answers reads from a list, then says nothing more; real cards do such things too seldom to wait for them."""

    format = PcmFormat(16_000, 1, "S16_LE")

    def __init__(self, answers: Iterable[Chunk | AgentError]) -> None:
        self.closed_by: str | None = None
        self._answers = deque(answers)
        self._idle = threading.Event()

    def read(self, timeout_s: float) -> Chunk:
        """The next answer."""
        if not self._answers:
            self._idle.wait(timeout_s)
            return Chunk(b"")
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
    lost_s: list[float] = []
    pcm = ScriptedPcm([Chunk(tone(512).tobytes()), Chunk(b"", overrun=True), Chunk(tone(512).tobytes())])
    source = AlsaSource(SETTINGS, lost_s.append, open_pcm=lambda _: pcm, clock_ns=Clock())
    first, second = source.read(), source.read()
    source.close()
    assert first is not None
    assert second is not None
    assert second.position > first.end
    assert source.xruns == 1
    assert lost_s == [(second.position - first.end) / 16_000]


def test_what_was_captured_before_the_loss_is_delivered_first() -> None:
    """A device that breaks takes no sound with it that had already arrived."""
    lost = DeviceUnavailable("gone")
    pcm = ScriptedPcm([Chunk(tone(1_024).tobytes()), lost])
    source = AlsaSource(SETTINGS, open_pcm=lambda _: pcm)
    assert source.read() is not None
    assert source.read() is not None
    with pytest.raises(DeviceUnavailable, match="gone"):
        source.read()


def test_the_device_is_closed_by_the_thread_that_reads_it() -> None:
    """Closing a libasound handle while another thread is inside it crashes; so nobody else does."""
    pcm = ScriptedPcm([])
    source = AlsaSource(SETTINGS, open_pcm=lambda _: pcm)
    source.close()
    source.close()
    assert pcm.closed_by == "alsa"
    assert source.read() is None
