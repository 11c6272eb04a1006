"""Pulls a model into the store: from the hub, from the mirror, or made from another model."""

import json
import shutil
from pathlib import Path

from agent.errors import ModelError
from agent.models.catalogue import DerivedSource, HubSource, MirrorSource, Model, Source
from agent.models.convert import convert
from agent.models.download import HubUnreachable, Progress, fetch, fetch_from_mirror
from agent.models.files import atomic_write, digest_of, mismatch, nearest_folder
from agent.models.ggml import TensorType
from agent.models.store import MADE_HERE, Store


def pull_model(store: Store, name: str, *, hub_url: str, use_mirror: bool, progress: Progress) -> Path:
    """Fetch or make a model, verify it, and put it into the store in one step; return its path.

    The sources are tried in the manifest's order: the hub, the mirror, and making it from another model.

    Raises:
        ModelError: unknown, no source gave it, the content is not the expected one, or no space is left.
    """
    model = store.catalogue.find(name)
    pull = _Pull(store, hub_url.rstrip("/"), use_mirror=use_mirror, progress=progress)
    with store.locked(lambda: progress.note("another pull is under way; waiting for it")):
        if pull.is_sound(model):
            progress.note(f"{name} is on this device already")
        else:
            store.publish(model, pull.obtain(model))
            store.verify(name, fresh=False)
    return store.path(model)


class _Pull:
    """One pull, which asks an unreachable hub only once."""

    def __init__(self, store: Store, hub_url: str, *, use_mirror: bool, progress: Progress) -> None:
        self._store = store
        self._hub_url = hub_url
        self._use_mirror = use_mirror
        self._progress = progress
        self._hub_failure: HubUnreachable | None = None

    def is_sound(self, model: Model) -> bool:
        """Return whether the store has a sound copy of `model`."""
        if not self._store.has(model.name):
            return False
        try:
            self._store.verify(model.name)
        except ModelError as error:
            self._progress.note(f"{error} (fetching it again)")
            return False
        return True

    def obtain(self, model: Model) -> Path:
        """Put `model` into a work folder, from the first source that gives it; verify it there."""
        folder = self._store.work_folder(model.name)
        failures: list[str] = []
        for source in model.sources:
            known_failure = self._hub_failure
            try:
                self._need_space(source)
                self._from(source, model, folder)
                _remove_others(folder, source)
                self._store.check_folder(model, folder, fresh=True)
            except ModelError as error:
                failures.append(str(error))
                if error is not known_failure:
                    self._progress.note(f"{error}; trying the next source")
            else:
                return folder
        raise ModelError(f"model {model.name} could not be fetched: {'; '.join(dict.fromkeys(failures))}")

    def _need_space(self, source: Source) -> None:
        need_bytes = sum(file.size_bytes for file in source.files)
        if isinstance(source, MirrorSource):
            need_bytes += sum(package.size_bytes for package in source.packages)
        free_bytes = shutil.disk_usage(nearest_folder(self._store.root)).free
        if free_bytes < need_bytes:
            need_mb, free_mb = need_bytes / 1e6, free_bytes / 1e6
            raise ModelError(f"{self._store.root}: no space left: {need_mb:.0f} MB needed, {free_mb:.0f} MB free")

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
                fetch(url, file, folder / file.name, self._progress)
            except HubUnreachable as error:
                self._hub_failure = error
                raise

    def _derive(self, source: DerivedSource, model: Model, folder: Path) -> None:
        origin = self._store.catalogue.find(source.model)
        kept = self.is_sound(origin)
        from_folder = self._store.path(origin) if kept else self.obtain(origin)
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
        with atomic_write(folder / MADE_HERE) as record:
            document = {"from": f"{origin.name} sha256:{input_digest}", "sha256": {file.name: made}}
            record.write(json.dumps(document, indent=1).encode())


def _remove_others(folder: Path, source: Source) -> None:
    """Delete the remains of an interrupted attempt, or of another source."""
    names = {file.name for file in source.files} | ({MADE_HERE} if isinstance(source, DerivedSource) else set())
    for path in folder.iterdir():
        if path.name not in names:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
