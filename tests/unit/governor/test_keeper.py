from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from agent.audio import Utterance
from agent.errors import EngineError
from agent.governor.keeper import Keeper
from agent.governor.spool import Spool
from agent.transcriber import Recognition
from agent.transcript import Transcript

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


def test_everything_is_passed_on() -> None:
    """The keeper listens, and changes nothing."""
    notebook = Notebook()
    keeper = Keeper(notebook, None)
    keeper.drafted(SPOKEN, WORDS)
    keeper.recognised(Recognition(SPOKEN, WORDS, 0.0, 0.0))
    keeper.failed(SPOKEN, EngineError("no"))
    keeper.dropped(SPOKEN)
    assert notebook.told == ["drafted 01A", "recognised 01A", "failed 01A: no", "dropped 01A"]


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
