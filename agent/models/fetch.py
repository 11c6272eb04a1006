"""Downloads one file over HTTP: resumed after a cut, checked against its size and digest, never half visible."""

import contextlib
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from agent import __version__
from agent.errors import ModelError
from agent.models.files import digest_of, mismatch, write_error
from agent.models.progress import Progress

_PROBE_S = 6.0
"""In all, for finding out whether anybody answers: a dead hub must not hold up the mirror."""
_PROBE_ADDRESS_S = 2.0
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
    deadline = time.monotonic() + _PROBE_S
    reason = "no address"
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        addresses = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise HubUnreachable(f"{parts.hostname} cannot be found ({_reason(error)})") from error
    for family, kind, protocol, _, address in addresses:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            break
        with socket.socket(family, kind, protocol) as connection:
            connection.settimeout(min(left_s, _PROBE_ADDRESS_S))
            try:
                connection.connect(address)
            except OSError as error:
                reason = _reason(error)
            else:
                return
    raise HubUnreachable(f"{parts.hostname} does not answer ({reason})")


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
