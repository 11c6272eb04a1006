"""The raw results of a run: JSON lines, appended as they come, so that a run that was cut short can go on."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from agent.bench.child import Answer
from agent.errors import ConfigError

FILE_NAME = "raw.jsonl"
StepKey = tuple[str, str, int]
"""Identity of a step within a run: system, step, repeat."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and with what it was measured."""

    cpu: str
    """The board's name where there is one (Raspberry Pi, Jetson), else the processor's."""
    cores: int
    memory_bytes: int
    kernel: str
    python: str
    agent: str
    packages: dict[str, str]
    """Versions of the libraries that were there, by distribution."""
    command: str


@dataclass(frozen=True, slots=True)
class SystemSetup:
    """What a system of that name is, so that a run that is resumed is the same run."""

    system: str
    settings: dict[str, str]
    """Its options, and the other settings of the engine."""
    model_sha256: str
    """Of the file with the weights; empty for a system without one."""


@dataclass(frozen=True, slots=True)
class SystemStart:
    """A system was loaded."""

    system: str
    load_s: float
    model_bytes: int


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Clips that were left out, as a system knows English only."""

    system: str
    clips: dict[str, int]
    """How many, by language."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A step that a system did not get through."""

    system: str
    reason: str
    step: str = ""
    """Empty for a system that could not be loaded, or has died too often."""
    repeat: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement(Answer):
    """One system on one clip, once."""

    system: str
    set_name: str
    clip_id: str
    repeat: int
    language: str
    reference: str
    audio_s: float

    @property
    def step(self) -> str:
        """Identity of the clip within the run."""
        return f"{self.set_name}/{self.clip_id}"


@dataclass(frozen=True, slots=True)
class Delay:
    """How late the words of one utterance were at a subscriber."""

    clip: str
    """Key of the clip."""
    text: str
    after_hangover_s: float
    """From the moment at which it was known that nothing more is said."""
    from_speech_end_s: float | None = None
    """From the end of speech; None for a peer that leaves finding that to others."""


@dataclass(frozen=True, slots=True)
class LatencyBlock:
    """A recording was played to a whole system to its end."""

    system: str
    step: str
    repeat: int
    audio_s: float
    cpu_s: float
    peak_pss_bytes: int
    clips: tuple[str, ...]
    """Keys of the clips that were played, in order."""
    delays: tuple[Delay, ...]


@dataclass(frozen=True, slots=True)
class IdleMeasurement:
    """A whole agent while nobody spoke, once."""

    system: str
    step: str
    repeat: int
    wall_s: float
    """Without loading, as `cpu_s`."""
    cpu_s: float
    """Children included."""
    loading_cpu_s: float
    peak_pss_bytes: int
    """Children included, loading too."""
    transcripts: int


@dataclass(frozen=True, slots=True)
class StreamClip:
    """One clip in a stream, through detector, segmenter and engine."""

    set_name: str
    clip_id: str
    language: str
    reference: str
    text: str
    """Of all utterances that overlap with the clip."""
    whole_text: str
    """What the stock library makes of the clip by itself."""
    pieces: int
    """Utterances that overlap with the clip."""


@dataclass(frozen=True, slots=True)
class StreamBlock:
    """A stream was heard to its end."""

    system: str
    step: str
    repeat: int
    room: str
    audio_s: float
    cpu_s: float
    strays: int
    """Published utterances without a clip."""
    clips: tuple[str, ...]
    """Keys of the clips in it."""
    heard: tuple[StreamClip, ...]


@dataclass(frozen=True, slots=True)
class WholeText:
    """What a stock library made of one clip by itself: the same sound is decoded once."""

    system: str
    sound_sha256: str
    text: str


Done = Measurement | LatencyBlock | IdleMeasurement | StreamBlock
"""Written when a step is over."""
Record = Done | Machine | SystemSetup | SystemStart | LeftOut | Failure | WholeText
_KINDS: dict[str, TypeAdapter[Record]] = {kind.__name__: TypeAdapter(kind) for kind in get_args(Record)}


class Journal:
    """Appends records to `raw.jsonl`; every line is on its way to the disk before the next is measured."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / FILE_NAME).open("a", encoding="utf-8")

    def write(self, record: Record) -> None:
        """Append one record."""
        self._file.write(json.dumps({"record": type(record).__name__, **asdict(record)}, ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file; idempotent."""
        self._file.close()


def read_journal(folder: Path) -> list[Record]:
    """All records of a run so far, in order; none if there is no file. A last line that was cut short is left out.

    Raises:
        ConfigError: the file is damaged elsewhere, or another version has written it.
    """
    path = folder / FILE_NAME
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    return [_record(path, number, line) for number, line in enumerate(lines, start=1) if line.endswith(b"\n")]


def _record(path: Path, number: int, line: bytes) -> Record:
    try:
        content: dict[str, Any] = json.loads(line)
        return _KINDS[content.pop("record")].validate_python(content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ValidationError):
        raise ConfigError(f"{path}: line {number} is not a result of this version; use another --out") from None


def drop_torn_line(folder: Path) -> None:
    """Cut off a last line without an end, so that the next record begins on its own."""
    path = folder / FILE_NAME
    if path.is_file():
        content = path.read_bytes()
        if not content.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)


def steps_done(records: Iterable[Record]) -> set[StepKey]:
    """Keys of the steps that need not be taken again."""
    return {(one.system, one.step, one.repeat) for one in records if isinstance(one, Done)}


def standing(records: Iterable[Record]) -> tuple[Failure, ...]:
    """Failures that nothing later in the journal has made good, as a resumed run may; each one once, as it was last."""
    left: dict[StepKey, Failure] = {}
    for record in records:
        if isinstance(record, Failure):
            key = (record.system, record.step, record.repeat)
            left.pop(key, None)
            left[key] = record
        elif isinstance(record, SystemStart):
            left.pop((record.system, "", 0), None)
        elif isinstance(record, Done):
            clips = record.clips if isinstance(record, LatencyBlock | StreamBlock) else ()
            for step in (record.step, *clips):
                left.pop((record.system, step, record.repeat), None)
    return tuple(left.values())
