"""The model that the settings name."""

from pathlib import Path

from agent.config.settings import EngineSettings, ScriptedSettings, WhisperCppSettings
from agent.models import ModelFormat
from agent.models.languages import knows, multilingual
from agent.models.store import Store


def format_for(engine: EngineSettings) -> ModelFormat | None:
    """What the engine loads; None if it has no model."""
    if isinstance(engine, ScriptedSettings):
        return None
    return ModelFormat.GGML if isinstance(engine, WhisperCppSettings) else ModelFormat.CTRANSLATE2


def language_problem(engine: EngineSettings) -> str:
    """Why the model does not do for the language, with the remedy; empty if it does, or there is no model."""
    if isinstance(engine, ScriptedSettings) or knows(engine.model, engine.language):
        return ""
    return (
        f'engine.language = "{engine.language}", but engine.model = "{engine.model}" knows English only: '
        f'set engine.model = "{multilingual(engine.model)}" or engine.language = "en"'
    )


def chosen_model(engine: EngineSettings, store: Store) -> Path | None:
    """Verified path of the engine's model; None if it has none.

    Raises:
        ModelError: it is not on this device, of the wrong format, or not what it should be.
    """
    wanted = format_for(engine)
    if wanted is None or isinstance(engine, ScriptedSettings):
        return None
    return store.resolve(engine.model, wanted)
