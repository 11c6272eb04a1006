"""Writes what was planned, and removes what was written. All paths are below `root`, so that tests bring their own."""

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from agent.config.state_file import sync
from agent.errors import InstallError
from agent.install.facts import CONFIG, PASSWORD, STATE, UNIT_FILE, below
from agent.install.plan import DROP_INS, MODELS, PUBLIC, PlannedFile
from agent.install.record import FILE, Record, digest

_KEPT: Final = (STATE, "/var/lib/private/edgescribe", "/run/edgescribe", "/run/private/edgescribe")
"""What systemd makes for the service: a link, and what it leads to."""
_FOLDER: Final = 0o755


def make_folder(name: str, record: Record, root: Path = Path("/")) -> Record:
    """Make a folder that everybody may enter, and what is missing above it; return the record that says so.

    Raises:
        InstallError: it cannot be made.
    """
    try:
        record = _with_folder(below(root, FILE).parent, _with_folder(below(root, Path(name)), record, root), root)
        _put(below(root, FILE), record.as_text(), PUBLIC)
    except OSError as error:
        raise InstallError(f"{error.filename or name}: cannot be made ({error.strerror or error})") from error
    return record


def write(planned: Sequence[PlannedFile], record: Record, root: Path = Path("/")) -> tuple[str, ...]:
    """Write the files that are not as planned, whole or not at all; return what was written or taken away.

    A drop-in of an earlier installation that is no longer planned goes, unless somebody has changed it.

    Raises:
        InstallError: it cannot be written.
    """
    record = replace(record, files=dict(record.files))
    if str(PASSWORD) in record.files:  # an earlier version kept its digest, and it need not be among `planned`
        record.files[str(PASSWORD)] = ""
    written = []
    try:
        record = _with_folder(below(root, FILE).parent, record, root)
        # First: what is cut off half-way is ours to finish, or to take away again.
        missing = [file for file in planned if not below(root, Path(file.path)).exists()]
        new = {file.path: _remembered(file.path, file.text) for file in missing}
        if new:
            _put(below(root, FILE), replace(record, files=record.files | new).as_text(), PUBLIC)
        for name in _superseded(planned, record, root):
            below(root, Path(name)).unlink(missing_ok=True)
            del record.files[name]
            written.append(name)
        for file in planned:
            path = below(root, Path(file.path))
            record = _with_folder(path.parent, record, root)
            record.files[file.path] = _remembered(file.path, file.text)
            if not _is(path, file):
                _put(path, file.text, file.mode)
                written.append(file.path)
        # Last: what it names is there, and what it does not name was there before.
        _put(below(root, FILE), record.as_text(), PUBLIC)
    except OSError as error:
        raise InstallError(f"{error.filename or root}: cannot be written ({error.strerror or error})") from error
    return tuple(written)


def remove(record: Record, *, purge: bool, root: Path = Path("/")) -> tuple[str, ...]:
    """Remove what the record names, and the service's state; return what stays because somebody changed or added it.

    `purge` takes that, too: the whole of /etc/edgescribe, and every drop-in.

    Raises:
        InstallError: something cannot be removed.
    """
    try:
        for name, wrote in record.files.items():
            path = below(root, Path(name))
            # A password is never left behind, whoever changed it.
            if name == str(PASSWORD) or purge or _digest(path) == wrote:
                path.unlink(missing_ok=True)
        below(root, FILE).unlink(missing_ok=True)
        for name in (*_KEPT, *((str(CONFIG.parent), str(DROP_INS), str(UNIT_FILE)) if purge else ())):
            _discard(below(root, Path(name)))
        if MODELS in record.folders:
            _discard(below(root, Path(MODELS)))
        kept = [*_left(record, root), *_files_in((DROP_INS, CONFIG.parent), root)]
        _remove_empty((str(DROP_INS), str(CONFIG.parent), *reversed(record.folders)), root)
    except OSError as error:
        raise InstallError(f"{error.filename}: cannot be removed ({error.strerror})") from error
    return tuple(dict.fromkeys(kept))


def _remembered(path: str, text: str) -> str:
    """What the record, which everybody may read, says of a file: nothing by which to guess the password."""
    return "" if path == str(PASSWORD) else digest(text)


def _superseded(planned: Sequence[PlannedFile], record: Record, root: Path) -> list[str]:
    stays = {file.path for file in planned}
    drop_ins = [name for name in record.files if Path(name).parent == DROP_INS and name not in stays]
    return [name for name in drop_ins if _digest(below(root, Path(name))) in {record.files[name], None}]


def _with_folder(folder: Path, record: Record, root: Path) -> Record:
    """Make `folder` and what is missing above it; those are ours."""
    missing = [each for each in (folder, *folder.parents) if not each.is_dir()]
    for each in reversed(missing):
        each.mkdir(mode=_FOLDER)
        each.chmod(_FOLDER)
    ours = [str(Path("/") / each.relative_to(root)) for each in reversed(missing)]
    return replace(record, folders=(*record.folders, *ours))


def _is(path: Path, file: PlannedFile) -> bool:
    try:
        return path.read_text(encoding="utf-8") == file.text and path.stat().st_mode & 0o777 == file.mode
    except (FileNotFoundError, UnicodeDecodeError):
        return False


def _put(path: Path, text: str, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    # The mode from the start: a secret is at no time open to others.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    temporary.replace(path)
    sync(path.parent)


def _discard(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)


def _digest(path: Path) -> str | None:
    try:
        return digest(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def _left(record: Record, root: Path) -> list[str]:
    return [name for name in record.files if below(root, Path(name)).exists()]


def _files_in(folders: Iterable[Path], root: Path) -> list[str]:
    here = [path for folder in folders for path in sorted(below(root, folder).rglob("*")) if path.is_file()]
    return [str(Path("/") / path.relative_to(root)) for path in here]


def _remove_empty(folders: Iterable[str], root: Path) -> None:
    for name in folders:
        path = below(root, Path(name))
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
