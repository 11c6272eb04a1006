"""Whisper's tokens, on a vocabulary small enough to read."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from agent.asr.ctranslate2 import MAX_PROMPT_TOKENS, Tokens
from agent.asr.transcript import Segment
from agent.errors import ModelError

WORDS = ["turn", "on", "the", "light", "off"]
CONTROLS = [
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|de|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startofprev|>",
    "<|notimestamps|>",
]
VOCABULARY = {name: number for number, name in enumerate([*WORDS, *CONTROLS])}
FIRST_TIMESTAMP = len(VOCABULARY)


def write(folder: Path, vocabulary: dict[str, int]) -> Path:
    """A `tokenizer.json` of whole words."""
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=WORDS[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    """The small vocabulary."""
    return Tokens(write(tmp_path, VOCABULARY))


def at(seconds: float) -> int:
    """The timestamp token for a time."""
    return FIRST_TIMESTAMP + round(seconds / 0.02)


def ids(*words: str) -> list[int]:
    """Tokens by name."""
    return [VOCABULARY[word] for word in words]


def test_an_english_only_model_starts_with_the_start_alone(tokens: Tokens) -> None:
    """It knows no languages and no tasks."""
    assert tokens.prompt(None, "") == ids("<|startoftranscript|>")


def test_a_multilingual_model_is_told_language_and_task(tokens: Tokens) -> None:
    """Transcribe, never translate."""
    assert tokens.prompt("de", "") == ids("<|startoftranscript|>", "<|de|>", "<|transcribe|>")


def test_the_initial_prompt_comes_first_as_what_was_said_before(tokens: Tokens) -> None:
    """As openai/whisper passes it."""
    assert tokens.prompt(None, " the light ") == ids("<|startofprev|>", "the", "light", "<|startoftranscript|>")


def test_of_a_long_initial_prompt_the_end_is_kept(tokens: Tokens) -> None:
    """Half of the decoder's positions stay free for the words to come."""
    prompt = tokens.prompt(None, "on " * 1_000 + "light")
    assert len(prompt) == MAX_PROMPT_TOKENS + 2
    assert prompt[-2:] == ids("light", "<|startoftranscript|>")


def test_a_language_that_the_model_lacks_is_named(tokens: Tokens) -> None:
    """With the setting to change."""
    with pytest.raises(ModelError, match=r"'fr'.*engine\.language"):
        tokens.prompt("fr", "")


def test_text_leaves_out_all_that_is_no_text(tokens: Tokens) -> None:
    """Timestamps and control tokens are not words."""
    assert tokens.text([at(0), *ids("turn", "on", "<|endoftext|>"), at(1)]) == "turn on"


def test_timestamps_divide_the_words_into_segments(tokens: Tokens) -> None:
    """Start and end of each, in seconds from the start of the utterance."""
    decoded = [at(0), *ids("turn", "on"), at(0.8), at(1.0), *ids("the", "light"), at(1.9)]
    assert tokens.segments(decoded, duration_s=2.0) == (Segment(0.0, 0.8, "turn on"), Segment(1.0, 1.9, "the light"))


def test_what_no_timestamp_closes_ends_with_the_sound(tokens: Tokens) -> None:
    """The token cap or a missing timestamp loses no words."""
    assert tokens.segments([at(0.5), *ids("turn", "off")], duration_s=2.0) == (Segment(0.5, 2.0, "turn off"),)


def test_no_segment_ends_after_the_sound(tokens: Tokens) -> None:
    """In a short window Whisper sometimes places the end in the silence behind."""
    assert tokens.segments([at(0), *ids("off"), at(7.0)], duration_s=1.5) == (Segment(0.0, 1.5, "off"),)


def test_control_tokens_are_never_sampled(tokens: Tokens) -> None:
    """Besides those of the model's own list."""
    assert set(ids("<|transcribe|>", "<|translate|>", "<|startofprev|>")) | {1} <= set(tokens.suppressed([1]))


def test_a_folder_without_tokenizer_or_with_another_models_is_refused(tmp_path: Path) -> None:
    """The file is named."""
    with pytest.raises(ModelError, match=r"tokenizer\.json is missing"):
        Tokens(tmp_path)
    with pytest.raises(ModelError, match=r"is not Whisper's: it has no <\|endoftext\|>"):
        Tokens(write(tmp_path, {"turn": 0}))
