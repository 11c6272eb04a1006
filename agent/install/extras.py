"""Names the command that installs a missing package, into the environment of this program, from its own source.

Never by this package's name from an index: no index has it, and a stranger could take the name. Never by a bare `pip`:
it belongs to another environment, or to Debian, and refuses (PEP 668).
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
    """Where this program is installed, and from which source."""

    pip: str
    """The command line of its pip; with sudo if this user may not change the environment."""
    folder: Path | None
    """The checkout or unpacked release that it was installed from; None if that is gone, or it was a wheelhouse."""
    from_wheelhouse: bool = False
    """It was installed from a folder of wheels, or from one of them."""
    editable: bool = False
    """It runs from that folder itself."""

    def with_extra(self, name: str) -> str:
        """Return the command that installs the extra `name`, or the place to type it."""
        if self.folder:
            option = "--editable " if self.editable else ""
            return f"{self.pip} install {option}{shlex.quote(f'{self.folder}[{name}]')}"
        if self.from_wheelhouse and name in IN_EVERY_WHEELHOUSE:
            return f"in the wheelhouse's folder, {self.pip} install --no-index --find-links . '{NAME}[{name}]'"
        if self.from_wheelhouse and name == IN_A_WHEELHOUSE_OF_ITS_OWN:
            return f"install from a wheelhouse that was made with EXTRA={name} (docs/wheelhouse.md)"
        return f"in a checkout, {self.pip} install '.[{name}]'"

    def again(self, package: str, *options: str) -> str:
        """Return the command that installs another package anew, from the index."""
        return f"{self.pip} {shlex.join(['install', '--force-reinstall', *options, package])}"


def here() -> Installation:
    """Return the installation of the running program."""
    try:
        direct_url = metadata.distribution(NAME).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        direct_url = None
    return installation(Path(sys.prefix), direct_url, Path(__file__).parents[1])


def missing(extra: str) -> str:
    """Return the command that installs a missing extra here."""
    return here().with_extra(extra)


def installation(prefix: Path, direct_url: str | None, above: Path) -> Installation:
    """Return the installation that these files describe.

    Args:
        prefix: The environment.
        direct_url: pip's record of the source of the package (PEP 610), if there is one.
        above: The folder of the package; a checkout, if it runs without being installed.
    """
    own = prefix / "bin" / "pip"
    # An environment of pipx has no `bin/pip`; it finds pipx's own as a module.
    pip = shlex.quote(str(own)) if own.exists() else f"{shlex.quote(str(prefix / 'bin' / 'python'))} -m pip"
    sudo = "" if os.access(prefix, os.W_OK, effective_ids=True) else "sudo "
    record = json.loads(direct_url) if direct_url else {}
    url = urlsplit(record.get("url", ""))
    from_folder = url.scheme == "file" and "dir_info" in record
    folder: Path | None = Path(unquote(url.path)) if from_folder else above
    try:
        if folder and not (folder / "pyproject.toml").is_file():
            folder = None
    except PermissionError:
        pass  # the service cannot look into a home, but the reader of its message can
    editable = bool(record.get("dir_info", {}).get("editable"))
    return Installation(sudo + pip, folder, from_wheelhouse=not (from_folder or folder), editable=editable)
