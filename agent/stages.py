"""From settings to the stages that more than one verb needs."""

from ulid import ULID

from agent.config import Settings
from agent.engines import Engine
from agent.engines.factory import create_engine
from agent.models.catalogue import load_catalogue
from agent.models.chosen import chosen_model
from agent.models.store import Store
from agent.segmenter import Segmenter
from agent.settings_sources import models_dir


def load_engine(settings: Settings) -> Engine:
    """Find and verify the model, and load it. Never touches the network.

    Raises:
        ModelError: the model is unknown, not on this device, or not what it should be.
        EngineError: the engine cannot be started.
    """
    store = Store(models_dir(settings), load_catalogue())
    return create_engine(settings.engine, chosen_model(settings.engine, store))


def create_segmenter(settings: Settings) -> Segmenter:
    """The segmenter that `settings` describe; utterances get ULIDs for ids."""
    return Segmenter(settings.segmenter, settings.vad.threshold, lambda: str(ULID()))
