"""The raw results of a run: JSON lines, appended as they come, so that a run that was cut short can go on."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

from agent.errors import ConfigError

FILE_NAME = "raw.jsonl"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One system on one clip, once."""

    system: str
    set_name: str
    clip_id: str
    repeat: int
    language: str
    reference: str
    audio_s: float
    text: str
    wall_s: float
    cpu_s: float
    peak_rss_bytes: int
    pss_bytes: int
    rejected: int = 0
    doubtful: int = 0
    retries: int = 0
    audio_ctx: int = 0

    @property
    def clip_key(self) -> str:
        """Identity of the clip within the run."""
        return f"{self.set_name}/{self.clip_id}"


@dataclass(frozen=True, slots=True)
class Failure:
    """A clip that a system did not get through, or (without a clip) a system that could not be loaded."""

    system: str
    reason: str
    set_name: str = ""
    clip_id: str = ""
    repeat: int = 0
    block: int | None = None
    """Of a whole block, where latency is measured."""


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
class Machine:
    """Where and with what it was measured."""

    cpu: str
    cores: int
    memory_bytes: int
    kernel: str
    python: str
    agent: str
    packages: dict[str, str]
    """Versions of the libraries that were there, by distribution."""
    command: str


@dataclass(frozen=True, slots=True)
class LatencyMeasurement:
    """How late the words of one utterance were, at whoever waits for them."""

    system: str
    set_name: str
    clip_id: str
    repeat: int
    text: str
    after_hangover_s: float
    """From the moment at which it was known that nothing more is said."""
    from_speech_end_s: float | None = None
    """From the end of speech; None for a peer that leaves it to others to find that out."""


@dataclass(frozen=True, slots=True)
class LatencyBlock:
    """A recording was played to a system to its end."""

    system: str
    block: int
    repeat: int
    audio_s: float
    cpu_s: float
    peak_pss_bytes: int
    peak_rss_bytes: int
    clips: tuple[str, ...] = ()
    """Keys of the clips that were played, in order; earlier versions did not say."""


@dataclass(frozen=True, slots=True)
class IdleMeasurement:
    """A whole agent while nobody spoke, once."""

    system: str
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
class StreamMeasurement:
    """One clip in a stream, through detector, segmenter and engine."""

    system: str
    room: str
    repeat: int
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
    room: str
    block: int
    repeat: int
    audio_s: float
    cpu_s: float
    strays: int
    """Published utterances without a clip."""


@dataclass(frozen=True, slots=True)
class WholeText:
    """What a stock library made of one clip by itself: the same sound is decoded once."""

    system: str
    sound_sha256: str
    text: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Clips that were left out, as a system knows English only."""

    system: str
    clips: dict[str, int]
    """How many, by language."""


Record = (
    Measurement
    | LeftOut
    | Failure
    | SystemSetup
    | SystemStart
    | Machine
    | LatencyMeasurement
    | LatencyBlock
    | IdleMeasurement
    | StreamMeasurement
    | StreamBlock
    | WholeText
)
_KINDS: dict[str, type[Record]] = {kind.__name__: kind for kind in get_args(Record)}


class Journal:
    """Appends records to `raw.jsonl`; every line is on its way to the disk before the next is measured."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / FILE_NAME).open("a", encoding="utf-8")

    def write(self, record: Record) -> None:
        """Append one record."""
        self._file.write(json.dumps({"record": type(record).__name__, **asdict(record)}, ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Let go of the file; idempotent."""
        self._file.close()


def read_journal(folder: Path) -> list[Record]:
    """All records of a run so far, in order; none if there is no file. A last line that was cut short is left out.

    Raises:
        ConfigError: the file is damaged elsewhere.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n")]
    return list(_records(path, whole))


def drop_torn_line(folder: Path) -> None:
    """Cut off a last line without an end, so that the next record begins on its own."""
    path = folder / FILE_NAME
    if path.is_file():
        content = path.read_bytes()
        if not content.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)


def _records(path: Path, lines: list[bytes]) -> Iterator[Record]:
    for number, line in enumerate(lines, start=1):
        try:
            content: dict[str, Any] = json.loads(line)
            kind = _KINDS[content.pop("record")]
            known = {field.name for field in fields(kind)}
            yield kind(**{key: value for key, value in content.items() if key in known})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ConfigError(f"{path}: line {number} is not a result of this program; use another --out") from None
