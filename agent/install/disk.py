"""Writes the planned files, and removes them. All paths are below `root`; tests give a folder of their own."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from agent.config.state_file import write_whole
from agent.errors import InstallError
from agent.install.facts import CONFIG, PASSWORD, RECORD, STATE, UNIT_FILE, Record, below, digest
from agent.install.plan import DROP_INS, MODELS, PUBLIC, PlannedFile

_KEPT: Final = (STATE, "/var/lib/private/edgescribe", "/run/edgescribe", "/run/private/edgescribe")
"""Links that systemd makes for the service, and their targets."""
_FOLDER: Final = 0o755


def make_folder(name: str, record: Record, root: Path = Path("/")) -> Record:
    """Make a folder that all users may enter, and its missing parents; return the record with them.

    Raises:
        InstallError: it cannot be made.
    """
    try:
        record = _with_folder(below(root, RECORD).parent, _with_folder(below(root, name), record, root), root)
        write_whole(below(root, RECORD), record.as_text(), PUBLIC)
    except OSError as error:
        raise InstallError(f"{error.filename or name}: cannot be made ({error.strerror or error})") from error
    return record


def write(planned: Sequence[PlannedFile], record: Record, root: Path = Path("/")) -> tuple[str, ...]:
    """Write the files that differ from the plan, each whole or not at all; return the paths of all changes.

    Remove a drop-in of an earlier installation that is no longer planned, unless a user has changed it.

    Raises:
        InstallError: a file cannot be written.
    """
    files = dict(record.files)
    if str(PASSWORD) in files:  # an earlier version kept its digest, and it need not be among `planned`
        files[str(PASSWORD)] = ""
    # All users may read the record: a digest of the password would help to guess it.
    digests = {file.path: "" if file.path == str(PASSWORD) else digest(file.text) for file in planned}
    written = []
    try:
        record = _with_folder(below(root, RECORD).parent, replace(record, files=files), root)
        # First: an installation that is cut off can be finished, or removed again.
        if new := {path: sha256 for path, sha256 in digests.items() if not below(root, path).exists()}:
            write_whole(below(root, RECORD), replace(record, files=files | new).as_text(), PUBLIC)
        for name in [name for name in files if Path(name).parent == DROP_INS and name not in digests]:
            path = below(root, name)
            if _digest(path) in {files[name], None}:
                path.unlink(missing_ok=True)
                del files[name]
                written.append(name)
        for file in planned:
            path = below(root, file.path)
            record = _with_folder(path.parent, record, root)
            files[file.path] = digests[file.path]
            if _digest(path) != digest(file.text) or path.stat().st_mode & 0o777 != file.mode:
                write_whole(path, file.text, file.mode)
                written.append(file.path)
        # Last: now it names exactly the files and folders of this installation.
        write_whole(below(root, RECORD), record.as_text(), PUBLIC)
    except OSError as error:
        raise InstallError(f"{error.filename or root}: cannot be written ({error.strerror or error})") from error
    return tuple(written)


def remove(record: Record, *, purge: bool, root: Path = Path("/")) -> tuple[str, ...]:
    """Remove the files of the record, and the service's state; return the files that users have changed or added.

    Those stay, except with `purge`: it takes the whole of /etc/edgescribe and every drop-in.

    Raises:
        InstallError: a file cannot be removed.
    """
    doomed = [*_KEPT, *((str(CONFIG.parent), str(DROP_INS), str(UNIT_FILE)) if purge else ())]
    if MODELS in record.folders:
        doomed.append(MODELS)
    try:
        for name, wrote in record.files.items():
            path = below(root, name)
            # A password never stays behind, not even a changed one.
            if name == str(PASSWORD) or purge or _digest(path) == wrote:
                path.unlink(missing_ok=True)
        below(root, RECORD).unlink(missing_ok=True)
        for name in doomed:
            path = below(root, name)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        kept = [name for name in record.files if below(root, name).exists()]
        for folder in (DROP_INS, CONFIG.parent):
            here = sorted(path for path in below(root, folder).rglob("*") if path.is_file())
            kept += [str(Path("/") / path.relative_to(root)) for path in here]
        for name in (str(DROP_INS), str(CONFIG.parent), *reversed(record.folders)):
            path = below(root, name)
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
    except OSError as error:
        raise InstallError(f"{error.filename}: cannot be removed ({error.strerror})") from error
    return tuple(dict.fromkeys(kept))


def _with_folder(folder: Path, record: Record, root: Path) -> Record:
    """Make `folder` and its missing parents; return the record with them."""
    missing = [each for each in (folder, *folder.parents) if not each.is_dir()][::-1]
    for each in missing:
        each.mkdir(mode=_FOLDER)
        each.chmod(_FOLDER)
    return replace(record, folders=(*record.folders, *(str(Path("/") / each.relative_to(root)) for each in missing)))


def _digest(path: Path) -> str | None:
    """Return the digest of a text file; None if there is none."""
    try:
        return digest(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError):
        return None
