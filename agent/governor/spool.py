"""Utterances that nobody had time for, on disk until somebody has: oldest first, bounded, for this agent's eyes only.

One file an utterance, `<id>.npz` (numpy, no pickle): the samples, and JSON with all else. It appears whole or not at
all, and goes when its words are published. A crash in between means the same words twice, with the same id.
"""

import contextlib
import json
import logging
import os
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from agent.audio import SAMPLE_RATE_HZ, Utterance
from agent.identity import boot_id

log = logging.getLogger(__name__)

FOLDER: Final = "spool"
_SUFFIX: Final = ".npz"
_NS_PER_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Kept:
    """An utterance on disk."""

    path: Path
    utterance: Utterance


class Spool:
    """Keeps at most `max_bytes` below `state_dir`. Every method may be called from any thread."""

    def __init__(self, state_dir: Path, max_bytes: int) -> None:
        self._folder = state_dir / FOLDER
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._sizes = {path: path.stat().st_size for path in self._found()}

    def __len__(self) -> int:
        with self._lock:
            return len(self._sizes)

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
        """The oldest utterance that can be read; what cannot is deleted, with a line in the log."""
        while path := self._first():
            try:
                return Kept(path, _read(path))
            except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
                log.warning(f"{path}: not what was written ({type(error).__name__}); deleted")
                self.remove(path)
        return None

    def remove(self, path: Path) -> None:
        """Delete what is not needed any more."""
        with self._lock:
            self._sizes.pop(path, None)
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def purge(self) -> int:
        """Delete everything; return how many utterances that were."""
        with self._lock:
            paths = list(self._sizes)
            self._sizes.clear()
        for path in paths:
            self.remove(path)
        return len(paths)

    def _first(self) -> Path | None:
        with self._lock:
            return min(self._sizes, default=None)  # ids are ULIDs: they sort by time

    def _found(self) -> Iterator[Path]:
        if not self._folder.is_dir():
            return
        for path in self._folder.iterdir():
            if path.suffix == _SUFFIX:
                yield path
            else:  # what a crash has left half written
                with contextlib.suppress(OSError):
                    path.unlink()

    def _write(self, path: Path, utterance: Utterance) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            np.savez(file, pcm=utterance.pcm, rest=np.frombuffer(_described(utterance), np.uint8))
        fresh.replace(path)


def _described(utterance: Utterance) -> bytes:
    age_ns = time.monotonic_ns() - utterance.started_ns
    return json.dumps(
        {
            "id": utterance.id,
            "position": utterance.position,
            "started_ns": utterance.started_ns,
            "started_s": time.time() - age_ns / _NS_PER_S,
            "boot_id": boot_id(),
            "speech_end": utterance.speech_end,
            "closed_at": utterance.closed_at,
            "truncated": utterance.truncated,
            "speech_s": utterance.speech_s,
            "speech_prob": utterance.speech_prob,
        }
    ).encode()


def _read(path: Path) -> Utterance:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        pcm, rest = archive["pcm"], json.loads(archive["rest"].tobytes())
    if pcm.dtype != np.int16 or pcm.ndim != 1 or rest["id"] != path.stem:
        msg = "another utterance, or none"
        raise ValueError(msg)
    started_ns = int(rest["started_ns"])
    if rest["boot_id"] != boot_id():
        # The monotonic clock began anew with the machine, so the wall clock has to do; it may be wrong, but what is
        # here was said before now.
        age_s = max(time.time() - rest["started_s"], len(pcm) / SAMPLE_RATE_HZ)
        started_ns = time.monotonic_ns() - round(age_s * _NS_PER_S)
    return Utterance(
        rest["id"],
        pcm,
        int(rest["position"]),
        started_ns,
        int(rest["speech_end"]),
        int(rest["closed_at"]),
        truncated=bool(rest["truncated"]),
        speech_s=rest["speech_s"],
        speech_prob=rest["speech_prob"],
    )
