import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from agent.asr.transcriber import Recognition, Transcriber
from agent.audio.frames import Utterance
from agent.channel import Overflow
from agent.errors import EngineError
from agent.governor.keeper import Keeper, keep_what_waits
from agent.governor.spool import Spool
from agent.messages.transcript import Transcript

SPOKEN = Utterance("01A", np.zeros(32_000, np.int16), 0, 0, 30_000, 32_000)
WORDS = Transcript("01A", "words", "en", (), "scripted", "scripted", 1.0, 0)


@dataclass
class Notebook:
    """Writes down what it is told."""

    told: list[str] = field(default_factory=list)

    def recognised(self, recognition: Recognition) -> None:
        """Write it down."""
        self.told.append(f"recognised {recognition.utterance.id}")

    def drafted(self, utterance: Utterance, transcript: Transcript) -> None:
        """Write it down."""
        del transcript
        self.told.append(f"drafted {utterance.id}")

    def failed(self, utterance: Utterance, error: EngineError) -> None:
        """Write it down."""
        self.told.append(f"failed {utterance.id}: {error}")

    def dropped(self, utterance: Utterance) -> None:
        """Write it down."""
        self.told.append(f"dropped {utterance.id}")

    def lost(self, utterance: Utterance, why: str) -> None:
        """Write it down."""
        self.told.append(f"lost {utterance.id}: {why}")


def test_everything_is_passed_on() -> None:
    """The keeper listens, and changes nothing."""
    notebook = Notebook()
    keeper = Keeper(notebook, None)
    keeper.drafted(SPOKEN, WORDS)
    keeper.recognised(Recognition(SPOKEN, WORDS, 0.0, 0.0))
    keeper.failed(replace(SPOKEN, id="01B"), EngineError("no"))
    keeper.dropped(replace(SPOKEN, id="01C"))
    keeper.lost(replace(SPOKEN, id="01D"), "gone")
    assert notebook.told == ["drafted 01A", "recognised 01A", "failed 01B: no", "dropped 01C", "lost 01D: gone"]


def outcomes(keeper: Keeper) -> list[Callable[[], None]]:
    """All that can become of an utterance in the end."""
    return [
        lambda: keeper.recognised(Recognition(SPOKEN, WORDS, 0.0, 0.0)),
        lambda: keeper.failed(SPOKEN, EngineError("no")),
        lambda: keeper.dropped(SPOKEN),
        lambda: keeper.lost(SPOKEN, "gone"),
    ]


@pytest.mark.parametrize("first", range(4))
def test_of_each_utterance_one_thing_is_told(first: int) -> None:
    """What is given up has no words afterwards, and what has its words is not given up: one number for each."""
    notebook = Notebook()
    keeper = Keeper(notebook, None)
    outcomes(keeper)[first]()
    (told,) = notebook.told
    for tell in outcomes(keeper):
        tell()
    keeper.drafted(SPOKEN, WORDS)
    assert notebook.told == [told]
    keeper.failed(replace(SPOKEN, id="01B"), EngineError("no"))
    assert notebook.told == [told, "failed 01B: no"]


def test_what_would_be_dropped_is_kept_while_there_is_room(tmp_path: Path) -> None:
    """And dropped where there is none."""
    notebook, spool = Notebook(), Spool(tmp_path, 100_000)
    keeper = Keeper(notebook, spool)
    keeper.dropped(SPOKEN)
    assert (notebook.told, len(spool)) == ([], 1)
    keeper.dropped(SPOKEN)
    assert (notebook.told, len(spool)) == (["dropped 01A"], 1)


def test_a_draft_that_comes_true_is_counted_once() -> None:
    """Its inference was one; what is decoded anew is another."""
    once, twice = Keeper(Notebook(), None), Keeper(Notebook(), None)
    for keeper, words in ((once, WORDS), (twice, Transcript("01A", "more", "en", (), "s", "s", 1.0, 0))):
        keeper.drafted(SPOKEN, WORDS)
        keeper.recognised(Recognition(SPOKEN, words, 0.0, 0.0))
    assert once.pace()[0] == twice.pace()[0] == 0.5
    assert twice.pace()[1] == pytest.approx(2 * once.pace()[1])
    once.another_engine()
    assert once.pace()[0] == 0.0


def test_what_was_said_before_it_forgets_is_neither_told_nor_kept(tmp_path: Path) -> None:
    """Wherever it was under way: no words, no failure, nothing on disk. What is said afterwards is."""
    notebook, spool = Notebook(), Spool(tmp_path, 100_000)
    keeper = Keeper(notebook, spool)
    keeper.dropped(SPOKEN)
    assert keeper.forget() == 1
    for tell in (
        lambda spoken: keeper.drafted(spoken, WORDS),
        lambda spoken: keeper.recognised(Recognition(spoken, WORDS, 0.0, 0.0)),
        lambda spoken: keeper.recognised(Recognition(spoken, WORDS, 0.0, 0.0, late=True)),
        lambda spoken: keeper.failed(spoken, EngineError("no")),
        lambda spoken: keeper.lost(spoken, "gone"),
        keeper.dropped,
    ):
        tell(SPOKEN)
    assert (notebook.told, len(spool)) == ([], 0)
    keeper.recognised(Recognition(replace(SPOKEN, id="01B", started_ns=time.monotonic_ns()), WORDS, 0.0, 0.0))
    assert notebook.told == ["recognised 01B"]


class Slow(Notebook):
    """Takes its time to be told."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.go = threading.Event(), threading.Event()

    def recognised(self, recognition: Recognition) -> None:
        """Wait, then write it down."""
        self.began.set()
        assert self.go.wait(60.0)
        super().recognised(recognition)


def test_it_has_not_forgotten_before_what_is_being_told_is_told() -> None:
    """Who then deletes what waits for the broker deletes that as well."""
    slow = Slow()
    keeper = Keeper(slow, None)
    telling = threading.Thread(target=lambda: keeper.recognised(Recognition(SPOKEN, WORDS, 0.0, 0.0)))
    forgetting = threading.Thread(target=keeper.forget)
    telling.start()
    assert slow.began.wait(60.0)
    forgetting.start()
    forgetting.join(0.2)
    assert forgetting.is_alive()
    slow.go.set()
    forgetting.join(60.0)
    telling.join(60.0)
    assert slow.told == ["recognised 01A"]


class Hangs:
    """An engine that does not answer until it is let go; `batch_size` at once."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.began, self.go = threading.Event(), threading.Event()

    def transcribe(self, utterance: Utterance) -> Transcript:
        """Wait."""
        return self.transcribe_many([utterance])[0]

    def transcribe_many(self, utterances: Sequence[Utterance]) -> list[Transcript]:
        """Wait."""
        self.began.set()
        assert self.go.wait(60.0)
        return [replace(WORDS, utterance_id=utterance.id) for utterance in utterances]

    def close(self) -> None:
        """Nothing to free."""


@pytest.mark.parametrize(("batch_size", "given_up"), [(1, ["01A"]), (2, ["01A", "01B"])])
def test_at_the_end_what_waits_is_kept_and_what_the_engine_is_at_is_given_up(
    tmp_path: Path, batch_size: int, given_up: list[str]
) -> None:
    """Nothing that was said goes without a trace, though the engine does not come to its end."""
    notebook, spool, engine = Notebook(), Spool(tmp_path, 1_000_000), Hangs(batch_size)
    keeper = Keeper(notebook, spool)
    transcriber = Transcriber(engine, keeper, 8, Overflow.DROP_OLDEST)
    names = ("01A", "01B", "01C")
    for name in names:
        transcriber.submit(replace(SPOKEN, id=name))
    worker = threading.Thread(target=transcriber.run)
    worker.start()
    assert engine.began.wait(60.0)
    transcriber.close()
    keep_what_waits(transcriber, keeper)
    assert [line.split(":")[0] for line in notebook.told] == [f"failed {name}" for name in given_up]
    assert sorted(path.stem for path in (tmp_path / "spool").iterdir()) == [*names[len(given_up) :]]
    told = notebook.told.copy()
    engine.go.set()
    worker.join(60.0)
    assert not worker.is_alive()
    assert notebook.told == told, "the words came too late"


def test_after_a_drain_there_is_nothing_left_to_keep(tmp_path: Path) -> None:
    """Nor is anything given up that has its words."""
    notebook, spool, engine = Notebook(), Spool(tmp_path, 1_000_000), Hangs(1)
    keeper = Keeper(notebook, spool)
    transcriber = Transcriber(engine, keeper, 8, Overflow.DROP_OLDEST)
    transcriber.submit(SPOKEN)
    transcriber.close()
    engine.go.set()
    transcriber.run()
    keep_what_waits(transcriber, keeper)
    assert (notebook.told, len(spool)) == (["recognised 01A"], 0)
