"""How each system is driven, inside its own child process.

Only `ours` imports the agent; the peers' modules import the peer, numpy, and nothing else that is not in the standard
library (they may run under an interpreter that has only those).
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.audio.frames import Pcm16
from agent.bench.wire_format import Heard, PeerError, PeerMissing
from agent.install import extras


@dataclass(frozen=True, slots=True)
class Setup:
    """What an adapter is told."""

    adapter: str
    model: str
    """Catalogue name or path, as the user wrote it."""
    model_path: Path
    """ggml file or CTranslate2 folder; verified by the store where it came from there."""
    options: Mapping[str, str]
    english_only: bool = False

    def number(self, option: str, default: int) -> int:
        """An option that is a number.

        Raises:
            PeerError: it is not.
        """
        value = self.options.get(option, str(default))
        if not value.isdecimal():
            raise PeerError(f"{self.adapter}: {option} must be a number, not {value!r}")
        return int(value)

    def flag(self, option: str) -> bool:
        """An option that is on or off; off by default."""
        return self.options.get(option, "false").lower() in ("1", "true", "yes", "on")

    def language(self, wanted: str) -> str | None:
        """The language to decode in, None to detect it: what the option says, else that of the clip."""
        fixed = self.options.get("language", wanted)
        return None if fixed == "auto" else fixed


class Driver(Protocol):
    """One system. `prepare` and `transcribe` are called in turn, the former outside the clock."""

    def prepare(self, language: str) -> None:
        """The next clips are in `language` (ISO 639-1)."""

    def transcribe(self, pcm: Pcm16) -> Heard:
        """Transcribe a clip of any length."""

    def close(self) -> None:
        """Let go of everything."""


_MODULES = {
    "whisper_cpp": "ours",
    "faster_whisper": "ours",
    "scripted": "ours",
    "stock-pywhispercpp": "pywhispercpp_stock",
    "stock-faster-whisper": "faster_whisper_stock",
    "wyoming-faster-whisper": "wyoming_stock",
    "openai-whisper": "openai_stock",
    "transformers": "transformers_stock",
}


def create_driver(setup: Setup) -> Driver:
    """Load the system, model and all.

    Raises:
        PeerMissing: its package is not installed.
        PeerError: an option is malformed, or the model does not fit.
        AgentError: our engine does not start.
    """
    try:
        module = importlib.import_module(f"agent.bench.adapters.{_MODULES[setup.adapter]}")
    except ImportError as error:
        raise PeerMissing(
            f"{setup.adapter} is not installed ({error.name} is missing): {extras.missing('peers')}, "
            "or name an interpreter that has it with --peer-python"
        ) from None
    driver: Driver = module.create(setup)
    return driver
