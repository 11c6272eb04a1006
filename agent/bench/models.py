"""Where the models that are to be measured lie, and which there are."""

import os
from pathlib import Path

from agent.bench.systems import Adapter, System, ours_for
from agent.config.layers import models_dir
from agent.config.settings import Settings
from agent.models.catalogue import load_catalogue
from agent.models.store import Store


class ModelShelf:
    """The models on this device. Never uses the network."""

    def __init__(self, settings: Settings) -> None:
        self._store = Store(models_dir(settings), load_catalogue())

    def systems(self) -> list[System]:
        """Our engines with every model that is there."""
        return [ours_for(model.name, model.format) for model in self._store.installed()]

    def path(self, system: System) -> Path:
        """The verified model of `system`, which names it, or gives its path; nothing at all for an engine without one.

        Raises:
            ModelError: it is not there, of another format, or not what it should be.
        """
        if system.adapter is Adapter.SCRIPTED:
            return Path(os.devnull)
        return self._store.resolve(system.model, system.adapter.model_format)

    def sha256(self, path: Path) -> str:
        """Digest of the weights at `path`, which `path()` gave; empty for an engine without a model."""
        if path == Path(os.devnull):
            return ""
        return self._store.digest(path / "model.bin" if path.is_dir() else path)
