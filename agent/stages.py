"""From settings to the stages that more than one verb needs."""

from collections.abc import Callable

from ulid import ULID

from agent.config import Settings
from agent.engines import Engine
from agent.engines.factory import create_engine
from agent.engines.process import ProcessEngine
from agent.models.catalogue import load_catalogue
from agent.models.chosen import chosen_model
from agent.models.store import Store
from agent.segmenter import Segmenter
from agent.settings_sources import models_dir


def load_engine(settings: Settings, on_loss: Callable[[str], None] = lambda _reason: None) -> Engine:
    """Find and verify the model, and load it, in a process of its own if `engine.isolation` wants that.

    Never touches the network. `on_loss` is told, from the thread that transcribes, why such a process was lost.

    Raises:
        ModelError: the model is unknown, not on this device, or not what it should be.
        EngineError: the engine cannot be started.
    """
    store = Store(models_dir(settings), load_catalogue())
    if settings.engine.isolation == "process":
        return ProcessEngine(settings.engine, lambda: chosen_model(settings.engine, store), on_loss)
    return create_engine(settings.engine, chosen_model(settings.engine, store))


def create_segmenter(settings: Settings) -> Segmenter:
    """The segmenter that `settings` describe; utterances get ULIDs for ids."""
    return Segmenter(settings.segmenter, settings.vad.threshold, lambda: str(ULID()))
