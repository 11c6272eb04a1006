"""What runner and child say to each other over a pipe: a line of JSON, followed by samples where there are any.

    runner → child   {"op": "load", "adapter": …, "model_path": …, "options": {…}}
                     {"op": "transcribe", "language": "en", "samples": n}  and 2n bytes of s16le
    child → runner   {"answer": {…}} · {"failure": "one line", "missing": false}

This module and the child's others need nothing but numpy, so that a peer may live in a virtual environment of its own.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, BinaryIO, TypeVar

import numpy as np

from agent.audio.frames import Pcm16
from agent.errors import AgentError

BUSY_OPTION = "busy"
"""Of every system: so many other processes compete for the cores while it works."""


Pieces = Sequence[tuple[int, int, str]]
"""Published utterances: first sample, sample behind the last, text."""


class PeerError(AgentError):
    """What is to be measured cannot be: a package is not installed, a model does not load."""


class PeerMissing(PeerError):  # noqa: N818 - a condition, not a mistake: the next interpreter may have it
    """Its package is not installed in this interpreter."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The system is ready and warm."""

    load_s: float
    """Seconds from the request until it answered its first, untimed clip."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one clip cost and gave."""

    text: str
    wall_s: float
    cpu_s: float
    """User and system time of the child with everything that it has started."""
    peak_rss_bytes: int
    """Highest resident set so far, helpers' added up."""
    pss_bytes: int
    """Proportional set just after the clip, helpers' added up."""
    rejected: int = 0
    """Utterances that the system's own evidence kept from being published."""
    doubtful: int = 0
    """Transcripts published with that verdict."""
    retries: int = 0
    audio_ctx: int = 0
    """Encoder positions, the largest of the clip; 0 where the system does not say."""
    after_sound_s: float | None = None
    """Seconds from the last of the sound to the words, where a system takes the sound bit by bit."""
    pieces: Pieces = ()


@dataclass(frozen=True, slots=True)
class Heard:
    """What an adapter makes of a clip."""

    text: str
    rejected: int = 0
    doubtful: int = 0
    retries: int = 0
    audio_ctx: int = 0
    after_sound_s: float | None = None
    pieces: Pieces = ()


Record = TypeVar("Record", Loaded, Answer)


def send(stream: BinaryIO, message: Mapping[str, object], pcm: Pcm16 | None = None) -> None:
    """Write one message, and its samples."""
    stream.write(json.dumps(message, ensure_ascii=False).encode() + b"\n")
    if pcm is not None:
        stream.write(pcm.astype("<i2").tobytes())
    stream.flush()


def receive(stream: BinaryIO) -> dict[str, Any] | None:
    """Read one message; None at the end of the stream."""
    line = stream.readline()
    message: dict[str, Any] | None = json.loads(line) if line.endswith(b"\n") else None
    return message


def receive_pcm(stream: BinaryIO, samples: int) -> Pcm16:
    """Read the samples that belong to a message."""
    pcm: Pcm16 = np.frombuffer(stream.read(2 * samples), dtype="<i2").astype(np.int16)
    return pcm


def pack(record: Loaded | Answer) -> dict[str, object]:
    """As a message."""
    return {"answer": asdict(record)}


def unpack(message: Mapping[str, Any], kind: type[Record]) -> Record:
    """The record in `message`; unknown keys are left out.

    Raises:
        PeerError: the message tells of a failure instead (`PeerMissing` where nothing is installed).
    """
    if "answer" not in message:
        kind_of_error = PeerMissing if message.get("missing") else PeerError
        raise kind_of_error(str(message.get("failure", "no answer")))
    known = {field.name for field in fields(kind)}
    return kind(**{key: value for key, value in message["answer"].items() if key in known})
