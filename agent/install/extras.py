"""How what is missing gets into the environment in which this program runs: its own pip, and what that installs from.

Never by this package's name from an index: none has it, and a stranger who takes the name could serve all who type it.
And never by a bare `pip`, which is another environment's, or Debian's, which refuses (PEP 668).
"""

import json
import os
import shlex
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

NAME: Final = "edgescribe"
IN_EVERY_WHEELHOUSE: Final = frozenset({"assist", "enhance"})
IN_A_WHEELHOUSE_OF_ITS_OWN: Final = "faster-whisper"


@dataclass(frozen=True, slots=True)
class Installation:
    """Where this program is installed, and from what."""

    pip: str
    """The command line of its pip; with sudo where this user may not change the environment."""
    folder: Path | None
    """The checkout or unpacked release that it was installed from; None if that is gone, or it was a wheelhouse."""
    from_wheelhouse: bool = False
    """It was installed from a folder of wheels, or from one of them."""
    editable: bool = False
    """It runs from that folder itself."""

    def with_extra(self, name: str) -> str:
        """What to do to have the extra `name`: a command, or where to type which."""
        if self.folder:
            option = "--editable " if self.editable else ""
            return f"{self.pip} install {option}{shlex.quote(f'{self.folder}[{name}]')}"
        if self.from_wheelhouse and name in IN_EVERY_WHEELHOUSE:
            return f"in the wheelhouse's folder, {self.pip} install --no-index --find-links . '{NAME}[{name}]'"
        if self.from_wheelhouse and name == IN_A_WHEELHOUSE_OF_ITS_OWN:
            return f"install from a wheelhouse that was made with EXTRA={name} (docs/wheelhouse.md)"
        return f"in a checkout, {self.pip} install '.[{name}]'"

    def again(self, package: str, *options: str) -> str:
        """The command that installs another package anew, from the index."""
        return f"{self.pip} {shlex.join(['install', '--force-reinstall', *options, package])}"


def here() -> Installation:
    """That of the running program."""
    return installation(Path(sys.prefix), _direct_url(), Path(__file__).parents[1])


def missing(extra: str) -> str:
    """What to do, here, to have an extra that is not installed."""
    return here().with_extra(extra)


def installation(prefix: Path, direct_url: str | None, above: Path) -> Installation:
    """From what is known of it.

    Args:
        prefix: The environment.
        direct_url: What pip has written down about where the package came from (PEP 610), if anything.
        above: The folder in which the package lies; a checkout, if it runs without being installed.
    """
    own = prefix / "bin" / "pip"
    # One that pipx made has none of its own, and finds pipx's as a module.
    pip = shlex.quote(str(own)) if own.exists() else f"{shlex.quote(str(prefix / 'bin' / 'python'))} -m pip"
    sudo = "" if os.access(prefix, os.W_OK, effective_ids=True) else "sudo "
    said = json.loads(direct_url) if direct_url else {}
    url = urlsplit(said.get("url", ""))
    from_folder = url.scheme == "file" and "dir_info" in said
    folder = _if_there(Path(unquote(url.path)) if from_folder else above)
    editable = bool(said.get("dir_info", {}).get("editable"))
    return Installation(sudo + pip, folder, from_wheelhouse=not (from_folder or folder), editable=editable)


def _if_there(folder: Path) -> Path | None:
    try:
        return folder if (folder / "pyproject.toml").is_file() else None
    except PermissionError:  # the service does not see homes; who reads what it says does
        return folder


def _direct_url() -> str | None:
    try:
        return metadata.distribution(NAME).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
