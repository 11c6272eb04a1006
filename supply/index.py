"""Downloads files from the package index with pip, and only those whose hash is in the lock."""

import shutil
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from supply.commands import run
from supply.errors import SupplyError
from supply.locks import Locked
from supply.target import Target


def download_wheels(wanted: Iterable[Locked], target: Target, folder: Path, log: Path) -> None:
    """Download the wheels of `wanted` that suit the target into `folder`.

    Raises:
        SupplyError: there is none, its hash is not in the lock, or the index is out of reach.
    """
    platforms = (word for platform in target.platforms for word in ("--platform", platform))
    _download(
        wanted,
        [
            *("--only-binary=:all:", "--implementation", "cp", "--python-version", target.python),
            *("--abi", target.tag, "--abi", "abi3", "--abi", "none"),
            *platforms,
        ],
        folder,
        log,
    )


def download_source(wanted: Locked, cache: Path, log: Path) -> Path:
    """Return the source archive of `wanted`; download it into `cache` unless it is there."""
    known = sorted(cache.glob(f"{wanted.name.replace('-', '?')}-{wanted.version}.tar.gz"))
    if not known:
        cache.mkdir(parents=True, exist_ok=True)
        # Without isolation, pip asks the setuptools of the lock for the metadata, and not the newest one.
        _download([wanted], ["--no-binary=:all:", "--no-build-isolation"], cache, log)
        known = sorted(cache.glob(f"{wanted.name.replace('-', '?')}-{wanted.version}.tar.gz"))
    if not known:
        raise SupplyError(f"the index has no source archive of {wanted.name} {wanted.version}: see {log}")
    return known[0]


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a source archive into `folder`, which is emptied first; return its only folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tarfile.open(archive) as source:
        source.extractall(folder, filter="data")
    (inside,) = folder.iterdir()
    return inside


def _download(wanted: Iterable[Locked], options: list[str], folder: Path, log: Path) -> None:
    with TemporaryDirectory() as scratch:
        requirements = Path(scratch) / "requirements.txt"
        requirements.write_text("".join(f"{one.requirement()}\n" for one in wanted), encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps", "--require-hashes"]
        run([*pip, *options, "--dest", folder, "--requirement", requirements], log)
