"""Keep the raw results of a run as JSON lines. Each is appended when it comes, so that an interrupted run can go on."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter

from agent.bench.child import Answer
from agent.errors import ConfigError

FILE_NAME = "raw.jsonl"
StepKey = tuple[str, str, int]
"""Identity of a step within a run: system, step, repeat."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine and the software of a run."""

    cpu: str
    """The board's name where there is one (Raspberry Pi, Jetson), else the processor's."""
    cores: int
    memory_bytes: int
    kernel: str
    python: str
    agent: str
    packages: dict[str, str]
    """Versions of the installed libraries, by distribution."""
    command: str


@dataclass(frozen=True, slots=True)
class SystemSetup:
    """The settings behind the name of a system, so that a resumed run is the same run."""

    system: str
    settings: dict[str, str]
    """Its options, and for our engines all other settings."""
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
    """Clips that a system did not get, because it knows English only."""

    system: str
    clips: dict[str, int]
    """Number of clips by language."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A step that failed, or a system that cannot go on."""

    system: str
    reason: str
    step: str = ""
    """Empty for a system that could not be loaded, or has died too often."""
    repeat: int = 0


@dataclass(frozen=True, slots=True)
class _Finished:
    """A finished step."""

    system: str
    step: str
    repeat: int


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
    """How late a subscriber got the words of one utterance."""

    clip: str
    """Key of the clip."""
    text: str
    after_hangover_s: float
    """From the end of the hang-over; for a peer, from the end of the sound."""
    from_speech_end_s: float | None = None
    """From the end of speech; None for a peer, which does not look for it."""


@dataclass(frozen=True, slots=True)
class LatencyBlock(_Finished):
    """A whole system heard a recording to its end."""

    audio_s: float
    cpu_s: float
    peak_pss_bytes: int
    clips: tuple[str, ...]
    """Keys of the clips in the recording, in order."""
    delays: tuple[Delay, ...]


@dataclass(frozen=True, slots=True)
class IdleMeasurement(_Finished):
    """A whole agent during sound without speech, once."""

    wall_s: float
    """Without the time of loading."""
    cpu_s: float
    """Without loading; with the agent's children."""
    loading_cpu_s: float
    peak_pss_bytes: int
    """With loading; with the agent's children."""
    transcripts: int


@dataclass(frozen=True, slots=True)
class StreamClip:
    """One clip in a stream, through detector, segmenter and engine."""

    set_name: str
    clip_id: str
    language: str
    reference: str
    text: str
    """The text of all utterances that overlap with the clip."""
    whole_text: str
    """The text of the stock library for the clip by itself."""
    pieces: int
    """Utterances that overlap with the clip."""


@dataclass(frozen=True, slots=True)
class StreamBlock(_Finished):
    """A system heard a stream to its end."""

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
    """The text of a stock library for one clip by itself. It decodes the same sound once."""

    system: str
    sound_sha256: str
    text: str


Done = Measurement | LatencyBlock | IdleMeasurement | StreamBlock
Record = Done | Machine | SystemSetup | SystemStart | LeftOut | Failure | WholeText
_KINDS: dict[str, TypeAdapter[Record]] = {kind.__name__: TypeAdapter(kind) for kind in get_args(Record)}


class Journal:
    """Appends records to `raw.jsonl`, each before the next is measured; cuts off a last line without an end first.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._file = (folder / FILE_NAME).open("a+b")
        self._file.seek(0)
        content = self._file.read()
        self._file.truncate(content.rfind(b"\n") + 1)

    def write(self, record: Record) -> None:
        """Append one record."""
        line = json.dumps({"record": type(record).__name__, **asdict(record)}, ensure_ascii=False)
        self._file.write(line.encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file; idempotent."""
        self._file.close()


def read_journal(folder: Path) -> list[Record]:
    """Return all records of a run so far, in order; none without a file. A last line without an end is left out.

    Raises:
        ConfigError: a line is damaged, or another version wrote it.
    """
    path = folder / FILE_NAME
    lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    records: list[Record] = []
    for number, line in enumerate(lines, start=1):
        try:
            content: dict[str, Any] = json.loads(line)
            records.append(_KINDS[content.pop("record")].validate_python(content))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ConfigError(f"{path}: line {number} is not a result of this version; use another --out") from None
    return records


def steps_done(records: Iterable[Record]) -> set[StepKey]:
    """Return the keys of the finished steps."""
    return {(one.system, one.step, one.repeat) for one in records if isinstance(one, Done)}


def standing(records: Iterable[Record]) -> tuple[Failure, ...]:
    """Return the failures that no later record makes good; each step once, with its last reason."""
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
