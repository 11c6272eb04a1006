"""Utterances that the engine has no time for, on disk until it has: oldest first, bounded, readable by the agent only.

One file an utterance, `<id>.npz` (numpy, no pickle): the samples, and JSON with all else. It appears whole or not at
all, and goes when its words are published. A crash in between means the same words twice, with the same id.
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
"""What could not be read so many times is given up. A disk that fails for a moment, or too many open files, pass."""
READ_AGAIN_S: Final = 60.0
"""From one that failed to the next attempt at whatever is kept."""
_MALFORMED: Final = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, ArithmeticError, MemoryError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)
"""What numpy and zipfile raise over bytes that are not what was written: an OSError, too, for an absurd offset."""
_NAME: Final = re.compile(r"[0-9A-Z]{1,26}")
"""Of a file, without its suffix: the id of its utterance."""
_OLDEST_NS: Final = 100 * 366 * 86_400 * _NS_PER_S
"""A wrong clock may make an utterance half a century old, and no older."""
_Count = Annotated[int, Field(ge=0, lt=1 << 63)]


@dataclass(frozen=True, slots=True)
class _Rest:
    """What a file says of an utterance besides its samples; see `Utterance`."""

    id: str
    position: _Count
    started_ns: _Count
    started_s: float
    """The same by the wall clock, in seconds since 1970."""
    boot_id: str
    """The boot that `started_ns` counts in."""
    speech_end: _Count
    closed_at: _Count
    truncated: bool
    speech_s: float | None
    speech_prob: float | None
    synced: bool = False
    """Whether the wall clock was synchronised; older versions did not say."""
    lead_samples: _Count = 0
    tail_samples: _Count = 0
    """Older versions did not write either."""


_REST: Final = TypeAdapter(_Rest)
_OF_UTTERANCE: Final = tuple({field.name for field in fields(_Rest)} & {field.name for field in fields(Utterance)})


@dataclass(frozen=True, slots=True)
class Kept:
    """An utterance on disk."""

    path: Path
    utterance: Utterance
    """If it is lost: silence, as long as the file was, with the id and roughly the beginning of the utterance."""
    lost: str = ""
    """Why its sound cannot be read any more; empty if it can."""


class Spool:
    """Keeps at most `max_bytes` below `state_dir`; nothing where its folder cannot be listed, with a line in the log.

    Every method may be called from any thread.
    """

    def __init__(self, state_dir: Path, max_bytes: int) -> None:
        self._folder = state_dir / FOLDER
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._sizes: dict[Path, int] = {}
        self._failures: dict[Path, int] = {}
        """How often each could not be read."""
        self._read_again_s = float("-inf")
        try:
            self._sizes.update({path: path.stat().st_size for path in self._found()})
        except OSError as error:  # who cannot tell what lies there cannot keep it within bounds
            self._max_bytes = 0
            log.warning(
                f"{self._folder}: cannot be listed ({error.strerror}), so that nothing is kept for later:"
                " let the user of the agent read and write it, and start the agent anew"
            )

    def __len__(self) -> int:
        with self._lock:
            return len(self._sizes)

    @property
    def ready(self) -> bool:
        """Whether there is something, and the disk has had its time to get over its last failure."""
        with self._lock:
            return bool(self._sizes) and time.monotonic() >= self._read_again_s

    def put(self, utterance: Utterance) -> bool:
        """Keep `utterance`; False if there is no room for it, or the disk does not take it."""
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
        """The oldest utterance; what cannot be read now comes after all others. To be removed when it was told.

        None if nothing is `ready`, or a file could not be read: then there is a pause before the next attempt.
        """
        if not self.ready or not (path := self._first()):
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
        """Delete what is not needed any more."""
        with self._lock:
            self._sizes.pop(path, None)
            self._failures.pop(path, None)
            _delete(path)

    def purge(self) -> int:
        """Delete everything, also what is only half written; return how many utterances that were."""
        with self._lock:
            whole = set(self._sizes)
            self._sizes.clear()
            self._failures.clear()
            try:
                for path in set(self._folder.iterdir()) - whole:
                    _delete(path)
            except (FileNotFoundError, NotADirectoryError):
                pass  # nothing was ever kept
            except OSError as error:
                log.warning(f"{self._folder}: cannot be emptied ({error.strerror}): delete what is in it")
            return sum(_delete(path) for path in whole)

    def _first(self) -> Path | None:
        with self._lock:
            # Ids are ULIDs: they sort by time.
            return min(self._sizes, key=lambda path: (self._failures.get(path, 0), path), default=None)

    def _unread(self, path: Path, error: OSError) -> Kept | None:
        with self._lock:
            failures = self._failures[path] = self._failures.get(path, 0) + 1
            if failures < READS:
                self._read_again_s = time.monotonic() + READ_AGAIN_S
        if failures >= READS:
            return self._lost(path, f"its file could not be read {READS} times over ({error.strerror})")
        log.warning(f"{path}: cannot be read now ({error.strerror}); tried again in {READ_AGAIN_S:.0f} s")
        return None

    def _lost(self, path: Path, why: str) -> Kept | None:
        with self._lock:
            size_bytes = self._sizes.get(path)
        if size_bytes is None:  # purged meanwhile: nobody is to hear of it
            return None
        log.warning(f"{path}: {why}; given up")
        return Kept(path, _stand_in(path, size_bytes), f"it was kept until there was time, and {why}")

    def _found(self) -> Iterator[Path]:
        if not self._folder.is_dir():
            return
        for path in self._folder.iterdir():
            if path.suffix == _SUFFIX and _NAME.fullmatch(path.stem):
                yield path
            else:  # what a crash has left half written, or no utterance
                _delete(path)

    def _write(self, path: Path, utterance: Utterance) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                np.savez(file, pcm=utterance.pcm, rest=np.frombuffer(_described(utterance), np.uint8))
            fresh.replace(path)
        except OSError:  # half of it serves nobody, and fills the disk
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
    """As much as the name and the size of a file tell."""
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
        # The monotonic clock began anew with the machine, so the wall clock has to do; it may be wrong, but what is
        # here was said before now.
        age_s = max(time.time() - rest.started_s, len(pcm) / SAMPLE_RATE_HZ)
        started_ns = time.monotonic_ns() - round(age_s * _NS_PER_S)
        dated = rest.synced and time_synced()
    if not 0 <= time.monotonic_ns() - started_ns <= _OLDEST_NS:
        msg = "said at no possible time"
        raise ValueError(msg)
    kept = {name: getattr(rest, name) for name in _OF_UTTERANCE} | {"started_ns": started_ns, "dated": dated}
    return Utterance(pcm=pcm, **kept)


def create_spool(settings: Settings) -> Spool:
    """Return the spool that the settings describe. If nothing is to be kept, it is emptied and has no room."""
    wanted = settings.governor.enabled and settings.publish.privacy == "full"
    spool = Spool(state_dir(settings), settings.governor.spool_mib << 20 if wanted else 0)
    if not wanted or not settings.governor.spool_mib:
        spool.purge()
    return spool
