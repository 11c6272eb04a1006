import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from agent.asr.pace import GRACE_S
from agent.asr.transcriber import Transcriber
from agent.asr.transcript import Transcript
from agent.audio.frames import Utterance
from agent.channel import Overflow
from agent.errors import EngineError
from agent.segmenter import Ended, Paused, Resumed


@dataclass
class Recognition:
    """The words of an utterance, and how long it waited."""

    utterance: Utterance
    transcript: Transcript
    queue_s: float
    wait_s: float


@dataclass
class Notebook:
    """Writes down what became of each utterance."""

    recognitions: list[Recognition] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    drops: list[str] = field(default_factory=list)
    drafts: list[str] = field(default_factory=list)

    def recognised(
        self, utterance: Utterance, transcript: Transcript, queue_s: float, wait_s: float, *, late: bool = False
    ) -> None:
        """Write it down."""
        assert not late
        self.recognitions.append(Recognition(utterance, transcript, queue_s, wait_s))

    def partial(self, utterance: Utterance, transcript: Transcript) -> None:
        """Write it down."""
        self.drafts.append(f"{utterance.id}: {transcript.text}")

    def failed(self, utterance: Utterance, error: EngineError) -> None:
        """Write it down."""
        self.failures.append(f"{utterance.id}: {error}")

    def dropped(self, utterance: Utterance) -> None:
        """Write it down."""
        self.drops.append(utterance.id)

    @property
    def ids(self) -> list[str]:
        """Utterances with words, in order."""
        return [recognition.utterance.id for recognition in self.recognitions]


class CountingEngine:
    """Answers with the length of the utterance, once it is let go; writes down what it was asked."""

    def __init__(self, batch_size: int = 1) -> None:
        self.batch_size = batch_size
        self.asked: list[str] = []
        self.started = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.closed = False

    def transcribe(self, utterances: Sequence[Utterance]) -> list[Transcript]:
        """Wait, then answer."""
        (utterance,) = utterances
        self.asked.append(utterance.id)
        self.started.release()
        assert self.go.acquire(timeout=60)
        if utterance.id.startswith("bad"):
            raise EngineError("no words came")
        if utterance.id.startswith("absurd"):
            raise LookupError("a fault of ours")
        return [Transcript(utterance.id, str(len(utterance.pcm)), "en", (), "counting", "none", 0.5, 100)]

    def close(self) -> None:
        """Remember it."""
        self.closed = True

    def allow(self, runs: int) -> None:
        """Let it answer so many times."""
        self.go.release(runs)

    def wait_until_started(self) -> None:
        """Wait until it was asked once more."""
        assert self.started.acquire(timeout=60)


class Rig:
    """A transcriber in its thread, with an engine that waits to be let go."""

    def __init__(self, capacity: int = 8, *, speculative: bool = True) -> None:
        self.engine = CountingEngine()
        self.notebook = Notebook()
        self.transcriber = Transcriber(
            self.engine, self.notebook, capacity, Overflow.DROP_OLDEST, speculative=speculative
        )
        self._thread = threading.Thread(target=self.transcriber.run, daemon=True)
        self._thread.start()

    def finish(self) -> Notebook:
        """Let everything be answered, end the thread, and return what was written down."""
        self.engine.allow(100)
        self.transcriber.close()
        self._thread.join(60)
        assert not self._thread.is_alive()
        assert self.engine.closed
        return self.notebook


def utterance(name: str, length: int = 1600) -> Utterance:
    """Silence of so many samples, all of it called speech."""
    return Utterance(name, np.zeros(length, np.int16), 0, 0, speech_end=length, closed_at=length)


def test_every_utterance_is_answered_in_order() -> None:
    """Words come in the order in which the utterances ended, then the engine is freed."""
    rig = Rig()
    for name in ("a", "b", "c"):
        rig.transcriber.heard(Ended(utterance(name)))
    assert rig.finish().ids == ["a", "b", "c"]


def test_a_draft_that_comes_true_is_not_decoded_again() -> None:
    """If the pause completes, what was decoded inside it is published, with no time in the queue."""
    rig = Rig()
    rig.transcriber.heard(Paused(utterance("a")))
    rig.engine.wait_until_started()
    rig.transcriber.heard(Ended(utterance("a")))
    notebook = rig.finish()
    assert rig.engine.asked == ["a"]
    assert notebook.ids == ["a"]
    assert notebook.recognitions[0].queue_s == 0.0


def test_a_draft_that_speech_overtook_is_never_published() -> None:
    """If speech resumes, the longer utterance is decoded anew and only its words are published."""
    rig = Rig()
    rig.transcriber.heard(Paused(utterance("a", 1600)))
    rig.engine.wait_until_started()
    rig.transcriber.heard(Resumed())
    rig.transcriber.heard(Ended(utterance("a", 3200)))
    notebook = rig.finish()
    assert rig.engine.asked == ["a", "a"]
    assert [recognition.transcript.text for recognition in notebook.recognitions] == ["3200"]


def test_a_withdrawn_draft_that_was_not_begun_costs_nothing() -> None:
    """A draft that is void before the engine is free is skipped."""
    rig = Rig()
    rig.transcriber.heard(Ended(utterance("busy")))
    rig.engine.wait_until_started()
    rig.transcriber.heard(Paused(utterance("a")))
    rig.transcriber.heard(Resumed())
    rig.finish()
    assert rig.engine.asked == ["busy"]


def test_a_withdrawn_draft_is_not_revived_by_the_next() -> None:
    """While the first is under way, the second waits in vain; the third is what was said, and is what is decoded."""
    rig = Rig()
    rig.transcriber.heard(Paused(utterance("a", 1000)))
    rig.engine.wait_until_started()
    rig.transcriber.heard(Resumed())
    rig.transcriber.heard(Paused(utterance("a", 2000)))
    rig.transcriber.heard(Resumed())
    rig.transcriber.heard(Paused(utterance("a", 3000)))
    assert rig.transcriber.waiting == 1
    rig.engine.allow(2)
    rig.engine.wait_until_started()
    rig.transcriber.heard(Ended(utterance("a", 3000)))
    notebook = rig.finish()
    assert rig.engine.asked == ["a", "a"]
    assert notebook.drafts == ["a: 1000", "a: 3000"]
    assert [recognition.transcript.text for recognition in notebook.recognitions] == ["3000"]


@pytest.mark.parametrize("resumed", [True, False], ids=["more drafts", "longer utterances"])
def test_drafts_for_nothing_cost_at_most_their_share_of_the_useful_work(resumed: bool) -> None:  # noqa: FBT001 - a table
    """And a second, and the one that is under way when that is known; whatever it was that overtook them.

    The engine says of every decoding that it took half a second. A probe returns when all before it is done.
    """
    rig = Rig()
    rig.engine.allow(10_000)
    for number in range(60):
        rig.transcriber.heard(Paused(utterance(f"overtaken {number}", 2 * number)))
        rig.transcriber.probe(utterance("probe"), timeout_s=60.0)
        if resumed:
            rig.transcriber.heard(Resumed())
        if not resumed or number % 3 == 0:
            rig.transcriber.heard(Ended(utterance(f"overtaken {number}", 2 * number + 1)))
            rig.transcriber.probe(utterance("probe"), timeout_s=60.0)
    notebook = rig.finish()
    useful_s = len(notebook.recognitions) * 0.5
    allowed_s = GRACE_S + 0.3 * useful_s
    assert allowed_s - 0.5 <= len(notebook.drafts) * 0.5 <= allowed_s + 0.5
    assert len([name for name in rig.engine.asked if name != "probe"]) == len(notebook.drafts) + len(
        notebook.recognitions
    )


def test_no_drafts_while_utterances_wait() -> None:
    """Behind a queue, drafts would only make it longer."""
    rig = Rig()
    rig.transcriber.heard(Ended(utterance("busy")))
    rig.engine.wait_until_started()
    rig.transcriber.heard(Ended(utterance("waits")))
    rig.transcriber.heard(Paused(utterance("a")))
    rig.finish()
    assert rig.engine.asked == ["busy", "waits"]


def test_no_drafts_where_they_are_switched_off() -> None:
    """Without `eager` an utterance is decoded once, after its end."""
    rig = Rig(speculative=False)
    rig.transcriber.heard(Paused(utterance("a")))
    rig.transcriber.heard(Ended(utterance("a")))
    rig.finish()
    assert rig.engine.asked == ["a"]


def test_a_failure_costs_one_utterance_only() -> None:
    """The engine's error is handed on with its utterance, and the next utterance is transcribed."""
    rig = Rig()
    rig.transcriber.heard(Ended(utterance("bad")))
    rig.transcriber.heard(Ended(utterance("good")))
    notebook = rig.finish()
    assert notebook.failures == ["bad: no words came"]
    assert notebook.ids == ["good"]


def test_a_draft_that_fails_is_tried_again_as_an_utterance() -> None:
    """A failed draft is no loss: the finished utterance gets its own attempt, and its own report."""
    rig = Rig()
    rig.transcriber.heard(Paused(utterance("bad")))
    rig.engine.wait_until_started()
    rig.transcriber.heard(Ended(utterance("bad")))
    notebook = rig.finish()
    assert rig.engine.asked == ["bad", "bad"]
    assert notebook.failures == ["bad: no words came"]


def test_what_a_draft_understood_is_told_each_time() -> None:
    """At every pause, whether or not speech resumes; a draft that fails has nothing to tell."""
    rig = Rig()
    for name, length in (("bad", 800), ("a", 1600), ("a", 3200)):
        rig.transcriber.heard(Paused(utterance(name, length)))
        rig.engine.wait_until_started()
        rig.transcriber.heard(Resumed())
        rig.engine.allow(1)
    notebook = rig.finish()
    assert notebook.drafts == ["a: 1600", "a: 3200"]
    assert notebook.ids == []


def test_another_engine_does_not_wait_behind_the_queue() -> None:
    """What is under way is finished; everything that waits is the new engine's, though the queue is full."""
    rig = Rig(capacity=2)
    fresh = CountingEngine()
    fresh.allow(100)
    rig.transcriber.heard(Ended(utterance("under way")))
    rig.engine.wait_until_started()
    for name in ("a", "b"):
        rig.transcriber.heard(Ended(utterance(name)))
    exchange = threading.Thread(target=rig.transcriber.exchange, args=(fresh, 60.0))
    exchange.start()
    rig.engine.allow(1)
    exchange.join(60)
    assert rig.engine.asked == ["under way"]
    old, rig.engine = rig.engine, fresh
    assert rig.finish().ids == ["under way", "a", "b"]
    assert old.closed


def test_what_has_waited_too_long_can_be_set_aside() -> None:
    """The oldest of the queue goes to somebody else, the rest stays; the queue tells its age and length."""
    rig = Rig()
    rig.transcriber.heard(Ended(utterance("under way")))
    rig.engine.wait_until_started()
    assert (rig.transcriber.queue.age_s, rig.transcriber.queue.speech_s) == (0.0, 0.0)
    rig.transcriber.heard(Ended(utterance("old", 16_000)))
    time.sleep(0.05)
    rig.transcriber.heard(Ended(utterance("new", 8_000)))
    queue = rig.transcriber.queue
    assert queue.age_s >= 0.05
    assert queue.speech_s == 1.5
    rig.transcriber.set_aside(0.04)
    notebook = rig.finish()
    assert (notebook.drops, notebook.ids) == (["old"], ["under way", "new"])


def test_a_probe_pushes_nothing_out() -> None:
    """Where the queue is full, it is refused; nobody loses an utterance for it."""
    rig = Rig(capacity=1)
    rig.transcriber.heard(Ended(utterance("under way")))
    rig.engine.wait_until_started()
    rig.transcriber.heard(Ended(utterance("waits")))
    with pytest.raises(EngineError, match="behind"):
        rig.transcriber.probe(utterance("probe"), 1.0)
    notebook = rig.finish()
    assert (notebook.ids, notebook.drops) == (["under way", "waits"], [])


def test_a_full_queue_drops_the_oldest_and_says_which() -> None:
    """What had to make room is reported, so that it can be counted in seconds."""
    rig = Rig(capacity=2)
    rig.transcriber.heard(Ended(utterance("busy")))
    rig.engine.wait_until_started()
    for name in ("a", "b", "c"):
        rig.transcriber.heard(Ended(utterance(name)))
    notebook = rig.finish()
    assert notebook.drops == ["a"]
    assert notebook.ids == ["busy", "b", "c"]


@pytest.mark.parametrize("length", [1600, 3200])
def test_the_wait_counts_from_the_end_of_the_pause(length: int) -> None:
    """`wait_s` is what the subscriber waits beyond the pause: never negative, with a draft or without."""
    rig = Rig()
    rig.transcriber.heard(Paused(utterance("a", 1600)))
    rig.engine.wait_until_started()
    rig.transcriber.heard(Ended(utterance("a", length)))
    assert rig.finish().recognitions[0].wait_s >= 0.0


def test_another_engine_takes_over_between_two_utterances() -> None:
    """What was under way is finished by the old one, which is freed; what comes after goes to the new one."""
    rig = Rig()
    rig.engine.allow(1)
    newcomer = CountingEngine()
    newcomer.allow(1)
    rig.transcriber.heard(Ended(utterance("a")))
    rig.engine.wait_until_started()
    rig.transcriber.exchange(newcomer, timeout_s=60.0)
    assert rig.engine.closed
    rig.transcriber.heard(Ended(utterance("b")))
    notebook = rig.finish()
    assert notebook.ids == ["a", "b"]
    assert (rig.engine.asked, newcomer.asked) == (["a"], ["b"])
    assert newcomer.closed


def test_an_exchange_without_a_limit_waits_for_the_inference() -> None:
    """A starved engine may be at one utterance for minutes; the next engine takes over when it is done."""
    rig = Rig()
    newcomer = CountingEngine()
    rig.transcriber.heard(Ended(utterance("slow")))
    rig.engine.wait_until_started()
    exchange = threading.Thread(target=rig.transcriber.exchange, args=(newcomer,), daemon=True)
    exchange.start()
    exchange.join(0.3)
    assert exchange.is_alive()
    rig.engine.allow(1)
    exchange.join(60)
    assert not exchange.is_alive()
    assert rig.finish().ids == ["slow"]
    assert newcomer.closed


def test_a_probe_is_answered_to_who_asked_and_to_nobody_else() -> None:
    """The golden utterance is no transcript."""
    rig = Rig()
    rig.engine.allow(2)
    assert rig.transcriber.probe(utterance("golden"), timeout_s=60.0).utterance_id == "golden"
    with pytest.raises(EngineError, match="no words"):
        rig.transcriber.probe(utterance("bad"), timeout_s=60.0)
    assert rig.finish().ids == []


def test_a_fault_in_a_probe_is_for_who_asked() -> None:
    """The transcribe thread goes on: a command ends in a refusal, and costs no utterance."""
    rig = Rig()
    rig.engine.allow(1)
    with pytest.raises(LookupError):
        rig.transcriber.probe(utterance("absurd"), timeout_s=10.0)
    rig.transcriber.heard(Ended(utterance("a")))
    assert rig.finish().ids == ["a"]


def test_an_engine_that_has_no_time_says_so() -> None:
    """Neither an exchange nor a probe waits for ever; an engine that was not taken is freed."""
    rig = Rig()
    rig.transcriber.heard(Ended(utterance("busy")))
    rig.engine.wait_until_started()
    newcomer = CountingEngine()
    with pytest.raises(EngineError, match="no time"):
        rig.transcriber.exchange(newcomer, timeout_s=0.01)
    assert newcomer.closed
    rig.transcriber.heard(Ended(utterance("next")))
    assert rig.finish().ids == ["busy", "next"]
    assert newcomer.asked == []


def test_errands_make_room_for_utterances() -> None:
    """Where the queue is full, who asked for something beside the point is told that the engine is behind."""
    rig = Rig(capacity=1)
    rig.transcriber.heard(Ended(utterance("busy")))
    rig.engine.wait_until_started()
    answers: list[str] = []

    def ask() -> None:
        try:
            rig.transcriber.probe(utterance("golden"), timeout_s=60.0)
        except EngineError as error:
            answers.append(str(error))

    asking = threading.Thread(target=ask)
    asking.start()
    while not rig.transcriber.waiting:
        pass
    rig.transcriber.heard(Ended(utterance("next")))
    asking.join(60)
    assert answers == ["the engine is behind: its queue was full"]
    assert rig.finish().ids == ["busy", "next"]


def test_nothing_is_asked_of_an_agent_that_is_stopping() -> None:
    """The queue is closed."""
    rig = Rig()
    rig.finish()
    with pytest.raises(EngineError, match="stopping"):
        rig.transcriber.probe(utterance("golden"), timeout_s=1.0)
