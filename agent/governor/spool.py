"""Keeps utterances on disk until the engine has time for them: oldest first, bounded, readable by the agent only.

Each utterance has a file `<id>.npz` (numpy, no pickle): the samples, and JSON with the other fields. A file appears
complete or not at all. It goes when its words are published. After a crash in between, the words are published twice,
with the same id.
"""

import io
import json
import logging
import os
import re
import threading
import time
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Final

import numpy as np
from pydantic import Field, TypeAdapter
from ulid import ULID

from agent.audio.frames import SAMPLE_RATE_HZ, Utterance
from agent.config.layers import state_dir
from agent.config.settings import Settings
from agent.config.state_file import parse_json
from agent.messages.identity import boot_id, time_synced

log = logging.getLogger(__name__)

FOLDER: Final = "spool"
_SUFFIX: Final = ".npz"
_NS_PER_S: Final = 1_000_000_000
READS: Final = 5
"""Attempts to read a file before the spool gives it up. A short disk failure, or too many open files, pass."""
READ_AGAIN_S: Final = 60.0
"""Pause after a failed attempt, before the next attempt at any file."""
_MALFORMED: Final = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, ArithmeticError, MemoryError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)
"""Errors of numpy and zipfile over damaged bytes. An absurd offset raises an OSError."""
_NAME: Final = re.compile(r"[0-9A-Z]{1,26}")
"""Name of a file without its suffix: the id of its utterance."""
_OLDEST_NS: Final = 100 * 366 * 86_400 * _NS_PER_S
"""A wrong clock may make an utterance half a century old, but not older."""
_Count = Annotated[int, Field(ge=0, lt=1 << 63)]


@dataclass(frozen=True, slots=True)
class _Rest:
    """The fields of a file besides the samples; see `Utterance`."""

    id: str
    position: _Count
    started_ns: _Count
    started_s: float
    """The same by the wall clock, in seconds since 1970."""
    boot_id: str
    """The boot of `started_ns`."""
    speech_end: _Count
    closed_at: _Count
    truncated: bool
    speech_s: float | None
    speech_prob: float | None
    synced: bool = False
    """Whether the wall clock was synchronised. Older versions did not write this and the next two fields."""
    lead_samples: _Count = 0
    tail_samples: _Count = 0


_REST: Final = TypeAdapter(_Rest)
_OF_UTTERANCE: Final = tuple({field.name for field in fields(_Rest)} & {field.name for field in fields(Utterance)})


@dataclass(frozen=True, slots=True)
class Kept:
    """An utterance on disk."""

    path: Path
    utterance: Utterance
    """If it is lost: silence of the file's length, with the id and about the beginning of the utterance."""
    lost: str = ""
    """Why its sound is lost; empty if it is there."""


class Spool:
    """Keeps at most `max_bytes` below `state_dir`. If its folder cannot be listed, it logs that and keeps none.

    Any thread may call every method.
    """

    def __init__(self, state_dir: Path, max_bytes: int) -> None:
        self._folder = state_dir / FOLDER
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._sizes: dict[Path, int] = {}
        self._failures: dict[Path, int] = {}
        """Failed attempts to read each file."""
        self._read_again_s = float("-inf")
        try:
            self._sizes.update({path: path.stat().st_size for path in self._found()})
        except OSError as error:  # without the sizes, the spool cannot keep its bound
            self._max_bytes = 0
            log.warning(
                f"{self._folder}: cannot be listed ({error.strerror}): nothing is kept for later; let the user of the"
                " agent read and write the folder, then restart the agent"
            )

    def __len__(self) -> int:
        with self._lock:
            return len(self._sizes)

    @property
    def ready(self) -> bool:
        """Whether it holds an utterance, and the pause after the last failed attempt is over."""
        with self._lock:
            return bool(self._sizes) and time.monotonic() >= self._read_again_s

    def put(self, utterance: Utterance) -> bool:
        """Keep `utterance`; return False if there is no room, or the disk fails."""
        path = self._folder / f"{utterance.id}{_SUFFIX}"
        with self._lock:
            if sum(self._sizes.values()) + utterance.pcm.nbytes > self._max_bytes:
                return False
            try:
                self._write(path, utterance)
                self._sizes[path] = path.stat().st_size
            except OSError as error:
                log.warning(f"{path}: cannot be written ({error.strerror})")
                return False
        return True

    def oldest(self) -> Kept | None:
        """Return the oldest utterance. Remove it once its words or its loss are published.

        Files that could not be read come after all others. None if the spool is not `ready`, or if reading failed:
        then there is a pause before the next attempt.
        """
        with self._lock:
            # Ids are ULIDs: they sort by time.
            path = min(self._sizes, key=lambda path: (self._failures.get(path, 0), path), default=None)
        if path is None or not self.ready:
            return None
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return self._lost(path, "its file is gone")
        except OSError as error:
            return self._unread(path, error)
        try:
            return Kept(path, _parsed(path, data))
        except _MALFORMED as error:
            return self._lost(path, f"its file is not what was written ({type(error).__name__})")

    def remove(self, path: Path) -> None:
        """Delete the file of an utterance."""
        with self._lock:
            self._sizes.pop(path, None)
            self._failures.pop(path, None)
            _delete(path)

    def purge(self) -> int:
        """Delete all files, incomplete ones included; return the number of utterances."""
        with self._lock:
            whole = set(self._sizes)
            self._sizes.clear()
            self._failures.clear()
            try:
                for path in set(self._folder.iterdir()) - whole:
                    _delete(path)
            except (FileNotFoundError, NotADirectoryError):
                pass  # the folder was never needed
            except OSError as error:
                log.warning(f"{self._folder}: cannot be emptied ({error.strerror}): delete its files")
            return sum(_delete(path) for path in whole)

    def _unread(self, path: Path, error: OSError) -> Kept | None:
        with self._lock:
            failures = self._failures[path] = self._failures.get(path, 0) + 1
            if failures < READS:
                self._read_again_s = time.monotonic() + READ_AGAIN_S
        if failures >= READS:
            return self._lost(path, f"its file could not be read {READS} times ({error.strerror})")
        log.warning(f"{path}: cannot be read now ({error.strerror}); trying again in {READ_AGAIN_S:.0f} s")
        return None

    def _lost(self, path: Path, why: str) -> Kept | None:
        with self._lock:
            size_bytes = self._sizes.get(path)
        if size_bytes is None:  # purged meanwhile
            return None
        log.warning(f"{path}: {why}; given up")
        return Kept(path, _stand_in(path, size_bytes), f"it was kept until there was time, and {why}")

    def _found(self) -> Iterator[Path]:
        if not self._folder.is_dir():
            return
        for path in self._folder.iterdir():
            if path.suffix == _SUFFIX and _NAME.fullmatch(path.stem):
                yield path
            else:  # incomplete since a crash, or no utterance
                _delete(path)

    def _write(self, path: Path, utterance: Utterance) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                np.savez(file, pcm=utterance.pcm, rest=np.frombuffer(_described(utterance), np.uint8))
            fresh.replace(path)
        except OSError:  # an incomplete file only fills the disk
            _delete(fresh)
            raise


def _delete(path: Path) -> bool:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning(f"{path}: cannot be deleted ({error.strerror})")
        return False
    return True


def _described(utterance: Utterance) -> bytes:
    age_ns = time.monotonic_ns() - utterance.started_ns
    rest = {name: getattr(utterance, name) for name in _OF_UTTERANCE} | {
        "started_s": time.time() - age_ns / _NS_PER_S,
        "boot_id": boot_id(),
        "synced": time_synced(),
    }
    return json.dumps(rest).encode()


def _stand_in(path: Path, size_bytes: int) -> Utterance:
    """Make an utterance from the name and the size of a file."""
    pcm = np.zeros(size_bytes // np.dtype(np.int16).itemsize, np.int16)
    try:
        age_s = time.time() - ULID.from_str(path.stem).timestamp
    except ValueError:
        age_s = 0.0
    started_ns = time.monotonic_ns() - round(max(age_s, len(pcm) / SAMPLE_RATE_HZ) * _NS_PER_S)
    return Utterance(path.stem, pcm, 0, started_ns, len(pcm), len(pcm), dated=False)


def _parsed(path: Path, data: bytes) -> Utterance:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        pcm, rest = archive["pcm"], _REST.validate_python(parse_json(archive["rest"].tobytes()))
    if pcm.dtype != np.int16 or pcm.ndim != 1 or not len(pcm) or rest.id != path.stem:
        msg = "another utterance, or none"
        raise ValueError(msg)
    started_ns, dated = rest.started_ns, True
    if rest.boot_id != boot_id():
        # The monotonic clock started again with the machine: use the wall clock. It may be wrong, but the utterance
        # is older than this moment.
        age_s = max(time.time() - rest.started_s, len(pcm) / SAMPLE_RATE_HZ)
        started_ns = time.monotonic_ns() - round(age_s * _NS_PER_S)
        dated = rest.synced and time_synced()
    if not 0 <= time.monotonic_ns() - started_ns <= _OLDEST_NS:
        msg = "said at no possible time"
        raise ValueError(msg)
    kept = {name: getattr(rest, name) for name in _OF_UTTERANCE} | {"started_ns": started_ns, "dated": dated}
    return Utterance(pcm=pcm, **kept)


def create_spool(settings: Settings) -> Spool:
    """Return the spool of the settings. If they want none, empty it and give it no room."""
    wanted = settings.governor.enabled and settings.publish.privacy == "full"
    spool = Spool(state_dir(settings), settings.governor.spool_mib << 20 if wanted else 0)
    if not wanted or not settings.governor.spool_mib:
        spool.purge()
    return spool
