"""Every setting that can be changed while the agent runs.

Commands, reload, `state` and Home Assistant's controls are made from this table.
To make another setting changeable, add an entry here and say in `App` how it is applied. A command also needs its field
in `messages.State`, and its row in docs/mqtt.md, which tests hold against this table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from pydantic import Field

from agent.config.types import Fraction, InWords, Language

MAX_PROMPT: Final = 1_000
LONGEST_STATE: Final = 255
"""Characters of a state in Home Assistant; a longer one becomes `unknown`."""
ModelName = Annotated[
    str,
    Field(min_length=1, max_length=1_000, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$"),
    InWords("a name from `edgescribe models list`"),
]
"""A name in the catalogue, or the path that the configuration names (`ControlledDevice` looks)."""
Prompt = Annotated[
    str,
    # Neither engine can use control characters, and whisper.cpp takes a zero byte for the end of the text.
    Field(max_length=MAX_PROMPT, pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$"),
    InWords(f"text without control characters, at most {MAX_PROMPT:,} characters"),
]
_TEXT: Final = {"ent_cat": "config", "max": LONGEST_STATE}
_SLIDER: Final = {"ent_cat": "config", "min": 0, "max": 1, "step": 0.05, "mode": "slider"}


@dataclass(frozen=True, slots=True)
class Tunable:
    """A setting that can be changed at run time. A reload (SIGHUP) always can."""

    key: str
    """Dotted, of two parts."""
    command: str = ""
    """The command that changes it, and its field in `state`; empty where only a reload does."""
    type: Any = None
    """What the command takes, with its bounds."""
    platform: str = ""
    """Home Assistant's kind of control."""
    control: Mapping[str, object] = field(default_factory=dict)
    """Its configuration, in the abbreviated words of discovery."""

    @property
    def engine(self) -> bool:
        """Whether another engine has to be loaded, which takes over between two utterances."""
        return self.key.startswith("engine.")


TUNABLES: Final = (
    Tunable("engine.model", "model", ModelName, "select", {"name": "Model", "ent_cat": "config"}),
    Tunable("engine.language", "language", Language, "select", {"name": "Language", "ent_cat": "config"}),
    Tunable("vad.threshold", "vad_threshold", Fraction, "number", {"name": "VAD threshold", **_SLIDER}),
    Tunable("publish.min_confidence", "min_confidence", Fraction, "number", {"name": "Minimum confidence", **_SLIDER}),
    Tunable("engine.initial_prompt", "initial_prompt", Prompt, "text", {"name": "Initial prompt", **_TEXT}),
    Tunable("log.level"),
    Tunable("telemetry.interval_s"),
)
COMMANDED: Final = tuple(tunable for tunable in TUNABLES if tunable.command)
"""Those that a command can change."""
RELOADED: Final = ("engine.", *(tunable.key for tunable in TUNABLES))
"""Keys, and a section with a dot at its end, that a reload applies while sound goes on being captured."""
