"""Runs other programs; their output goes to a log, which an error names."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from supply.errors import SupplyError

_LAST_LINES: Final = 5


def run(
    words: Sequence[object], log: Path, *, folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> None:
    """Run a program to its end; its output is appended to `log`.

    Raises:
        SupplyError: it is not installed, or failed; the message has its last lines.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as output:
        print("+", *words, file=output, flush=True)
        began = output.tell()
        try:
            status = subprocess.run(
                [str(word) for word in words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, **(environment or {})},
                check=False,
            ).returncode
        except FileNotFoundError as error:
            raise SupplyError(f"{words[0]} is not installed: run `make wheelhouse`, which installs it") from error
    if status:
        said = log.read_bytes()[began:].decode("utf-8", errors="replace").strip().splitlines()
        tail = "\n".join(f"    {line}" for line in said[-_LAST_LINES:])
        raise SupplyError(f"{Path(str(words[0])).name} failed ({status}); see {log}\n{tail}")


def printed(words: Sequence[object]) -> str:
    """Return the output of a program, without the last line end.

    Raises:
        SupplyError: it is not installed, or failed.
    """
    try:
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        raise SupplyError(f"{words[0]} is not installed, or failed: {error}") from error
    return done.stdout.strip()


def say(text: str) -> None:
    """Print a step, for the user who waits."""
    print(text, file=sys.stderr, flush=True)
