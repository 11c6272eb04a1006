"""Makes a wheelhouse with all the files that a device needs."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from supply.commands import printed, run, say
from supply.cpus import find
from supply.errors import SupplyError
from supply.index import download_source, download_wheels
from supply.licences import licence_list
from supply.locks import needed, read_lock
from supply.native import Job, whisper_wheel
from supply.sbom import parts_list
from supply.target import Target
from supply.toolchain import toolchain
from supply.wheel import Wheel, read_wheel

ROOT: Final = Path(__file__).parent.parent
NO_EXTRA: Final = "none"
LOCKS: Final = {NO_EXTRA: ROOT / "locks/agent.txt", "faster-whisper": ROOT / "locks/faster-whisper.txt"}
"""Locks by the extra that is installed with the agent and its small extras: `faster-whisper` has CTranslate2."""
_WHISPER: Final = "pywhispercpp"


@dataclass(frozen=True, slots=True)
class Order:
    """A wheelhouse to make, and its place."""

    target: Target
    extra: str
    """A key of `LOCKS`."""
    out: Path
    """Folder of all wheelhouses."""

    @property
    def name(self) -> str:
        """Name of the wheelhouse's folder: that of the target, and the extra if there is one."""
        return self.target.folder if self.extra == NO_EXTRA else f"{self.target.folder}-{self.extra}"


def make(order: Order) -> Path:
    """Make the wheelhouse, and replace an earlier one; return its folder.

    Raises:
        SupplyError: it cannot be made; the earlier one stays.
    """
    target, work = order.target, order.out / ".work"
    log, fresh = work / f"{order.name}.log", work / f"{order.name}.new"
    for old in (log, fresh):
        shutil.rmtree(old, ignore_errors=True) if old.is_dir() else old.unlink(missing_ok=True)
    fresh.mkdir(parents=True)
    cpu = find(target.cpu, target.arch)
    tools = toolchain(target, work, log) if cpu else None
    locked = {one.name: one for one in needed(read_lock(LOCKS[order.extra]), target)}
    from_index = [one for one in locked.values() if cpu is None or one.name != _WHISPER]
    say(f"fetching {len(from_index)} wheels")
    download_wheels(from_index, target, fresh, log)
    if cpu and tools:
        job = Job(target, cpu, tools, work, log)
        shutil.copy(whisper_wheel(job, download_source(locked[_WHISPER], work / "sources", log)), fresh)
    build_agent(fresh, log)
    _describe(fresh, target)
    final = order.out / order.name
    shutil.rmtree(final, ignore_errors=True)
    fresh.rename(final)
    return final


def build_agent(folder: Path, log: Path, root: Path = ROOT) -> None:
    """Build this project's own wheel, from its tree at `root`, into `folder`."""
    say("building edgescribe")
    hatchling = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    run(hatchling, log, folder=root, environment={"SOURCE_DATE_EPOCH": str(epoch_s())})


def epoch_s() -> int:
    """Return the time stamp of the build: SOURCE_DATE_EPOCH, else the last commit's, else the lock's."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if given:
        if not given.isdigit():
            raise SupplyError(f"SOURCE_DATE_EPOCH is {given!r}: give seconds since 1970, or unset it")
        return int(given)
    if (ROOT / ".git").exists():
        return int(printed(["git", "-C", ROOT, "log", "-1", "--format=%ct"]))
    return int(LOCKS[NO_EXTRA].stat().st_mtime)


def wheels_in(folder: Path) -> tuple[Wheel, ...]:
    """Return the wheels of a folder, sorted by name."""
    return tuple(sorted((read_wheel(path) for path in folder.glob("*.whl")), key=lambda wheel: wheel.name))


def _describe(folder: Path, target: Target) -> None:
    """Write the requirements, the parts list and the licences of the wheels in `folder`."""
    wheels = wheels_in(folder)
    lines = "".join(f"{wheel.requirement()}\n" for wheel in wheels)
    (folder / "requirements.txt").write_text(lines, encoding="utf-8")
    (folder / "sbom.cdx.json").write_text(parts_list(wheels, target, epoch_s()), encoding="utf-8")
    (folder / "LICENCES.md").write_text(licence_list(wheels), encoding="utf-8")
