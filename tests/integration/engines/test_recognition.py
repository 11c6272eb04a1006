"""Real weights on real speech."""

import csv
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import jiwer
import numpy as np
import pytest
from whisper_normalizer.english import EnglishTextNormalizer

from agent.asr import Engine, create_engine
from agent.asr.context import Window
from agent.asr.decoding import Decode
from agent.audio.frames import Pcm16, Utterance, to_float
from agent.config.settings import FasterWhisperSettings, WhisperCppSettings
from agent.errors import EngineError, ModelError
from tests.support.clips import SPEECH, clip

pytestmark = pytest.mark.weights

Settings = WhisperCppSettings | FasterWhisperSettings
Pulled = Callable[[str], Path]

ENGLISH: dict[str, Settings] = {"whisper_cpp": WhisperCppSettings(), "faster_whisper": FasterWhisperSettings()}
MULTILINGUAL: dict[str, Settings] = {
    "whisper_cpp": WhisperCppSettings(model="base-q8_0"),
    "faster_whisper": FasterWhisperSettings(model="base-ct2"),
}
KINDS = sorted(ENGLISH)


def utterance(pcm: Pcm16) -> Utterance:
    """All of `pcm` as one utterance."""
    return Utterance("01REAL", pcm, 0, 0, speech_end=len(pcm), closed_at=len(pcm))


def load(settings: Settings, pulled: Pulled) -> Engine:
    """The engine with its verified weights."""
    return create_engine(settings, pulled(settings.model))


@pytest.fixture(scope="module", params=[*ENGLISH.values(), WhisperCppSettings(beam_size=5)], ids=[*ENGLISH, "beam"])
def english(request: pytest.FixtureRequest, pulled: Pulled) -> Iterator[Engine]:
    """tiny.en on each engine, and on whisper.cpp with a beam."""
    engine = load(request.param, pulled)
    yield engine
    engine.close()


@pytest.fixture(scope="module", params=KINDS)
def multilingual(request: pytest.FixtureRequest, pulled: Pulled) -> Iterator[Engine]:
    """Base on each engine, language detected."""
    engine = load(MULTILINGUAL[request.param], pulled)
    yield engine
    engine.close()


def references(language: str) -> dict[str, str]:
    """Clip name to what is said in it."""
    with (SPEECH / "manifest.tsv").open(encoding="utf-8") as table:
        rows = csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE)
        return {Path(row["file"]).stem: row["text"] for row in rows if row["language"] == language}


def word_error_rate(engine: Engine, language: str) -> float:
    """Over all clips of a language, both sides normalised as Whisper's authors do."""
    normalise = EnglishTextNormalizer()
    said = references(language)
    heard = [engine.transcribe([utterance(clip(name))])[0].text for name in said]
    return float(jiwer.wer([normalise(text) for text in said.values()], [normalise(text) for text in heard]))


def test_nearly_every_word_is_right(english: Engine) -> None:
    """Studio recordings: more than one word in ten wrong means that something is broken."""
    assert word_error_rate(english, "en") <= 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_the_full_window_gives_the_same_words(kind: str, pulled: Pulled) -> None:
    """`engine.context = "full"` is there to compare with."""
    spoken = utterance(clip("en_vm-msgforwarded"))
    follow, full = load(ENGLISH[kind], pulled), load(ENGLISH[kind].model_copy(update={"context": "full"}), pulled)
    short, long = follow.transcribe([spoken])[0], full.transcribe([spoken])[0]
    assert (short.text, short.retries) == (long.text, 0)
    assert (short.audio_ctx < 500, long.audio_ctx) == (True, 1500)


def test_a_window_gives_all_of_its_tokens_and_tells_when_they_did_not_suffice(english: Engine) -> None:
    """Half as many would cut fast speakers short; and a loop is known by the cap that ended it.

    No public call takes a window, so this looks inside.
    """
    decode: Decode = english._decode  # type: ignore[attr-defined]
    samples = to_float(clip("en_dir-intro"))
    (short,), (enough,) = decode([samples], [Window(640, 12)]), decode([samples], [Window(640, 100)])
    assert (short.capped, enough.capped) == (True, False)
    assert short.tokens >= 12 - 2  # two may be timestamps


def test_the_evidence_of_clear_speech_is_good(english: Engine) -> None:
    """Thresholds can be set on it: sure, not repetitive, and speech where the engine can tell."""
    evidence = english.transcribe([utterance(clip("en_vm-msgforwarded"))])[0]
    assert evidence.avg_logprob is not None
    assert -0.7 < evidence.avg_logprob <= 0
    assert evidence.compression_ratio is not None
    assert evidence.compression_ratio < 2.4
    assert evidence.no_speech_prob is None or evidence.no_speech_prob < 0.5
    assert evidence.language_prob is None


@pytest.mark.parametrize("name", sorted(references("fr")))
def test_french_is_taken_for_french(multilingual: Engine, name: str) -> None:
    """Detected for each utterance, with its probability."""
    transcript = multilingual.transcribe([utterance(clip(name))])[0]
    assert transcript.language == "fr"
    assert transcript.language_prob is not None
    assert transcript.language_prob > 0.8
    assert "suivi" in transcript.text.lower()


def test_english_after_french_is_english(multilingual: Engine) -> None:
    """The last utterance's language does not stick."""
    multilingual.transcribe([utterance(clip("fr_agent-user"))])[0]
    assert multilingual.transcribe([utterance(clip("en_vm-msgforwarded"))])[0].language == "en"


@pytest.mark.parametrize("kind", KINDS)
def test_a_fixed_language_is_not_detected(kind: str, pulled: Pulled) -> None:
    """And costs nothing."""
    engine = load(MULTILINGUAL[kind].model_copy(update={"language": "fr"}), pulled)
    transcript = engine.transcribe([utterance(clip("fr_agent-user"))])[0]
    assert (transcript.language, transcript.language_prob) == ("fr", None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_language_that_whisper_does_not_know_is_named(kind: str, pulled: Pulled) -> None:
    """One line, and the setting to change."""
    settings = MULTILINGUAL[kind].model_copy(update={"language": "zz"})
    with pytest.raises(ModelError, match=r"'zz'.*engine\.language"):
        load(settings, pulled)


@pytest.mark.parametrize("kind", KINDS)
def test_the_initial_prompt_primes_the_spelling(kind: str, pulled: Pulled) -> None:
    """Names and terms come out as they were given."""
    primed = ENGLISH[kind].model_copy(update={"initial_prompt": "Press a key on the TOUCHTONE-KEYPAD."})
    text = load(primed, pulled).transcribe([utterance(clip("en_dir-intro"))])[0].text
    assert "touchtone" in text.lower()


def test_what_is_too_long_is_refused_and_the_engine_stays_usable(english: Engine) -> None:
    """An error costs one utterance, not the service."""
    with pytest.raises(EngineError, match="max_length_s"):
        english.transcribe([utterance(np.zeros(31 * 16_000, np.int16))])[0]
    assert english.transcribe([utterance(clip("en_vm-msgforwarded"))])[0].text


@pytest.mark.parametrize("length", [1, 800, 1_600, 4_000])
def test_very_short_sound_is_no_error(english: Engine, length: int) -> None:
    """Whatever the segmenter hands on."""
    assert english.transcribe([utterance(np.zeros(length, np.int16))])[0].retries <= 1


def test_other_threads_run_while_it_transcribes(english: Engine) -> None:
    """The capture thread must not wait for the engine: inference releases the interpreter."""
    ticks, over = 0, threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not over.wait(0.002):
            ticks += 1

    ticker = threading.Thread(target=tick)
    ticker.start()
    before = ticks
    english.transcribe([utterance(clip("en_dir-intro"))])[0]
    during = ticks - before
    over.set()
    ticker.join()
    assert during >= 5


def test_the_engine_is_quiet(english: Engine, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing on stdout or stderr: no speech in the journal, and no chatter."""
    english.transcribe([utterance(clip("en_vm-msgforwarded"))])[0]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", KINDS)
def test_loading_is_quiet_and_leaving_without_close_is_no_crash(kind: str, pulled: Pulled) -> None:
    """An interpreter that ends with a loaded model ends well, and whisper.cpp's log stays unseen."""
    path = pulled(ENGLISH[kind].model)
    code = (
        "from pathlib import Path\n"
        "from agent.config.settings import FasterWhisperSettings, WhisperCppSettings\n"
        "from agent.asr import create_engine\n"
        f"settings = {{'whisper_cpp': WhisperCppSettings, 'faster_whisper': FasterWhisperSettings}}[{kind!r}]()\n"
        f"engine = create_engine(settings, Path({str(path)!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_truncated_ggml_file_is_refused(pulled: Pulled, tmp_path: Path) -> None:
    """One line, no crash of the native parser."""
    whole = pulled("tiny.en-q8_0").read_bytes()
    half = tmp_path / "half.bin"
    half.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"half\.bin cannot be loaded"):
        create_engine(WhisperCppSettings(), half)


def test_a_truncated_ctranslate2_model_is_refused(pulled: Pulled, tmp_path: Path) -> None:
    """One line, no crash of the native parser."""
    for source in pulled("tiny.en-ct2").iterdir():
        content = source.read_bytes()
        (tmp_path / source.name).write_bytes(content[: len(content) // 2] if source.suffix == ".bin" else content)
    with pytest.raises(ModelError, match=r"cannot be loaded \("):
        create_engine(FasterWhisperSettings(), tmp_path)


def test_arithmetic_that_the_processor_lacks_is_named_with_what_it_has(pulled: Pulled) -> None:
    """float16 is for CUDA."""
    with pytest.raises(EngineError, match=r"float16.*use one of .*int8"):
        load(FasterWhisperSettings(compute_type="float16"), pulled)
