"""Whisper's tokens for CTranslate2, read from the `tokenizer.json` beside the weights.

Layout of the vocabulary and the prompt: `whisper/tokenizer.py` in openai/whisper. Text tokens come first, then
`<|endoftext|>`, the control tokens, and from `<|notimestamps|>` + 1 on the timestamps, 20 ms apart.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from agent.errors import ModelError
from agent.messages.transcript import Segment

TIMESTAMPS_PER_SECOND = 50
MAX_PROMPT_TOKENS = 223
"""Half of the decoder's 448 positions, less one for `<|startofprev|>` (openai/whisper does the same)."""


class Tokens:
    """Text to tokens and back.

    Raises:
        ModelError: `tokenizer.json` is absent or not a Whisper tokenizer.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelError(f"{path} is missing: pull the model again with `edgescribe models pull`")
        self._path = path
        self._tokenizer = Tokenizer.from_file(str(path))
        self.end_of_text = self._control("<|endoftext|>")
        self.start = self._control("<|startoftranscript|>")
        self.first_timestamp = self._control("<|notimestamps|>") + 1

    def prompt(self, language: str | None, initial_prompt: str) -> list[int]:
        """Return what the decoder starts from; `language` is None for an English-only model.

        Raises:
            ModelError: the model does not know the language.
        """
        previous = self._previous(initial_prompt)
        if language is None:
            return [*previous, self.start]
        spoken = self._tokenizer.token_to_id(f"<|{language}|>")
        if spoken is None:
            raise ModelError(f"this model does not know the language {language!r}: set engine.language to another one")
        return [*previous, self.start, spoken, self._control("<|transcribe|>")]

    def text(self, tokens: Iterable[int]) -> str:
        """Return what the text tokens among `tokens` say, stripped."""
        return str(self._tokenizer.decode([token for token in tokens if token < self.end_of_text])).strip()

    def segments(self, tokens: Sequence[int], duration_s: float) -> tuple[Segment, ...]:
        """Divide `tokens` at its timestamps, which are clamped to `duration_s`; segments without text are left out."""
        return tuple(
            Segment(min(start_s, duration_s), min(max(start_s, end_s), duration_s), text)
            for start_s, end_s, part in self._parts(tokens, duration_s)
            if (text := self.text(part))
        )

    def suppressed(self, from_config: Iterable[int]) -> list[int]:
        """Return the tokens that are never to be sampled: those of `config.json`, and the control tokens."""
        names = ("<|transcribe|>", "<|translate|>", "<|startoftranscript|>", "<|startofprev|>", "<|startoflm|>")
        controls = (self._tokenizer.token_to_id(name) for name in names)
        return sorted({*from_config, *(token for token in controls if token is not None)})

    def _parts(self, tokens: Sequence[int], duration_s: float) -> Iterator[tuple[float, float, list[int]]]:
        """Yield start, end and tokens of each part; a part that no timestamp closes ends with the sound."""
        start_s, part = 0.0, list[int]()
        for token in tokens:
            if token < self.first_timestamp:
                part.append(token)
                continue
            at_s = (token - self.first_timestamp) / TIMESTAMPS_PER_SECOND
            if part:
                yield start_s, at_s, part
            start_s, part = at_s, []
        if part:
            yield start_s, duration_s, part

    def _previous(self, initial_prompt: str) -> list[int]:
        if not initial_prompt.strip():
            return []
        words = self._tokenizer.encode(f" {initial_prompt.strip()}", add_special_tokens=False).ids
        return [self._control("<|startofprev|>"), *words[-MAX_PROMPT_TOKENS:]]

    def _control(self, name: str) -> int:
        token = self._tokenizer.token_to_id(name)
        if token is None:
            raise ModelError(f"{self._path} is not Whisper's: it has no {name}")
        return int(token)
