"""Whisper models: what there are (`catalogue`), where they are kept (`store`), and how one format becomes another.

    CTranslate2 folder ─▶ ct2 ─┐
    Hugging Face folder ─▶ hf ─┴▶ WhisperWeights ─▶ ggml file ─▶ quantise ─▶ q4_0 … q8_0

Model files are hostile input. Nothing here hands a file to native code; what does (an engine) gets its path from
`Store.resolve`, which verifies first. Nothing but `Store.pull` touches the network.
"""

from enum import StrEnum


class ModelFormat(StrEnum):
    """How weights are laid out on disk."""

    GGML = "ggml"
    """One file, whisper.cpp's legacy container."""
    CTRANSLATE2 = "ctranslate2"
    """A folder with `model.bin`, `config.json`, `tokenizer.json` and a vocabulary; what faster-whisper loads."""
