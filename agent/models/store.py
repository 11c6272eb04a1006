"""Keeps the models of this device, one folder a model, and verifies each before an engine gets its path.

<root>/tiny.en-q8_0/ggml-tiny.en-q8_0.bin
<root>/tiny.en-ct2/{model.bin,config.json,tokenizer.json,vocabulary.txt}
<root>/verified.json      digests: a start does not read each model again
<root>/.pull/…            work folders of a pull; only the pull reads them
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agent.config.state_file import read_json, sync
from agent.errors import ModelError
from agent.models import ModelFormat
from agent.models.catalogue import Catalogue, DerivedSource, Model, Source
from agent.models.ct2 import check_ctranslate2
from agent.models.files import atomic_write, digest_of, looking, mismatch, writing
from agent.models.ggml import check_ggml

MADE_HERE = "made-here.json"
"""In the folder of a derived model: digests of the files that this device made from verified input."""
_WORK = ".pull"
_VERSION = 1


class Ledger:
    """Remembers digests in `root`/verified.json, and which of the user's own files are trusted.

    A file that has not changed is not read again at each start. It counts as changed if inode, modification time or
    size differ. A user who can write into the store can also forge the ledger, or replace the program. The ledger
    protects against damage and against files from elsewhere.

    A damaged ledger counts as empty. A read-only ledger costs only time: the next start computes again.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / "verified.json"

    def digest(self, path: Path, *, fresh: bool = False) -> str:
        """Return the SHA-256 of `path`: the remembered one if the file has not changed, and `fresh` is False.

        Raises:
            ModelError: it cannot be read.
        """
        with looking(path):
            before = _stat(path)
            known = self._read("verified").get(str(path))
            if not fresh and isinstance(known, dict) and before.items() <= known.items() and "sha256" in known:
                return str(known["sha256"])
            sha256 = digest_of(path)
            if _stat(path) != before:
                raise ModelError(f"{path}: changed while it was read; try again when no program writes to it")
        with suppress(ModelError):  # the service may have a read-only store
            self._write("verified", str(path), before | {"sha256": sha256})
        return sha256

    def trusted(self, path: Path) -> str | None:
        """Return the digest that a user's own file had at its first use; None before its first use."""
        found = self._read("trusted").get(str(path))
        return found if isinstance(found, str) else None

    def trust(self, path: Path, sha256: str) -> None:
        """Remember the digest of a user's own file.

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
        kept = {name: known for name, known in self._read("verified").items() if _exists(name)}
        parts = {"verified": kept, "trusted": self._read("trusted")}
        parts[part][key] = value
        with writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self._path) as file:
            file.write(json.dumps({"version": _VERSION, **parts}, indent=1).encode())


class Store:
    """The models on this device. Several processes may use one store at the same time.

    Each method raises ModelError if this user may not look into the store.
    """

    def __init__(self, root: Path, catalogue: Catalogue) -> None:
        self.root = root.absolute()
        self.catalogue = catalogue
        self._ledger = Ledger(self.root)

    @looking()
    def resolve(self, name_or_path: str, model_format: ModelFormat) -> Path:
        """Return the path of a model that native code may open: a ggml file, or a CTranslate2 folder.

        A name from the catalogue must have the digests of the manifest. A user's own file or folder must be well
        formed, and stay the same as at its first use. This never uses the network.

        Raises:
            ModelError: not on this device, of another format, damaged, or changed.
        """
        looks_like_path = "/" in name_or_path or name_or_path.startswith("~") or _exists(name_or_path)
        if looks_like_path and name_or_path not in self.catalogue:
            return self._resolve_own(name_or_path, model_format)
        model = self.catalogue.find(name_or_path)
        if model.format is not model_format:
            raise ModelError(
                f"model {model.name} is in {model.format} format, and this engine needs {model_format}:"
                " choose another model (`edgescribe models list`) or engine.kind"
            )
        self.verify(model.name, fresh=False)
        return self.path(model)

    def path(self, model: Model) -> Path:
        """Return the place of `model`, here or not: its file for ggml, its folder for CTranslate2."""
        folder = self.root / model.name
        return folder / model.sources[0].files[0].name if model.format is ModelFormat.GGML else folder

    @looking()
    def verify(self, name: str, *, fresh: bool = True) -> None:
        """Compare a model with the manifest; `fresh` reads all of it again, without the ledger.

        Raises:
            ModelError: it is not on this device, incomplete, or not the expected one.
        """
        if not self.has(name):
            raise ModelError(f"model {name} is not on this device: run `edgescribe models pull {name}`")
        self.check_folder(self.catalogue.find(name), self.root / name, fresh=fresh)

    @looking()
    def has(self, name: str) -> bool:
        """Return whether the model's folder is there; `verify` tells whether it is sound."""
        return (self.root / self.catalogue.find(name).name).is_dir()

    @looking()
    def installed(self, model_format: ModelFormat | None = None) -> tuple[Model, ...]:
        """Return the catalogue's models that are on this device, in the catalogue's order."""
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
        if not self.has(name):
            raise ModelError(f"model {name} is not on this device")
        with self.locked():
            self._discard(self.root / name)

    @looking()
    def trust(self, path: Path) -> str:
        """Accept a user's own model as it is now; return the digest of its first file.

        Raises:
            ModelError: it is neither a sound ggml file nor a sound CTranslate2 folder.
        """
        path = path.absolute()
        digests = []
        for file in _own_files(path, ModelFormat.CTRANSLATE2 if path.is_dir() else ModelFormat.GGML):
            digests.append(self._ledger.digest(file, fresh=True))
            self._ledger.trust(file, digests[-1])
        return digests[0]

    def digest(self, path: Path) -> str:
        """Return the SHA-256 of a file, from the ledger if the file has not changed."""
        return self._ledger.digest(path)

    def check_folder(self, model: Model, folder: Path, *, fresh: bool) -> None:
        """Compare the files in `folder` with the sources of `model` whose names fit best.

        Raises:
            ModelError: a file is not from such a source.
        """
        present = {path.name for path in folder.iterdir()} - {MADE_HERE}
        nearest = min((_names(source) for source in model.sources), key=lambda names: len(names ^ present))
        sources = [source for source in model.sources if _names(source) == nearest]
        made_here = _made_here(folder) if any(isinstance(source, DerivedSource) for source in sources) else {}
        remedy = f"run `edgescribe models pull {model.name}`"
        if extra := sorted(present - nearest):
            raise ModelError(f"model {model.name} has a file that does not belong to it: {extra[0]}; {remedy}")
        for first in sources[0].files:
            path = folder / first.name
            alike = [file for source in sources for file in source.files if file.name == first.name]
            if not path.is_file():
                raise ModelError(f"model {model.name}: {first.name} is missing; {remedy}")
            if (size := path.stat().st_size) not in {file.size_bytes for file in alike}:
                misfit = f"{size} bytes instead of {first.size_bytes}"
                raise ModelError(f"model {model.name}: {first.name} has {misfit}: cut short or damaged; {remedy}")
            digests = [digest for digest in (*(file.sha256 for file in alike), made_here.get(first.name)) if digest]
            if (found := self._ledger.digest(path, fresh=fresh)) not in digests:
                error = mismatch(f"model {model.name}: {first.name}", found, digests[0] if digests else "unknown")
                raise ModelError(f"{error}; {remedy}")

    def _resolve_own(self, name: str, model_format: ModelFormat) -> Path:
        try:
            path = Path(name).expanduser().absolute()
        except RuntimeError as error:  # of pathlib
            raise ModelError(f"{name}: there is no such user here: write the path without ~") from error
        for file in _own_files(path, model_format):
            found = self._ledger.digest(file)
            trusted = self._ledger.trusted(file)
            if trusted is None:
                with suppress(ModelError):  # with a read-only ledger, each use is the first
                    self._ledger.trust(file, found)
            elif trusted != found:
                raise ModelError(
                    f"{file}: not the file that was used before (digest {found[:12]}…, was {trusted[:12]}…);"
                    f" if you replaced it, run `edgescribe models trust {path}`"
                )
        return path

    @contextmanager
    def locked(self, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Keep other processes from changing the store; call `on_wait` if one of them is changing it now.

        Raises:
            ModelError: the store's folder cannot be made or written.
        """
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            file = (self.root / ".lock").open("w")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def work_folder(self, name: str) -> Path:
        """Return a folder for the pull of a model, inside the store and thus on its disk."""
        folder = self.root / _WORK / name
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def publish(self, model: Model, folder: Path) -> None:
        """Move a finished, verified folder to its place, instead of a damaged one. Survives a power cut.

        Raises:
            ModelError: it cannot be moved.
        """
        target = self.root / model.name
        with writing(target):
            for path in folder.iterdir():
                path.chmod(0o644)
                sync(path)
            folder.chmod(0o755)
            sync(folder)
            if target.exists():
                self._discard(target)
            folder.rename(target)
            sync(self.root)

    def _discard(self, folder: Path) -> None:
        trash = self.root / _WORK / f".old-{folder.name}-{os.getpid()}"
        with writing(folder):
            trash.parent.mkdir(exist_ok=True)
            folder.rename(trash)
            shutil.rmtree(trash)


def _names(source: Source) -> set[str]:
    return {file.name for file in source.files}


def _made_here(folder: Path) -> dict[str, str]:
    try:
        document = read_json(folder / MADE_HERE)
    except (OSError, ValueError):
        return {}
    found = document.get("sha256") if isinstance(document, dict) else None
    return {name: each for name, each in found.items() if isinstance(each, str)} if isinstance(found, dict) else {}


def _exists(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - never raises


def _own_files(path: Path, model_format: ModelFormat) -> tuple[Path, ...]:
    """Return each file of a user's own model, after checking that it is well formed."""
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
    status = path.stat()
    return {"inode": status.st_ino, "mtime_ns": status.st_mtime_ns, "size_bytes": status.st_size}
