import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.config import ModelsSettings
from agent.models import ModelFormat
from agent.models.catalogue import load_catalogue
from agent.models.store import Store

REPOSITORY = Path(__file__).parent.parent


class _Lines:
    """Progress that shows in pytest's captured output."""

    def note(self, message: str) -> None:
        sys.stderr.write(f"{message}\n")

    def advance(self, label: str, done_bytes: int, total_bytes: int) -> None:
        if done_bytes == total_bytes:
            sys.stderr.write(f"{label}: {total_bytes} bytes\n")


@pytest.fixture(scope="session")
def model_store() -> Store:
    """A store that stays from one run of the tests to the next, so that weights are fetched once a clone."""
    root = os.environ.get("EDGESCRIBE_TEST_MODELS")
    return Store(Path(root) if root else REPOSITORY / ".edgescribe" / "test-models", load_catalogue())


@pytest.fixture(scope="session")
def pulled(model_store: Store) -> Callable[[str], Path]:
    """Gives the verified path of a model, pulled as a user would pull it; fails with the reason where it cannot be."""
    settings = ModelsSettings()

    def pull(name: str) -> Path:
        if not model_store.has(name):
            model_store.pull(name, hub_url=settings.hub_url, use_mirror=settings.mirror, progress=_Lines())
        return model_store.resolve(name, ModelFormat(model_store.catalogue.find(name).format))

    return pull
