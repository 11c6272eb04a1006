"""What `edgescribe service install` has written on this machine, so that it can be told from what others wrote."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.errors import InstallError

FILE: Final = Path("/etc/edgescribe/installed.json")
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Record:
    """Files and folders that are ours."""

    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of what was written, in hexadecimal, by path; of the password nothing: everybody may read this."""
    folders: tuple[str, ...] = ()
    """Folders that were not there before, outermost first."""

    def wrote(self, path: str, text: str) -> bool:
        """Whether `text` is what was written to `path`."""
        return self.files.get(path) == digest(text)

    def as_text(self) -> str:
        """The record as a file; `from_text` reads it."""
        return json.dumps({"v": _VERSION, "files": self.files, "folders": self.folders}, indent=1) + "\n"


def from_text(text: str) -> Record:
    """The record that `as_text` wrote.

    Raises:
        InstallError: it is not one.
    """
    try:
        tree = json.loads(text)
        files = {str(path): str(sha256) for path, sha256 in tree["files"].items()}
        return Record(files, tuple(str(folder) for folder in tree["folders"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InstallError(
            f"{FILE}: not a record of what was installed ({type(error).__name__}): delete it, and install with --force"
        ) from error


def digest(text: str) -> str:
    """SHA-256 of `text` in UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()
