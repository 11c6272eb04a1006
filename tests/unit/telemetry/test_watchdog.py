import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from agent.asr.transcriber import Transcriber
from agent.asr.transcript import Transcript
from agent.audio.frames import AudioFrame, Utterance
from agent.audio.microphone import Microphone
from agent.channel import Channel, Overflow
from agent.config.settings import SegmenterSettings
from agent.errors import EngineError
from agent.segmenter import FRAMES_AT_REST, Ended, Listener, Segmenter
from agent.systemd import Notifier
from agent.telemetry.watchdog import CAPTURE_S, LISTEN_S, Supervisor


class Quiet:
    """A detector that hears no speech, once it is let go."""

    noise_floor_dbfs = None

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()

    def probability(self, pcm: object) -> float:
        """None."""
        del pcm
        assert self.go.wait(60)
        return 0.0

    def reset(self) -> None:
        """Nothing to forget."""


class Stuck:
    """An engine that answers once it is let go."""

    batch_size = 1

    def __init__(self) -> None:
        self.began, self.go = threading.Event(), threading.Event()

    def transcribe(self, utterances: Sequence[Utterance]) -> list[Transcript]:
        """Nothing, later."""
        self.began.set()
        assert self.go.wait(60)
        return [Transcript(each.id, "", "en", (), "stuck", "none", 0.0, 0) for each in utterances]

    def close(self) -> None:
        """Nothing to free."""


class Nobody:
    """Wants to know nothing."""

    def recognised(self, utterance: Utterance, *_words: object, **_late: object) -> None:
        """Let it pass."""

    def partial(self, utterance: Utterance, transcript: Transcript) -> None:
        """Let it pass."""

    def failed(self, utterance: Utterance, error: EngineError) -> None:
        """Let it pass."""

    def dropped(self, utterance: Utterance) -> None:
        """Let it pass."""


class Waiting:
    """A source whose frames come out of a channel."""

    live = True

    def __init__(self, frames: Channel[AudioFrame]) -> None:
        self._frames = frames

    def read(self, ready: int = 1) -> AudioFrame | None:
        """Wait for one."""
        del ready
        return self._frames.get()

    def close(self) -> None:
        """No more will come."""
        self._frames.close()


@dataclass
class Rig:
    """A supervisor with stages of its own, a clock that stands still, and what systemd is told."""

    manager: socket.socket
    notifier: Notifier
    live: bool = True
    now_s: float = 1_000.0
    starved_s: float = 0.0
    engine: Stuck = field(default_factory=Stuck)
    detector: Quiet = field(default_factory=Quiet)
    frames: Channel[AudioFrame] = field(default_factory=lambda: Channel(8))

    def __post_init__(self) -> None:
        self.source = Microphone(lambda: Waiting(self.frames), live=self.live)
        self.transcriber = Transcriber(self.engine, Nobody(), 4, Overflow.WAIT)
        segmenter = Segmenter(SegmenterSettings(), 0.5, lambda: "01")
        self.listener = Listener(self.source, self.detector, segmenter, [])
        self.supervisor = Supervisor(
            self.notifier,
            source=self.source,
            listener=self.listener,
            transcriber=self.transcriber,
            inference_s=lambda duration_s: 5.0 + duration_s,
            clock_s=lambda: self.now_s,
        )
        self.supervisor._own_time_s = lambda: self.now_s - self.starved_s  # no time passes here

    def told(self, after_s: float) -> list[str]:
        """What one more look after so many seconds lets systemd know."""
        self.now_s += after_s
        self.supervisor.tick("listening")
        lines: list[str] = []
        try:
            while True:
                lines += self.manager.recv(4_096).decode().splitlines()
        except BlockingIOError:
            return lines

    def put_frame(self) -> None:
        """Let a frame wait for the listener."""
        self.frames.put(AudioFrame(np.zeros(512, np.int16), 0, 0))


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """One of them."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.setblocking(False)
        yield Rig(manager, Notifier({"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "60000000"}))


def test_a_sign_of_life_at_every_look_while_all_is_well(rig: Rig) -> None:
    """And the status once, until it changes."""
    assert rig.told(after_s=0.0) == ["WATCHDOG=1", "STATUS=listening"]
    assert rig.told(after_s=1.0) == ["WATCHDOG=1"]


def test_a_microphone_that_falls_silent_without_a_word_is_noticed(rig: Rig) -> None:
    """Frames, or attempts to get some: without either, no sign of life reaches systemd, and the status says why."""
    rig.source.alive_s = rig.now_s
    assert "WATCHDOG=1" in rig.told(after_s=CAPTURE_S)
    assert rig.told(after_s=1.0) == ["STATUS=stalled: capture has been silent for 21 s"]
    assert rig.supervisor.stalled
    rig.source.alive_s = rig.now_s
    assert rig.told(after_s=1.0) == ["WATCHDOG=1", "STATUS=listening"]
    assert not rig.supervisor.stalled


def test_a_capture_that_has_ended_in_good_order_owes_nothing(rig: Rig) -> None:
    """While the rest drains, however long that takes."""
    rig.source.alive_s = rig.now_s
    rig.listener.ended = True
    assert "WATCHDOG=1" in rig.told(after_s=10 * CAPTURE_S)


def test_frames_that_nobody_takes_are_noticed(rig: Rig) -> None:
    """A listener that hangs with one."""
    rig.told(after_s=0.0)
    rig.listener.busy = True
    assert rig.told(after_s=LISTEN_S) == ["WATCHDOG=1"]
    assert rig.told(after_s=1.0) == ["STATUS=stalled: listen has been silent for 11 s"]


def test_a_listener_that_takes_frames_is_alive_though_more_wait(rig: Rig) -> None:
    """It may always have one in hand."""
    rig.listener.busy = True
    for _ in range(4):
        rig.listener.frames += 1
        assert "WATCHDOG=1" in rig.told(after_s=LISTEN_S)


def test_a_quiet_room_that_is_muted_leaves_no_stage_late(rig: Rig) -> None:
    """The listener sleeps for more frames than will ever come: those that wait for it are taken all the same."""
    worker = threading.Thread(target=rig.listener.run)
    worker.start()
    rig.put_frame()
    wait_until(lambda: rig.listener.frames == 1)
    for _ in range(FRAMES_AT_REST // 2):
        rig.put_frame()
    wait_until(lambda: rig.listener.frames == 1 + FRAMES_AT_REST // 2)
    rig.source.off()
    rig.source.alive_s = rig.now_s  # its own clock is the real one
    told = [line for _ in range(15) for line in rig.told(after_s=1.0)]
    rig.source.close()
    worker.join(60)
    assert told == ["WATCHDOG=1", "STATUS=listening", *["WATCHDOG=1"] * 14]


def wait_until(done: Callable[[], bool]) -> None:
    """Real time passes, as long as a listener may take; whether it was enough, the caller asserts."""
    deadline_s = time.monotonic() + 60.0
    while not done() and time.monotonic() < deadline_s:
        time.sleep(0.01)


def test_a_listener_to_a_file_may_wait_for_the_engine(tmp_path: Path) -> None:
    """Read flat out, a file fills the queue, and the next utterance waits for room; a microphone waits for nobody."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.setblocking(False)
        for live in (False, True):
            rig = Rig(manager, Notifier({"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "60000000"}), live=live)
            rig.told(after_s=0.0)
            rig.listener.busy = True
            rig.transcriber.heard(Ended(Utterance("01", np.zeros(512, np.int16), 0, 0, speech_end=512, closed_at=512)))
            assert ("WATCHDOG=1" in rig.told(after_s=3 * LISTEN_S)) is not live


def submit(transcriber: Transcriber, utterance: Utterance) -> None:
    """Somebody said it."""
    transcriber.heard(Ended(utterance))


def probe(transcriber: Transcriber, utterance: Utterance) -> None:
    """Somebody asks for its words, in a thread of its own."""
    threading.Thread(target=transcriber.probe, args=(utterance, 10.0), daemon=True).start()


@pytest.mark.parametrize("ask", [submit, probe])
def test_an_inference_has_its_budget_and_no_more(rig: Rig, ask: Callable[[Transcriber, Utterance], None]) -> None:
    """By the length of its utterance, whoever asked for it; between two there is no limit."""
    pcm = np.zeros(32_000, np.int16)
    worker = threading.Thread(target=rig.transcriber.run, daemon=True)
    worker.start()
    ask(rig.transcriber, Utterance("01", pcm, 0, 0, speech_end=len(pcm), closed_at=len(pcm)))
    assert rig.engine.began.wait(60)
    under_way = rig.transcriber.under_way
    assert under_way is not None
    rig.now_s = under_way.since_s
    rig.told(after_s=0.0)
    assert "WATCHDOG=1" in rig.told(after_s=7.0)
    assert rig.told(after_s=1.0) == ["STATUS=stalled: transcribe has been silent for 8 s"]
    rig.engine.go.set()
    rig.transcriber.close()
    worker.join(60)
    assert rig.told(after_s=1_000.0)[0] == "WATCHDOG=1"


def test_an_engine_that_waits_for_a_processor_is_not_late(rig: Rig) -> None:
    """Its budget is in its own time, in the agent's process and in one of its own."""
    pcm = np.zeros(32_000, np.int16)
    worker = threading.Thread(target=rig.transcriber.run, daemon=True)
    worker.start()
    rig.transcriber.heard(Ended(Utterance("01", pcm, 0, 0, speech_end=len(pcm), closed_at=len(pcm))))
    assert rig.engine.began.wait(60)
    under_way = rig.transcriber.under_way
    assert under_way is not None
    rig.now_s = under_way.since_s
    rig.told(after_s=0.0)
    rig.starved_s = 100.0
    assert rig.told(after_s=107.0) == ["WATCHDOG=1"]
    assert rig.told(after_s=1.0) == ["STATUS=stalled: transcribe has been silent for 108 s"]
    rig.engine.go.set()
    rig.transcriber.close()
    worker.join(60)


def test_the_engine_is_looked_for_where_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, which may change, or in this one."""
    asked: list[Callable[[], int]] = []

    def own_time(process: Callable[[], int]) -> Callable[[], float]:
        asked.append(process)
        return lambda: 0.0

    monkeypatch.setattr("agent.telemetry.watchdog.OwnTime", own_time)
    engine = Stuck()
    transcriber = Transcriber(engine, Nobody(), 4, Overflow.WAIT)
    source = Microphone(lambda: Waiting(Channel(8)))
    listener = Listener(source, Quiet(), Segmenter(SegmenterSettings(), 0.5, lambda: "01"), [])
    Supervisor(Notifier({}), source=source, listener=listener, transcriber=transcriber, inference_s=lambda _: 5.0)
    (process,) = asked
    assert process() == os.getpid()
    vars(engine)["pid"] = 7
    assert process() == 7
