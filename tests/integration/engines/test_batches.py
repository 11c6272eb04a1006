"""Several utterances at once: real weights, and a real process that is lost over them."""

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from agent.asr import Engine, create_engine
from agent.asr.context import WINDOW_S
from agent.asr.engine_process import EngineProcess, ProcessEngine
from agent.asr.transcriber import Transcriber
from agent.asr.transcript import Transcript
from agent.audio.frames import Pcm16, Utterance
from agent.channel import Overflow
from agent.config.settings import FasterWhisperSettings, ScriptedSettings
from agent.errors import EngineError
from agent.segmenter import Ended
from tests.support.clips import clip, clip_names, silence

Pulled = Callable[[str], Path]


def spoken(name: str, pcm: Pcm16) -> Utterance:
    """All of `pcm` as one utterance."""
    return Utterance(name, pcm, 0, 0, speech_end=len(pcm), closed_at=len(pcm))


def clips(language: str = "") -> list[Utterance]:
    """The bundled clips of a language, or all, as utterances with their names for ids."""
    heard = [spoken(name, clip(name)) for name in clip_names() if name.startswith(language)]
    return [utterance for utterance in heard if utterance.duration_s < WINDOW_S]


def load(settings: FasterWhisperSettings, pulled: Pulled) -> Engine:
    """The engine with its verified weights."""
    return create_engine(settings, pulled(settings.model))


@pytest.fixture(scope="module")
def english(pulled: Pulled) -> Iterator[Engine]:
    """tiny.en on CTranslate2."""
    engine = load(FasterWhisperSettings(), pulled)
    yield engine
    engine.close()


def said(transcript: Transcript) -> tuple[str, str, str, str]:
    """What subscribers act on."""
    return (transcript.utterance_id, transcript.text, transcript.language, transcript.verdict)


@pytest.mark.weights
@pytest.mark.parametrize("seed", range(3))
def test_several_at_once_get_the_words_that_each_gets_alone(english: Engine, seed: int) -> None:
    """In any company: clips of all lengths, silence, noise and next to nothing, in batches of any size."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    sounds = [
        *clips("en"),
        spoken("silence", silence(2.0, seed=seed)),
        spoken("noise", silence(3.0, level=3_000.0, seed=seed)),
        spoken("click", np.zeros(1, np.int16)),
    ]
    chance.shuffle(sounds)
    alone = [english.transcribe([sound])[0] for sound in sounds]
    together: list[Transcript] = []
    while rest := sounds[len(together) :]:
        together += english.transcribe(rest[: chance.randint(2, 8)])
    assert [said(transcript) for transcript in together] == [said(transcript) for transcript in alone]


@pytest.mark.weights
def test_in_the_same_window_even_the_evidence_is_the_same(english: Engine) -> None:
    """A batch computes what one alone computes: confidence, times and tokens as well."""
    same = [utterance for utterance in clips("en") if utterance.duration_s < 5.0]
    assert len(same) >= 2
    for one, other in zip(english.transcribe(same), (english.transcribe([each])[0] for each in same), strict=True):
        assert (one.audio_ctx, one.tokens, one.segments) == (other.audio_ctx, other.tokens, other.segments)
        assert one.avg_logprob == pytest.approx(other.avg_logprob, abs=1e-3)
        assert one.no_speech_prob == pytest.approx(other.no_speech_prob, abs=1e-3)


@pytest.mark.weights
def test_each_has_its_own_language(pulled: Pulled) -> None:
    """Detected for each in a batch, with its probability."""
    engine = load(FasterWhisperSettings(model="base-ct2"), pulled)
    mixed = [*clips("fr")[:2], *clips("en")[:2]]
    together = engine.transcribe(mixed)
    assert [said(transcript) for transcript in together] == [said(engine.transcribe([each])[0]) for each in mixed]
    assert [transcript.language for transcript in together] == ["fr", "fr", "en", "en"]
    assert all((transcript.language_prob or 0.0) > 0.5 for transcript in together)
    engine.close()


@pytest.mark.weights
def test_what_is_too_long_is_refused_and_the_engine_stays_usable(english: Engine) -> None:
    """None of them gets words, so that each is tried by itself."""
    short = clips("en")[:2]
    with pytest.raises(EngineError, match="max_length_s"):
        english.transcribe([*short, spoken("long", np.zeros(31 * 16_000, np.int16))])
    assert len(english.transcribe(short)) == 2


@pytest.mark.weights
def test_a_process_does_batches_of_the_size_that_its_engine_wants(pulled: Pulled) -> None:
    """What is heard in it at once is what is heard here."""
    settings = FasterWhisperSettings(batch_size=3)
    engine = ProcessEngine(settings, lambda: pulled(settings.model))
    here = load(settings, pulled)
    sounds = clips("en")[:3]
    try:
        assert engine.batch_size == 3
        there = engine.transcribe(sounds)
        assert [said(one) for one in there] == [said(one) for one in here.transcribe(sounds)]
    finally:
        engine.close()
        here.close()


class ThreeAtOnce(ProcessEngine):
    """A process that is given three utterances at once, whatever the engine in it is."""

    wanted: threading.Event
    """Set as soon as somebody has made sure that there is a process for what he is about to ask."""

    def _running(self) -> EngineProcess:
        offspring = super()._running()
        self.wanted.set()
        return offspring

    @property
    def batch_size(self) -> int:
        """Three."""
        return 3


@dataclass
class Notebook:
    """Writes down what became of each utterance."""

    ids: list[str] = field(default_factory=list)
    failed_ids: list[str] = field(default_factory=list)

    def recognised(self, utterance: Utterance, *_words: object, **_late: object) -> None:
        """Write it down."""
        self.ids.append(utterance.id)

    def partial(self, utterance: Utterance, transcript: Transcript) -> None:
        """Nothing is drafted here."""

    def failed(self, utterance: Utterance, error: EngineError) -> None:
        """Write it down."""
        del error
        self.failed_ids.append(utterance.id)

    def dropped(self, utterance: Utterance) -> None:
        """Write it down."""
        self.failed_ids.append(utterance.id)


@pytest.fixture
def losses() -> list[str]:
    """Why processes were lost."""
    return []


@pytest.fixture
def scripted(losses: list[str]) -> Iterator[ThreeAtOnce]:
    """Takes two seconds for an utterance; half a second more than four times its length is what it may take."""
    engine = ThreeAtOnce(ScriptedSettings(delay_s=2.0, budget_s=0.5), lambda: None, losses.append)
    engine.wanted = threading.Event()
    yield engine
    engine.close()


def killed_over(engine: ThreeAtOnce, utterances: Sequence[Utterance]) -> Notebook:
    """What becomes of `utterances`, all waiting, if the process is killed over the first batch."""
    notebook = Notebook()
    transcriber = Transcriber(engine, notebook, len(utterances), Overflow.WAIT)
    for utterance in utterances:
        transcriber.heard(Ended(utterance))
    transcriber.close()
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGSTOP)  # so that the batch is surely not answered before the kill
    thread = threading.Thread(target=transcriber.run, daemon=True)
    thread.start()
    assert engine.wanted.wait(120.0)  # before, it would be an idle process that dies
    os.kill(engine.pid, signal.SIGKILL)
    thread.join(120.0)
    assert not thread.is_alive()
    return notebook


def test_a_kill_in_the_middle_of_a_batch_costs_no_utterance(scripted: ThreeAtOnce, losses: list[str]) -> None:
    """Each is tried once more by itself, in order."""
    sounds = [spoken(f"01BATCH{index}", silence(3.0)) for index in range(3)]
    notebook = killed_over(scripted, sounds)
    assert notebook.ids == ["01BATCH0", "01BATCH1", "01BATCH2"]
    assert notebook.failed_ids == []
    assert losses == ["died while transcribing (SIGKILL, as when memory runs out)"]


def test_what_no_process_survives_fails_alone(scripted: ThreeAtOnce, losses: list[str]) -> None:
    """The utterance that is to blame has its own two attempts; its neighbours get their words."""
    poison = spoken("01POISON", silence(0.01))  # takes longer than it may, each time
    notebook = killed_over(scripted, [spoken("01GOOD0", silence(3.0)), poison, spoken("01GOOD1", silence(3.0))])
    assert notebook.ids == ["01GOOD0", "01GOOD1"]
    assert notebook.failed_ids == ["01POISON"]
    assert losses[0].startswith("died while transcribing")
    assert losses[1:] == ["hung while transcribing: killed after 1 s of its own time"] * 2
