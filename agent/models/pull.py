"""Brings a model into the store: from the hub, from the mirror, or made from another model."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import ModelError
from agent.models.catalogue import DerivedSource, HubSource, MirrorSource, Model, Source
from agent.models.convert import convert
from agent.models.download import Download, HubUnreachable, Progress, fetch, fetch_from_mirror
from agent.models.files import digest_of, mismatch
from agent.models.ggml import TensorType

if TYPE_CHECKING:
    from agent.models.store import Store

MADE_HERE = "made-here.json"
"""In a derived model's folder: digests of what was made on this device from verified input."""


class Pull:
    """One `models pull`: remembers that the hub is out of reach, so that it is waited for only once."""

    def __init__(self, store: "Store", *, hub_url: str, use_mirror: bool, progress: Progress) -> None:
        self._store = store
        self._hub_url = hub_url.rstrip("/")
        self._use_mirror = use_mirror
        self._progress = progress
        self._hub_failure: HubUnreachable | None = None
        self._hub_failure_told = False

    def run(self, model: Model) -> Path:
        """Make sure that `model` is in the store and sound; return its path.

        Raises:
            ModelError: see `Store.pull`.
        """
        with self._store.locked(self._progress):
            if self._is_sound(model):
                self._progress.note(f"{model.name} is on this device already")
                return self._store.path(model)
            folder = self._obtain(model)
            self._store.publish(model, folder)
        self._store.verify(model.name, fresh=False)
        return self._store.path(model)

    def _is_sound(self, model: Model) -> bool:
        if not self._store.has(model.name):
            return False
        try:
            self._store.verify(model.name)
        except ModelError as error:
            self._progress.note(f"{error} (fetching it again)")
            return False
        return True

    def _obtain(self, model: Model) -> Path:
        """Put `model` together in a work folder, from the first source that gives it, and verify it there."""
        folder = self._store.work_folder(model.name)
        failures: list[str] = []
        for source in model.sources:
            try:
                self._store.need_space(_space_bytes(source))
                self._from(source, model, folder)
                _remove_others(folder, source)
                self._store.check_folder(model, folder, fresh=True)
            except ModelError as error:
                failures.append(str(error))
                if error is not self._hub_failure or not self._hub_failure_told:
                    self._progress.note(f"{error}; trying the next source")
                self._hub_failure_told = self._hub_failure is not None
            else:
                return folder
        raise ModelError(f"model {model.name} could not be fetched: {'; '.join(dict.fromkeys(failures))}")

    def _from(self, source: Source, model: Model, folder: Path) -> None:
        match source:
            case HubSource():
                self._from_hub(source, folder)
            case MirrorSource() if not self._use_mirror:
                raise ModelError("the mirror is switched off (models.mirror = false)")
            case MirrorSource():
                fetch_from_mirror(source, folder, self._progress)
            case DerivedSource():
                self._derive(source, model, folder)

    def _from_hub(self, source: HubSource, folder: Path) -> None:
        if self._hub_failure:
            raise self._hub_failure
        for file in source.files:
            url = f"{self._hub_url}/{source.repository}/resolve/{source.revision}/{file.remote or file.name}"
            try:
                fetch(Download(url, file.size_bytes, file.sha256, file.name), folder / file.name, self._progress)
            except HubUnreachable as error:
                self._hub_failure = error
                raise

    def _derive(self, source: DerivedSource, model: Model, folder: Path) -> None:
        origin = self._store.catalogue.find(source.model)
        kept = self._is_sound(origin)
        from_folder = self._store.path(origin) if kept else self._obtain(origin)
        (file,) = source.files
        target = folder / file.name
        try:
            self._progress.note(f"making {model.name} from {origin.name}")
            convert(from_folder, target, TensorType[model.quantisation.upper()])
            made, input_digest = digest_of(target), self._store.digest(from_folder / "model.bin")
        finally:
            if not kept:
                shutil.rmtree(from_folder, ignore_errors=True)
        if file.sha256 and source.input_sha256 == input_digest and made != file.sha256:
            raise mismatch(f"{model.name}, made from {origin.name}", made, file.sha256)
        self._store.record_made_here(folder, {file.name: made}, f"{origin.name} sha256:{input_digest}")


def _space_bytes(source: Source) -> int:
    wanted = sum(file.size_bytes for file in source.files)
    if isinstance(source, MirrorSource):
        wanted += sum(package.size_bytes for package in source.packages)
    return wanted


def _remove_others(folder: Path, source: Source) -> None:
    """Clear away what an interrupted attempt, or one with another source, left."""
    names = {file.name for file in source.files} | ({MADE_HERE} if isinstance(source, DerivedSource) else set())
    for path in folder.iterdir():
        if path.name not in names:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
