"""Writes and reads wheels; the same content gives the same bytes.

Format: https://packaging.python.org/en/latest/specifications/binary-distribution-format/
"""

import base64
import hashlib
import json
import re
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import Final

from packaging.utils import canonicalize_name, parse_wheel_filename

from agent.asr.cpu import RECORD_NAME

GENERATOR: Final = "edgescribe supply"
_FIRST_ZIP_YEAR: Final = 1980
_MODE: Final = 0o644 << 16
_EXECUTABLE: Final = 0o755 << 16


@dataclass(frozen=True, slots=True)
class Wheel:
    """The metadata of a wheel."""

    path: Path
    name: str
    """Normalised."""
    version: str
    sha256: str
    licence: str
    """An SPDX expression if the package has one, else its own words in one line; empty without a licence."""
    classified: tuple[str, ...]
    """Licences among its classifiers."""
    home: str
    """Address of its project; empty if it has none."""
    requires: tuple[str, ...]
    """Normalised names of its dependencies, without extras."""
    contains: Mapping[str, str]
    """Versions of other projects' code inside, by name, if the wheel lists them."""

    def requirement(self) -> str:
        """Return the line of a requirements file that accepts only this wheel."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


def write_wheel(folder: Path, metadata: str, tag: str, files: Mapping[str, bytes], epoch_s: int) -> Path:
    """Write a wheel of native code into `folder`, and return its path.

    Args:
        folder: An existing folder.
        metadata: The text of METADATA; its name and version name the wheel.
        tag: Such as `cp311-cp311-linux_aarch64`.
        files: Content by path in the wheel; a path that begins with `.dist-info/` goes to the folder of that name.
        epoch_s: Time stamp of every file (UTC).
    """
    head = HeaderParser().parsestr(metadata)
    name = canonicalize_name(head["Name"]).replace("-", "_")
    stem = f"{name}-{head['Version']}"
    about = f"Wheel-Version: 1.0\nGenerator: {GENERATOR}\nRoot-Is-Purelib: false\nTag: {tag}\n"
    described = {
        ".dist-info/METADATA": metadata.encode(),
        ".dist-info/WHEEL": about.encode(),
        **files,
    }
    content = {re.sub(r"^\.dist-info/", f"{stem}.dist-info/", path): data for path, data in described.items()}
    record = f"{stem}.dist-info/RECORD"
    lines = [f"{path},{_record_hash(data)},{len(data)}\n" for path, data in sorted(content.items())]
    content[record] = "".join([*lines, f"{record},,\n"]).encode()
    wheel = folder / f"{stem}-{tag}.whl"
    stamp = time.gmtime(max(epoch_s, 0))[:6]
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(content, key=lambda path: (".dist-info/" in path, path == record, path)):
            entry = zipfile.ZipInfo(path, stamp if stamp[0] >= _FIRST_ZIP_YEAR else (_FIRST_ZIP_YEAR, 1, 1, 0, 0, 0))
            entry.external_attr = _EXECUTABLE if path.endswith(".so") or ".so." in path else _MODE
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content[path])
    return wheel


def read_wheel(path: Path) -> Wheel:
    """Read the metadata of a wheel."""
    name, version, _, _ = parse_wheel_filename(path.name)
    with zipfile.ZipFile(path) as archive:
        member = next(one for one in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", one))
        head = HeaderParser().parsestr(archive.read(member).decode("utf-8"))
        record = member.replace("METADATA", RECORD_NAME)
        inside = json.loads(archive.read(record))["contains"] if record in archive.namelist() else {}
    classifiers = head.get_all("Classifier") or []
    return Wheel(
        path,
        str(name),
        str(version),
        hashlib.sha256(path.read_bytes()).hexdigest(),
        _licence(head),
        tuple(one.rsplit(" :: ", 1)[-1] for one in classifiers if one.startswith("License ::")),
        _home(head),
        tuple(
            sorted(
                {
                    canonicalize_name(re.split(r"[^\w.-]", one, maxsplit=1)[0])
                    for one in head.get_all("Requires-Dist") or []
                    if "extra ==" not in one
                }
            )
        ),
        inside,
    )


def _licence(head: Message) -> str:
    """Return `License-Expression` if there is one, else the first line of `License`."""
    said = head.get("License-Expression") or head.get("License") or ""
    return said.strip().splitlines()[0].strip() if said.strip() else ""


def _home(head: Message) -> str:
    links = dict(one.split(", ", 1) for one in head.get_all("Project-URL") or [] if ", " in one)
    by_kind = {kind.lower(): url for kind, url in links.items()}
    for kind in ("source", "repository", "source code", "homepage", "home"):
        if kind in by_kind:
            return by_kind[kind]
    return str(head.get("Home-page") or "")


def _record_hash(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
    return f"sha256={digest.decode()}"
