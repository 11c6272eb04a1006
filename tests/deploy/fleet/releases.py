"""Wheelhouses of releases that differ from this working tree in one thing: their version, or what is broken in them."""

import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CLASS: Final = f"{platform.machine()}-native"


@dataclass(frozen=True, slots=True)
class Change:
    """One edit of a module; `old` has to be in it."""

    module: str
    old: str
    new: str


_STARTS = "    settings = settings_from(args)\n"
CRASHES: Final = Change("agent/commands/run.py", _STARTS, f"{_STARTS}    import os\n    os.abort()\n")
HANGS: Final = Change("agent/commands/run.py", _STARTS, f"{_STARTS}    import time\n    time.sleep(3600)\n")
BABBLES: Final = Change(
    "agent/asr/whisper_cpp.py",
    "        self._run(padded, ",
    "        self._run(padded[::-1].copy(), ",
)
"""Hears everything backwards: starts, is READY, answers, with words that nobody said."""


def dependencies(cache: Path, repository: Path) -> Path:
    """A folder with a wheel of everything that the agent needs on a device; made once for each pyproject.toml."""
    key = hashlib.sha256((repository / "pyproject.toml").read_bytes()).hexdigest()[:12]
    folder = cache / f"wheels-{key}"
    if not folder.exists():
        for old in cache.glob("wheels-*"):
            shutil.rmtree(old)
        with tempfile.TemporaryDirectory(dir=cache) as made:
            _pip_wheel(str(repository), Path(made) / "wheels")
            for own in (Path(made) / "wheels").glob("edgescribe-*.whl"):
                own.unlink()
            (Path(made) / "wheels").rename(folder)
    return folder


def agent_wheel(repository: Path, folder: Path) -> Path:
    """This working tree as a wheel in `folder`."""
    _pip_wheel(str(repository), folder, "--no-deps")
    (wheel,) = folder.glob("edgescribe-*.whl")
    return wheel


def make_wheelhouse(folder: Path, version: str, agent: Path, others: Path, change: Change | None = None) -> Path:
    """A wheelhouse with the agent as `version`; returns `folder`, which holds one for the class of this machine."""
    target = folder / CLASS
    target.mkdir(parents=True)
    for wheel in others.glob("*.whl"):
        (target / wheel.name).hardlink_to(wheel)
    _repack(agent, target / f"edgescribe-{version}-py3-none-any.whl", version, change)
    lines = sorted(_locked(wheel) for wheel in target.glob("*.whl"))
    (target / "requirements.txt").write_text("".join(lines), encoding="utf-8")
    return folder


def _repack(source: Path, target: Path, version: str, change: Change | None) -> None:
    old = source.name.split("-")[1]
    changed = False
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as after:
        for name in before.namelist():
            data = before.read(name)
            renamed = name.replace(f"edgescribe-{old}.dist-info", f"edgescribe-{version}.dist-info")
            if name.endswith(("dist-info/METADATA", "agent/__init__.py", "dist-info/RECORD")):
                data = data.replace(f"Version: {old}".encode(), f"Version: {version}".encode())
                data = data.replace(f'__version__ = "{old}"'.encode(), f'__version__ = "{version}"'.encode())
                data = data.replace(f"edgescribe-{old}.dist".encode(), f"edgescribe-{version}.dist".encode())
            if change and name == change.module:
                assert change.old.encode() in data, f"{change.module} has changed: {change.old!r} is not in it"
                data = data.replace(change.old.encode(), change.new.encode())
                changed = True
            after.writestr(renamed, data)
    assert changed or change is None


def _locked(wheel: Path) -> str:
    name, version = wheel.name.split("-")[:2]
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


def _pip_wheel(requirement: str, folder: Path, *options: str) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(folder), *options, requirement]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
