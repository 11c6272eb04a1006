"""The table of the settings that can change while the agent runs.

Commands, the reload, `state`, Home Assistant's controls and the tables in docs/settings.md and docs/mqtt.md are made
from it (`python -m docs.settings_documents`, `python -m docs.contract_documents`). `Remote._apply` hands new values to
the stages. For a setting of the engine, the agent loads another engine.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from agent.config.types import Fraction, InWords, Language

MAX_PROMPT: Final = 1_000
LONGEST_STATE: Final = 255
"""Characters of a state in Home Assistant. A longer state becomes `unknown`."""
ModelName = Annotated[
    str,
    Field(min_length=1, max_length=1_000, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$"),
    InWords("a name from `edgescribe models list`"),
]
"""A name in the catalogue, or the configured path. `Remote` checks which."""
Prompt = Annotated[
    str,
    # Neither engine can use control characters. whisper.cpp ends the text at a zero byte.
    Field(max_length=MAX_PROMPT, pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$"),
    InWords(f"text without control characters, at most {MAX_PROMPT:,} characters"),
]


_CONTROLS: Final[Mapping[str, Mapping[str, object]]] = {
    "select": {},
    "number": {"min": 0, "max": 1, "step": 0.05, "mode": "slider"},
    "text": {"max": LONGEST_STATE},
}
"""Configuration of Home Assistant's controls, in the abbreviated words of discovery."""


@dataclass(frozen=True, slots=True)
class Tunable:
    """A setting that can change while the agent runs. A reload (SIGHUP) always applies it."""

    key: str
    """Dotted, of two parts."""
    command: str = ""
    """The command that changes it, and its field in `state`; empty if only a reload does."""
    type: Any = None
    """The type that the command takes, with its bounds."""
    platform: str = ""
    """Home Assistant's kind of control."""
    title: str = ""
    """The control's name."""
    effect: str = ""
    """What the command does, for docs/mqtt.md."""
    default: Any = ...
    """For a field that `state` did not have from the start: what its absence means."""

    @property
    def control(self) -> Mapping[str, object]:
        """The configuration of Home Assistant's control."""
        return {"name": self.title, "ent_cat": "config", **_CONTROLS[self.platform]}

    @property
    def engine(self) -> bool:
        """Whether another engine has to be loaded. It takes over between two utterances."""
        return self.key.startswith("engine.")


_MODEL: Final = "loads the model, then exchanges it between two utterances; capture goes on"
_RELOADS: Final = "loads the engine anew, as `model` does"
_FRAME: Final = "counts from the next frame on"
_TRANSCRIPT: Final = "counts from the next transcript on"
TUNABLES: Final = (
    Tunable("engine.model", "model", ModelName, "select", "Model", _MODEL),
    Tunable("engine.language", "language", Language, "select", "Language", _RELOADS),
    Tunable("vad.threshold", "vad_threshold", Fraction, "number", "VAD threshold", _FRAME),
    Tunable("publish.min_confidence", "min_confidence", Fraction, "number", "Minimum confidence", _TRANSCRIPT, 0.0),
    Tunable("engine.initial_prompt", "initial_prompt", Prompt, "text", "Initial prompt", _RELOADS, ""),
    Tunable("log.level"),
    Tunable("telemetry.interval_s"),
)
COMMANDED: Final = tuple(tunable for tunable in TUNABLES if tunable.command)
"""Those that a command can change."""


def takes_effect(key: str) -> Literal["at once", "reload", "restart"]:
    """Return how a new value of the setting `key` (dotted) takes effect.

    `at once` by a command, `reload` by SIGHUP while sound goes on being captured, `restart` by neither.
    """
    if any(tunable.key == key for tunable in COMMANDED):
        return "at once"
    reloaded = key.startswith("engine.") or any(tunable.key == key for tunable in TUNABLES)
    return "reload" if reloaded else "restart"
