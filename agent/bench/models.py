"""Where the models that are to be measured lie."""

from pathlib import Path

from agent.bench.systems import System
from agent.errors import ModelError


def model_path(system: System) -> Path:
    """The model of `system`, which is named by its path.

    Raises:
        ModelError: it is not there.
    """
    path = Path(system.model)
    if not path.exists():
        raise ModelError(f"{system.name}: no model {system.model}; give the path of a ggml file or CTranslate2 folder")
    return path
