"""The transcribe stage with an engine that takes several utterances at once."""

import threading
import time
from collections.abc import Callable, Sequence

import pytest

from agent.asr.transcriber import Transcriber, UnderWay
from agent.asr.transcript import Transcript
from agent.audio.frames import Utterance
from agent.channel import Overflow
from agent.errors import EngineError
from agent.segmenter import Ended, Paused
from tests.unit.asr.test_transcriber import CountingEngine, Notebook, utterance


class BatchingEngine(CountingEngine):
    """Takes up to `batch_size` at once, once it is let go; refuses batches with a "bad" one in them."""

    def __init__(self, batch_size: int) -> None:
        super().__init__(batch_size)
        self.batches: list[list[str]] = []

    def transcribe(self, utterances: Sequence[Utterance]) -> list[Transcript]:
        """Wait, then answer; write down batches apart."""
        if len(utterances) == 1:
            return super().transcribe(utterances)
        names = [each.id for each in utterances]
        self.batches.append(names)
        self.started.release()
        assert self.go.acquire(timeout=60)
        if any(name.startswith("bad") for name in names):
            raise EngineError("one of them did harm")
        return [Transcript(each.id, str(len(each.pcm)), "en", (), "counting", "none", 0.5, 100) for each in utterances]


class Rig:
    """A transcriber in its thread, already busy with one utterance."""

    def __init__(self, batch_size: int = 4, *, capacity: int = 8) -> None:
        self.engine = BatchingEngine(batch_size)
        self.notebook = Notebook()
        self.transcriber = Transcriber(self.engine, self.notebook, capacity, Overflow.DROP_OLDEST)
        self._thread = threading.Thread(target=self.transcriber.run)
        self._thread.start()
        self.submit("busy")
        self.engine.wait_until_started()

    def submit(self, *names: str) -> None:
        """Utterances that have ended."""
        for name in names:
            self.transcriber.heard(Ended(utterance(name)))

    def finish(self) -> Notebook:
        """Let everything be answered, end the thread, and return what was written down."""
        self.engine.allow(100)
        self.transcriber.close()
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.notebook


def test_what_waits_is_transcribed_at_once_and_told_in_order() -> None:
    """As many as the engine takes; what is left over goes next."""
    rig = Rig(batch_size=4)
    rig.submit("a", "b", "c", "d", "e")
    assert rig.finish().ids == ["busy", "a", "b", "c", "d", "e"]
    assert rig.engine.batches == [["a", "b", "c", "d"]]
    assert rig.engine.asked == ["busy", "e"]


def test_an_engine_that_takes_one_is_asked_one_by_one() -> None:
    """A batch size of one switches it off."""
    rig = Rig(batch_size=1)
    rig.submit("a", "b")
    assert rig.finish().ids == ["busy", "a", "b"]
    assert rig.engine.batches == []


def test_a_single_one_is_no_batch() -> None:
    """What does not wait is transcribed as ever."""
    rig = Rig()
    rig.submit("a")
    rig.finish()
    assert (rig.engine.asked, rig.engine.batches) == (["busy", "a"], [])


def test_a_batch_ends_before_a_draft() -> None:
    """A draft is decoded by itself, and kept until its pause is over: order and ids stay what they are."""
    rig = Rig()
    rig.transcriber.heard(Paused(utterance("a")))  # nothing waits yet
    rig.submit("a", "b", "c")
    notebook = rig.finish()
    assert notebook.ids == ["busy", "a", "b", "c"]
    assert (rig.engine.asked, rig.engine.batches) == (["busy", "a"], [["b", "c"]])
    assert [recognition.queue_s > 0 for recognition in notebook.recognitions[1:]] == [False, True, True]


def test_a_draft_that_was_overtaken_goes_into_the_batch_anew() -> None:
    """More speech came: the longer utterance is decoded, with those behind it."""
    rig = Rig()
    rig.transcriber.heard(Paused(utterance("a", 1600)))
    rig.transcriber.heard(Ended(utterance("a", 3200)))
    rig.submit("b")
    notebook = rig.finish()
    assert rig.engine.batches == [["a", "b"]]
    assert [recognition.transcript.text for recognition in notebook.recognitions] == ["1600", "3200", "1600"]


def test_what_fails_at_once_is_tried_one_by_one() -> None:
    """Whoever is to blame fails alone, in its place; the others get their words."""
    rig = Rig()
    rig.submit("a", "bad", "c")
    notebook = rig.finish()
    assert rig.engine.batches == [["a", "bad", "c"]]
    assert rig.engine.asked == ["busy", "a", "bad", "c"]
    assert notebook.ids == ["busy", "a", "c"]
    assert notebook.failures == ["bad: no words came"]


def test_waiting_is_counted_for_each() -> None:
    """From its own end: until the engine took it, and until its words were there, the others' time included."""
    rig = Rig()
    rig.submit("a")
    time.sleep(0.05)
    rig.submit("b")
    rig.engine.allow(1)
    rig.engine.wait_until_started()
    time.sleep(0.05)
    _, first, second = rig.finish().recognitions
    assert first.queue_s - second.queue_s > 0.04
    for recognition in (first, second):
        assert recognition.wait_s - recognition.queue_s > 0.04


def test_all_of_a_batch_is_under_way() -> None:
    """Whoever watches grants it the time of all together, and then of each."""
    rig = Rig()
    rig.submit("a", "bad", "c")
    seen: list[UnderWay | None] = []
    for _ in range(3):
        rig.engine.allow(1)
        rig.engine.wait_until_started()
        seen.append(rig.transcriber.under_way)
    rig.finish()
    assert [round(each.duration_s, 3) for each in seen if each] == [0.3, 0.1, 0.1]
    assert rig.transcriber.under_way is None


@pytest.mark.parametrize("names", [("a", "b"), ("a", "bad")])
def test_an_errand_waits_for_the_batch_before_it_and_not_behind_the_next(names: tuple[str, str]) -> None:
    """Whatever is asked of the engine keeps its place in the queue."""
    rig = Rig()
    rig.submit(*names)
    answered: list[str] = []

    def probe() -> None:
        answered.append(rig.transcriber.probe(utterance("golden"), timeout_s=60.0).utterance_id)

    asking = threading.Thread(target=probe)
    asking.start()
    _until(lambda: rig.transcriber.waiting == 3)
    rig.submit("c", "d")
    notebook = rig.finish()
    asking.join(60)
    assert answered == ["golden"]
    assert rig.engine.batches == [list(names), ["c", "d"]]
    assert [*notebook.ids, *notebook.failures][:2] == ["busy", "a"]
    assert rig.engine.asked[-1] == "golden"


def _until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)
