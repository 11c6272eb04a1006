"""The engine on CTranslate2, without its weights: what it refuses, and what it makes of what a batch gives it."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import ctranslate2
import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from agent.asr import ctranslate2 as faster_whisper
from agent.asr.ctranslate2 import CTranslate2Engine
from agent.audio.frames import SAMPLE_RATE_HZ, Utterance
from agent.config.settings import FasterWhisperSettings
from agent.errors import ModelError

WORDS = ("turn", "on", "the", "light")
CONTROLS = (
    *("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|translate|>", "<|startofprev|>"),
    "<|notimestamps|>",
)


class Model:
    """Hears "turn on the light" in silence, and in anything louder one word for as long as it may."""

    n_mels = 80
    is_multilingual = False
    device = "cpu"

    def encode(self, mels: ctranslate2.StorageView) -> NDArray[np.float32]:
        """The loudest band, in the place of what a model makes of it; as wide as tiny."""
        loudest = np.array(mels).max(axis=(1, 2))
        return np.broadcast_to(loudest[:, None, None], (len(loudest), 1, 384))

    def generate(
        self, encoded: NDArray[np.float32], prompts: Sequence[Sequence[int]], *, max_length: int, **_rest: object
    ) -> list[SimpleNamespace]:
        """One cap for all."""
        cap = min(max_length // 2, max_length - len(prompts[0]))
        heard = [[0] * cap if loudest > -1 else list(range(len(WORDS))) for loudest in encoded[:, 0, 0]]
        return [SimpleNamespace(sequences_ids=[ids], scores=[-0.2], no_speech_prob=0.01) for ids in heard]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder, but for the model."""
    vocabulary = {name: number for number, name in enumerate([*WORDS, *CONTROLS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=WORDS[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text('{"suppress_ids": []}')
    return tmp_path


@pytest.mark.parametrize(
    "content",
    ["", "[" * 100_000, "5", "[]", '["ab"]', '{"suppress_ids": 5}', '{"suppress_ids": ["a"]}'],
    ids=["empty", "deep", "number", "list", "pairs", "no list", "no numbers"],
)
def test_a_damaged_description_is_refused_with_the_remedy(folder: Path, content: str) -> None:
    """One line that names the file, whatever is in it."""
    (folder / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json.*pull the model again"):
        CTranslate2Engine(FasterWhisperSettings(), folder, "none")


def test_who_runs_past_his_own_cap_in_a_batch_is_decoded_as_if_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cap of a batch is that of its longest; a loop in a short one is not to be longer for its company."""
    monkeypatch.setattr(faster_whisper, "_load", lambda *_: Model())
    engine = CTranslate2Engine(FasterWhisperSettings(), folder, "none")
    noise = np.random.default_rng(1).normal(0, 3_000, 2 * SAMPLE_RATE_HZ).astype(np.int16)
    looping, longer = (
        Utterance(name, pcm, 0, 0, speech_end=len(pcm), closed_at=len(pcm))
        for name, pcm in (("loops", noise), ("longer", np.zeros(5 * SAMPLE_RATE_HZ, np.int16)))
    )
    together = engine.transcribe([looping, longer])
    alone = [engine.transcribe([looping])[0], engine.transcribe([longer])[0]]
    assert [(one.text, one.tokens, one.verdict) for one in together] == [
        (one.text, one.tokens, one.verdict) for one in alone
    ]
    assert together[0].retries == 1
    assert together[1].text == "turn on the light"
