"""The models that are there: verified before use, removed whole, or said in one line why not."""

import errno
import json
import os
from pathlib import Path

import pytest

from agent.errors import ModelError
from agent.models import ModelFormat, files
from agent.models import store as store_module
from agent.models.ggml import TensorType, quantise, write_ggml
from agent.models.store import Store
from tests.model_files import usable_weights, write_ctranslate2
from tests.model_server import Hub
from tests.unit.models.conftest import flip, leftovers, pull
from tests.unprivileged import closed


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

    monkeypatch.setattr(store_module, "digest_of", counting)
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


def test_an_own_file_may_be_used_and_is_watched(store: Store, tmp_path: Path) -> None:
    """A sound ggml file of the user's is accepted by path; replaced, it is refused until it is trusted again."""
    own = tmp_path / "own.bin"
    write_ggml(usable_weights(), own)
    assert store.resolve(str(own), ModelFormat.GGML) == own
    write_ggml(usable_weights(seed=1), own)
    with pytest.raises(ModelError, match=f"edgescribe models trust {own}"):
        store.resolve(str(own), ModelFormat.GGML)
    store.trust(own)
    assert store.resolve(str(own), ModelFormat.GGML) == own


def test_an_own_folder_may_be_used(store: Store, tmp_path: Path) -> None:
    """A sound CTranslate2 folder, by path; a changed file in it is noticed."""
    folder = write_ctranslate2(tmp_path / "own", usable_weights())
    assert store.resolve(str(folder), ModelFormat.CTRANSLATE2) == folder
    (folder / "config.json").write_text('{"suppress_ids_begin": []}')
    with pytest.raises(ModelError, match=r"config\.json: not the file that was used before"):
        store.resolve(str(folder), ModelFormat.CTRANSLATE2)
    store.trust(folder)
    store.resolve(str(folder), ModelFormat.CTRANSLATE2)


def test_an_own_file_is_checked_before_native_code_sees_it(store: Store, tmp_path: Path) -> None:
    """Not ggml, cut short, absent, a folder, the wrong way round: a line each."""
    sound = tmp_path / "sound.bin"
    write_ggml(usable_weights(), sound)
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

    monkeypatch.setattr(store_module, "atomic_write", refuse)
    assert store.resolve("mini-q4_0", ModelFormat.GGML) == path
    assert not (store.root / "verified.json").exists()


def test_what_this_user_may_not_see_is_said_in_one_line(store: Store, tmp_path: Path) -> None:
    """A model below /home, where a service may not look; the store of another user. Never a PermissionError."""
    own = tmp_path / "home" / "own.bin"
    own.parent.mkdir()
    write_ggml(usable_weights(), own)
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
    write_ggml(usable_weights(), hidden)
    write_ggml(usable_weights(seed=1), seen)
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


def test_a_store_that_belongs_to_another_user_is_told_with_the_remedy(tmp_path: Path) -> None:
    """The service's belongs to root; the space that is left there is no help."""
    with pytest.raises(ModelError, match="sudo"), files.writing(tmp_path / "tiny"):
        raise PermissionError(errno.EACCES, "Permission denied")
