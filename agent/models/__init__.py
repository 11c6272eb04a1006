"""Whisper models: the `catalogue`, the `store` on this device, and the conversion of one format to another.

    CTranslate2 folder  ─▶ ct2     ─┐
    Hugging Face folder ─▶ convert ─┴▶ WhisperWeights ─▶ ggml file ─▶ quantise ─▶ q4_0 … q8_0

Model files are hostile input. This package never gives a file to native code. An engine gets its path from
`Store.resolve`, which verifies the file first. Only `pull` uses the network.
"""

from enum import StrEnum


class ModelFormat(StrEnum):
    """The layout of weights on disk."""

    GGML = "ggml"
    """One file in whisper.cpp's legacy container."""
    CTRANSLATE2 = "ctranslate2"
    """A folder with `model.bin`, `config.json`, `tokenizer.json` and a vocabulary, as faster-whisper loads it."""
