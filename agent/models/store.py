"""Where models are kept: one folder a model, verified before anybody gets its path.

<root>/tiny.en-q8_0/ggml-tiny.en-q8_0.bin
<root>/tiny.en-ct2/{model.bin,config.json,tokenizer.json,vocabulary.txt}
<root>/verified.json      digests, so that a start does not read every model again
<root>/.pull/…            what a pull is working on; never looked at by anybody else
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agent.config.state_file import read_json, sync
from agent.errors import ModelError
from agent.models import ModelFormat
from agent.models.catalogue import Catalogue, DerivedSource, Model, Source
from agent.models.ct2 import check_ctranslate2
from agent.models.download import Progress
from agent.models.files import atomic_write, digest_of, looking, mismatch, nearest_folder, read_error, write_error
from agent.models.ggml import check_ggml
from agent.models.pull import MADE_HERE, Pull

_WORK = ".pull"


_FILE = "verified.json"
_VERSION = 1


class Ledger:
    """Remembers digests in `root`/verified.json, and which user's own files are trusted.

    A file that has not changed is not read again before every start. Changed means another inode, modification time or
    size. A user who can write into the store can also forge this, and could as well replace the program; the ledger
    guards against damage and against files from elsewhere.

    A ledger that cannot be read counts as empty, one that cannot be written costs only time: the next start computes
    again.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / _FILE

    def digest(self, path: Path, *, fresh: bool = False) -> str:
        """SHA-256 of `path`: as remembered if it has not changed since, else (and if `fresh`) computed.

        Raises:
            ModelError: it cannot be read.
        """
        before = _stat(path)
        known = self._read("verified").get(str(path))
        if not fresh and isinstance(known, dict) and before.items() <= known.items() and "sha256" in known:
            return str(known["sha256"])
        sha256 = digest_of(path)
        if _stat(path) != before:
            raise ModelError(f"{path}: changed while it was read; try again when nobody writes to it")
        with suppress(ModelError):  # a store that the service may only read is fine
            self._write("verified", str(path), before | {"sha256": sha256})
        return sha256

    def trusted(self, path: Path) -> str | None:
        """The digest under which a user's own file was first used; None if it never was."""
        found = self._read("trusted").get(str(path))
        return found if isinstance(found, str) else None

    def trust(self, path: Path, sha256: str) -> None:
        """Remember that a user's own file is the one with this digest.

        Raises:
            ModelError: the ledger cannot be written.
        """
        self._write("trusted", str(path), sha256)

    def _read(self, part: str) -> dict[str, Any]:
        try:
            document = read_json(self._path)
        except (OSError, ValueError):
            return {}
        found = document.get(part) if isinstance(document, dict) and document.get("version") == _VERSION else None
        return found if isinstance(found, dict) else {}

    def _write(self, part: str, key: str, value: object) -> None:
        parts = {name: self._read(name) for name in ("verified", "trusted")}
        for name in list(parts["verified"]):
            if not os.path.exists(name):  # noqa: PTH110 - never raises
                del parts["verified"][name]
        parts[part][key] = value
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(self._path, error) from error
        with atomic_write(self._path) as file:
            file.write(json.dumps({"version": _VERSION, **parts}, indent=1).encode())


class Store:
    """The models on this device. Safe to use from several processes."""

    def __init__(self, root: Path, catalogue: Catalogue) -> None:
        self.root = root.absolute()
        self.catalogue = catalogue
        self._ledger = Ledger(self.root)

    @looking()
    def resolve(self, name_or_path: str, model_format: ModelFormat) -> Path:
        """Path of a model that native code may open: a ggml file, or a CTranslate2 folder. Never uses the network.

        A name from the catalogue must have the digests of the manifest. A user's own file or folder must be well
        formed, and stay the same as when it was first used.

        Raises:
            ModelError: not on this device, not for this user to read, of another format, damaged, or changed.
        """
        if name_or_path not in self.catalogue and _looks_like_path(name_or_path):
            return self._resolve_own(_own_path(name_or_path), model_format)
        model = self.catalogue.find(name_or_path)
        if model.format is not model_format:
            raise ModelError(
                f"model {model.name} is in {model.format} format, and this engine needs {model_format}:"
                " choose another model (`edgescribe models list`) or engine.kind"
            )
        self.verify(model.name, fresh=False)
        return self.path(model)

    def path(self, model: Model) -> Path:
        """Where `model` lies or would lie: its file for ggml, its folder for CTranslate2."""
        folder = self.root / model.name
        return folder / model.sources[0].files[0].name if model.format is ModelFormat.GGML else folder

    @looking()
    def verify(self, name: str, *, fresh: bool = True) -> None:
        """Hold a model against the manifest; `fresh` reads all of it again, whatever was remembered.

        Raises:
            ModelError: it is not on this device, not for this user to read, incomplete, or not what it should be.
        """
        model = self.catalogue.find(name)
        folder = self.root / model.name
        if not folder.is_dir():
            raise ModelError(f"model {name} is not on this device: run `edgescribe models pull {name}`")
        self.check_folder(model, folder, fresh=fresh)

    @looking()
    def has(self, name: str) -> bool:
        """True if the model's folder is there; `verify` tells whether it is sound.

        Raises:
            ModelError: this user may not look.
        """
        return (self.root / self.catalogue.find(name).name).is_dir()

    @looking()
    def installed(self, model_format: ModelFormat | None = None) -> tuple[Model, ...]:
        """The catalogue's models that are on this device, in its order.

        Raises:
            ModelError: this user may not look.
        """
        return tuple(
            model
            for model in self.catalogue.models
            if model_format in {None, model.format} and (self.root / model.name).is_dir()
        )

    @looking()
    def remove(self, name: str) -> None:
        """Delete a model.

        Raises:
            ModelError: it is not there, or cannot be deleted.
        """
        model = self.catalogue.find(name)
        folder = self.root / model.name
        if not folder.is_dir():
            raise ModelError(f"model {name} is not on this device")
        with self.locked():
            self._discard(folder)

    @looking()
    def trust(self, path: Path) -> str:
        """Accept a user's own model as it is now; return the digest that is remembered.

        Raises:
            ModelError: it is neither a sound ggml file nor a sound CTranslate2 folder, or not for this user to read.
        """
        path = path.absolute()
        model_format = ModelFormat.CTRANSLATE2 if path.is_dir() else ModelFormat.GGML
        for file in _own_files(path, model_format):
            self._ledger.trust(file, self._ledger.digest(file, fresh=True))
        return self._ledger.digest(_own_files(path, model_format)[0])

    def pull(self, name: str, *, hub_url: str, use_mirror: bool, progress: Progress) -> Path:
        """Fetch or make a model, verify it, and put it in its place in one step; return its path.

        Sources are tried in the manifest's order: the hub, the mirror, making it from another model.

        Raises:
            ModelError: unknown, no source gave it, what came is not what it should be, or no space is left.
        """
        return Pull(self, hub_url=hub_url, use_mirror=use_mirror, progress=progress).run(self.catalogue.find(name))

    def check_folder(self, model: Model, folder: Path, *, fresh: bool) -> None:
        """Hold the files in `folder` against the sources of `model`.

        Raises:
            ModelError: they are not those of any source; the message is about the source that fits best.
        """
        present = {path.name for path in folder.iterdir()} - {MADE_HERE}
        sources = sorted(model.sources, key=lambda source: -len(_names(source) & present))
        best = len(_names(sources[0]) & present)
        failures: list[ModelError] = []
        for source in sources:
            if len(_names(source) & present) < best:
                break
            failure = self._check_source(model, source, folder, present, fresh=fresh and not failures)
            if failure is None:
                return
            failures.append(failure)
        raise failures[0]

    def _check_source(
        self, model: Model, source: Source, folder: Path, present: set[str], *, fresh: bool
    ) -> ModelError | None:
        remedy = f"run `edgescribe models pull {model.name}`"
        if extra := sorted(present - _names(source)):
            return ModelError(f"model {model.name} has a file that does not belong to it: {extra[0]}; {remedy}")
        made_here = _made_here(folder) if isinstance(source, DerivedSource) else {}
        for file in source.files:
            path = folder / file.name
            if not path.is_file():
                return ModelError(f"model {model.name}: {file.name} is missing; {remedy}")
            if (size := path.stat().st_size) != file.size_bytes:
                what = f"{size} bytes instead of {file.size_bytes}"
                return ModelError(f"model {model.name}: {file.name} has {what}: cut short or damaged; {remedy}")
            accepted = {file.sha256, made_here.get(file.name)} - {None}
            if (found := self._ledger.digest(path, fresh=fresh)) not in accepted:
                expected = file.sha256 or made_here.get(file.name) or "unknown"
                error = mismatch(f"model {model.name}: {file.name}", found, expected)
                return ModelError(f"{error}; {remedy}")
        return None

    def _resolve_own(self, path: Path, model_format: ModelFormat) -> Path:
        for file in _own_files(path, model_format):
            found = self._ledger.digest(file)
            trusted = self._ledger.trusted(file)
            if trusted is None:
                with suppress(ModelError):  # where nothing can be remembered, every use is the first
                    self._ledger.trust(file, found)
            elif trusted != found:
                raise ModelError(
                    f"{file}: not the file that was used before (digest {found[:12]}…, was {trusted[:12]}…);"
                    f" if you replaced it, run `edgescribe models trust {path}`"
                )
        return path

    @contextmanager
    def locked(self, progress: Progress | None = None) -> Iterator[None]:
        """Keep other processes from changing the store.

        Raises:
            ModelError: the store's folder cannot be made or written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            file = (self.root / ".lock").open("w")
        except OSError as error:
            raise write_error(self.root, error) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if progress:
                    progress.note("another pull is under way; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def work_folder(self, name: str) -> Path:
        """A folder inside the store, so on its disk, in which a model is put together."""
        folder = self.root / _WORK / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def publish(self, model: Model, folder: Path) -> None:
        """Give a finished, verified folder its name, in place of a damaged one. Survives a power cut.

        Raises:
            ModelError: it cannot be moved.
        """
        target = self.root / model.name
        try:
            for path in folder.iterdir():
                path.chmod(0o644)
                sync(path)
            folder.chmod(0o755)
            sync(folder)
            if target.exists():
                self._discard(target)
            folder.rename(target)
            sync(self.root)
        except OSError as error:
            raise write_error(target, error) from error

    def record_made_here(self, folder: Path, digests: dict[str, str], origin: str) -> None:
        """Write down what was made on this device, and from what."""
        with atomic_write(folder / MADE_HERE) as file:
            file.write(json.dumps({"from": origin, "sha256": digests}, indent=1).encode())

    def digest(self, path: Path) -> str:
        """SHA-256 of a file, remembered."""
        return self._ledger.digest(path)

    def need_space(self, size_bytes: int) -> None:
        """Refuse early what cannot end well.

        Raises:
            ModelError: less than `size_bytes` are free.
        """
        free_bytes = shutil.disk_usage(nearest_folder(self.root)).free
        if free_bytes < size_bytes:
            need_mb, free_mb = size_bytes / 1e6, free_bytes / 1e6
            raise ModelError(f"{self.root}: no space left: {need_mb:.0f} MB needed, {free_mb:.0f} MB free")

    def _discard(self, folder: Path) -> None:
        trash = self.root / _WORK / f".old-{folder.name}-{os.getpid()}"
        try:
            trash.parent.mkdir(exist_ok=True)
            folder.rename(trash)
            shutil.rmtree(trash)
        except OSError as error:
            raise write_error(folder, error) from error


def _names(source: Source) -> set[str]:
    return {file.name for file in source.files}


def _made_here(folder: Path) -> dict[str, str]:
    try:
        document = read_json(folder / MADE_HERE)
    except (OSError, ValueError):
        return {}
    found = document.get("sha256") if isinstance(document, dict) else None
    return {name: each for name, each in found.items() if isinstance(each, str)} if isinstance(found, dict) else {}


def _looks_like_path(text: str) -> bool:
    return "/" in text or text.startswith("~") or os.path.exists(text)  # noqa: PTH110 - never raises


def _own_path(text: str) -> Path:
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:  # so says pathlib
        raise ModelError(f"{text}: there is no such user here: write the path without ~") from error


def _own_files(path: Path, model_format: ModelFormat) -> tuple[Path, ...]:
    """Every file of a user's own model, after checking that it is well formed."""
    if not path.exists():
        raise ModelError(f"{path}: no such model; see `edgescribe models list` for names")
    if model_format is ModelFormat.GGML:
        if path.is_dir():
            raise ModelError(f"{path}: is a folder, and whisper.cpp needs a ggml file: `edgescribe models convert`")
        check_ggml(path)
        return (path,)
    if not path.is_dir():
        raise ModelError(f"{path}: is a file, and CTranslate2 needs a folder")
    check_ctranslate2(path)
    return tuple(sorted(file for file in path.iterdir() if file.is_file()))


def _stat(path: Path) -> dict[str, object]:
    try:
        status = path.stat()
    except OSError as error:
        raise read_error(path, error) from error
    return {"inode": status.st_ino, "mtime_ns": status.st_mtime_ns, "size_bytes": status.st_size}
