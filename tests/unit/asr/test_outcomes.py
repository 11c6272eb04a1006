import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from agent.asr.transcriber import Transcriber
from agent.asr.transcript import Transcript
from agent.audio.frames import Utterance
from agent.channel import Overflow
from agent.errors import EngineError
from agent.segmenter import Ended

SPOKEN = Utterance("01A", np.zeros(32_000, np.int16), 0, 0, 30_000, 32_000)
WORDS = Transcript("01A", "words", "en", (), "scripted", "scripted", 1.0, 0)


@dataclass
class Notebook:
    """Writes down what it is told."""

    told: list[str] = field(default_factory=list)

    def recognised(self, utterance: Utterance, *_words: object, **_late: object) -> None:
        """Write it down."""
        self.told.append(f"recognised {utterance.id}")

    def partial(self, utterance: Utterance, transcript: Transcript) -> None:
        """Write it down."""
        del transcript
        self.told.append(f"drafted {utterance.id}")

    def failed(self, utterance: Utterance, error: EngineError) -> None:
        """Write it down."""
        self.told.append(f"failed {utterance.id}: {error}")

    def dropped(self, utterance: Utterance) -> None:
        """Write it down."""
        self.told.append(f"dropped {utterance.id}")


@dataclass
class Store:
    """Keeps as many utterances as it has room for."""

    room: int
    kept: list[str] = field(default_factory=list)

    def put(self, utterance: Utterance) -> bool:
        """Keep it, if there is room."""
        if len(self.kept) >= self.room:
            return False
        self.kept.append(utterance.id)
        return True


class Hangs:
    """An engine that does not answer until it is let go; `batch_size` at once."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.began, self.go = threading.Event(), threading.Event()

    def transcribe(self, utterances: Sequence[Utterance]) -> list[Transcript]:
        """Wait."""
        self.began.set()
        assert self.go.wait(60.0)
        return [replace(WORDS, utterance_id=utterance.id) for utterance in utterances]

    def close(self) -> None:
        """Nothing to free."""


class Rig:
    """A transcriber with an engine that hangs, that is full, and keeps what there is room for."""

    def __init__(self, notebook: Notebook, room: int = 0, batch_size: int = 1, capacity: int = 8) -> None:
        self.notebook, self.store, self.engine = notebook, Store(room), Hangs(batch_size)
        self.transcriber = Transcriber(self.engine, notebook, capacity, Overflow.DROP_OLDEST, self.store.put)

    def outcomes(self, utterance: Utterance) -> list[Callable[[], None]]:
        """All that can become of an utterance in the end."""
        tell = self.transcriber.report
        return [
            lambda: tell(utterance, lambda: self.notebook.recognised(utterance, WORDS, 0.0, 0.0)),
            lambda: tell(utterance, lambda: self.notebook.failed(utterance, EngineError("no"))),
            lambda: self.set_aside(utterance),
        ]

    def set_aside(self, utterance: Utterance) -> None:
        """Let it wait for too long."""
        self.transcriber.heard(Ended(utterance))
        self.transcriber.set_aside(-1.0)


@pytest.mark.parametrize("first", range(3))
def test_of_each_utterance_one_outcome_is_reported(first: int) -> None:
    """An utterance that is given up has no words afterwards, and one that has its words is not given up."""
    rig = Rig(Notebook())
    rig.outcomes(SPOKEN)[first]()
    (told,) = rig.notebook.told
    for tell in rig.outcomes(SPOKEN):
        tell()
    assert rig.notebook.told == [told]
    rig.outcomes(replace(SPOKEN, id="01B"))[1]()
    assert rig.notebook.told == [told, "failed 01B: no"]


def test_an_utterance_without_room_is_kept_while_the_store_has_room() -> None:
    """And dropped where it has none."""
    rig = Rig(Notebook(), room=1, capacity=1)
    for name in ("01A", "01B", "01C"):
        rig.transcriber.heard(Ended(replace(SPOKEN, id=name)))
    assert (rig.notebook.told, rig.store.kept) == (["dropped 01B"], ["01A"])


def test_an_utterance_from_before_forget_is_neither_reported_nor_kept() -> None:
    """Wherever it was: no words, no failure, nothing on disk. What is said afterwards is reported."""
    rig = Rig(Notebook(), room=8)
    rig.transcriber.heard(Ended(replace(SPOKEN, id="01Z")))
    assert rig.transcriber.forget() == 1
    for tell in rig.outcomes(SPOKEN):
        tell()
    assert (rig.notebook.told, rig.store.kept) == ([], [])
    rig.outcomes(replace(SPOKEN, id="01B", started_ns=time.monotonic_ns()))[0]()
    assert rig.notebook.told == ["recognised 01B"]


class Slow(Notebook):
    """Takes its time to be told."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.go = threading.Event(), threading.Event()

    def recognised(self, utterance: Utterance, *_words: object, **_late: object) -> None:
        """Wait, then write it down."""
        self.began.set()
        assert self.go.wait(60.0)
        super().recognised(utterance)


def test_it_has_not_forgotten_before_what_is_being_told_is_told() -> None:
    """Who then deletes what waits for the broker deletes that as well."""
    slow = Slow()
    rig = Rig(slow)
    telling = threading.Thread(target=rig.outcomes(SPOKEN)[0])
    forgetting = threading.Thread(target=rig.transcriber.forget)
    telling.start()
    assert slow.began.wait(60.0)
    forgetting.start()
    forgetting.join(0.2)
    assert forgetting.is_alive()
    slow.go.set()
    forgetting.join(60.0)
    telling.join(60.0)
    assert slow.told == ["recognised 01A"]


@pytest.mark.parametrize(("batch_size", "given_up"), [(1, ["01A"]), (2, ["01A", "01B"])])
def test_at_the_end_what_waits_is_kept_and_what_the_engine_is_at_is_given_up(
    batch_size: int, given_up: list[str]
) -> None:
    """Nothing that was said goes without a trace, though the engine does not come to its end."""
    rig = Rig(Notebook(), room=8, batch_size=batch_size)
    notebook, transcriber, engine = rig.notebook, rig.transcriber, rig.engine
    names = ("01A", "01B", "01C")
    for name in names:
        transcriber.heard(Ended(replace(SPOKEN, id=name)))
    worker = threading.Thread(target=transcriber.run)
    worker.start()
    assert engine.began.wait(60.0)
    transcriber.close()
    transcriber.abandon()
    assert [line.split(":")[0] for line in notebook.told] == [f"failed {name}" for name in given_up]
    assert rig.store.kept == [*names[len(given_up) :]]
    told = notebook.told.copy()
    engine.go.set()
    worker.join(60.0)
    assert not worker.is_alive()
    assert notebook.told == told, "the words came too late"


def test_after_a_drain_there_is_nothing_left_to_keep() -> None:
    """Nor is anything given up that has its words."""
    rig = Rig(Notebook(), room=8)
    notebook, transcriber, engine = rig.notebook, rig.transcriber, rig.engine
    transcriber.heard(Ended(SPOKEN))
    transcriber.close()
    engine.go.set()
    transcriber.run()
    transcriber.abandon()
    assert (notebook.told, rig.store.kept) == (["recognised 01A"], [])
