"""The byte-level vocabulary: what each token id stands for, out of `tokenizer.json`, `vocab.json` or `vocabulary.*`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.errors import ModelError

_MAX_BYTES = 64 * 2**20
LEAST_ORDINARY_TOKENS = 50_256
"""Without `<|endoftext|>`, in English-only models."""
ORDINARY_TOKENS_EN = 50_257
ORDINARY_TOKENS_MULTILINGUAL = 50_257
_MULTILINGUAL_FROM = 51_865
_CONTROLS = ("<|endoftext|>", "<|startoftranscript|>", "<|transcribe|>", "<|notimestamps|>")


def is_multilingual(n_vocab: int) -> bool:
    """True if a vocabulary of this size has language tokens; whisper.cpp draws the same line."""
    return n_vocab >= _MULTILINGUAL_FROM


def read_json(path: Path) -> Any:
    """Parse a JSON file of bounded size.

    Raises:
        ModelError: it is absent, too large, or not JSON.
    """
    try:
        return json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not valid JSON; the model folder is damaged") from error


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ModelError(f"{path}: larger than {_MAX_BYTES} bytes; not a model's description")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); the model folder is incomplete") from error


def read_vocabulary(folder: Path, n_vocab: int) -> tuple[bytes, ...]:
    """Bytes of every ordinary token, in the order of ids, special tokens left out.

    `<|endoftext|>` is left out too: whisper.cpp adds it (whisper.cpp#725).

    Raises:
        ModelError: there is no vocabulary, it has gaps, or a token is not byte-level.
    """
    ids = _token_ids(folder)
    count = ORDINARY_TOKENS_MULTILINGUAL if is_multilingual(n_vocab) else ORDINARY_TOKENS_EN
    by_id = {index: token for token, index in ids.items()}
    alphabet = byte_alphabet()
    try:
        return tuple(bytes(alphabet[letter] for letter in by_id[index]) for index in range(min(count, n_vocab)))
    except KeyError as error:
        raise ModelError(f"{folder}: the vocabulary has no byte-level token for {error}; it is damaged") from error


def check_tokens(folder: Path, n_vocab: int) -> None:
    """Hold `tokenizer.json` against CTranslate2's own vocabulary, `vocabulary.json` or `vocabulary.txt`.

    Raises:
        ModelError: one of them is missing or damaged, or belongs to another model.
    """
    ids, tokens = _control_ids(folder / "tokenizer.json"), _listed_tokens(folder)
    if len(tokens) != n_vocab:
        raise ModelError(f"{folder}: its vocabulary lists {len(tokens)} tokens, and its weights are for {n_vocab}")
    for name in _CONTROLS:
        index = ids.get(name, -1)
        if not 0 <= index < n_vocab or tokens[index] != name:
            raise ModelError(f"{folder}: the vocabulary and tokenizer.json do not have {name} at the same place")
    read_vocabulary(folder, n_vocab)


def _listed_tokens(folder: Path) -> list[Any]:
    if (folder / "vocabulary.json").is_file():
        tokens = read_json(folder / "vocabulary.json")
        if not isinstance(tokens, list):
            raise ModelError(f"{folder / 'vocabulary.json'}: no list of tokens; the model folder is damaged")
        return tokens
    text = _read(folder / "vocabulary.txt").decode(errors="replace")
    return text.removesuffix("\n").split("\n")


def _control_ids(path: Path) -> dict[str, int]:
    document = read_json(path)
    added = document.get("added_tokens") if isinstance(document, dict) else None
    return {
        entry["content"]: entry["id"]
        for entry in (added if isinstance(added, list) else ())
        if isinstance(entry, dict) and type(entry.get("id")) is int and isinstance(entry.get("content"), str)
    }


def _token_ids(folder: Path) -> Mapping[str, int]:
    if (folder / "tokenizer.json").is_file():
        document = read_json(folder / "tokenizer.json")
        model = document.get("model") if isinstance(document, dict) else None
        ids = model.get("vocab") if isinstance(model, dict) else None
    elif (folder / "vocab.json").is_file():
        ids = read_json(folder / "vocab.json")
    elif (folder / "vocabulary.json").is_file():
        tokens = read_json(folder / "vocabulary.json")
        ids = {token: index for index, token in enumerate(tokens)} if isinstance(tokens, list) else None
    else:
        raise ModelError(f"{folder}: no tokenizer.json, vocab.json or vocabulary.json; the model folder is incomplete")
    if not isinstance(ids, dict) or not all(isinstance(index, int) for index in ids.values()):
        raise ModelError(f"{folder}: the vocabulary is not a table of tokens and numbers; it is damaged")
    return ids


def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for the 256 bytes (openai/gpt-2, `bytes_to_unicode`)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    alphabet = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in printable)
    return alphabet | {chr(256 + index): byte for index, byte in enumerate(others)}
