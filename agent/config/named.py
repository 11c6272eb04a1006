"""Files that the settings name: recordings, certificates."""

from pathlib import Path


def file_problem(path: Path) -> str:
    """Why this user cannot read the file, with the remedy; empty if it can."""
    try:
        if path == Path("-") or path.is_fifo():  # standard input or a pipe: to open it would be to wait
            return ""
        if not path.is_file():
            return "does not exist: correct the path"
        with path.open("rb"):
            return ""
    except OSError:  # as a rule its mode; or a folder above it is closed, as /etc/ssl/private is
        return "cannot be read by this user: check its owner and mode"
