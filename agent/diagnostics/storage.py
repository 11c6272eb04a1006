"""The medium below the state folder, and what memory is left."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from agent.diagnostics.finding import Finding, Status
from agent.telemetry.host import wear_pct

WORN_PCT: Final = 90
SWAPPING_PCT: Final = 50.0
SCARCE: Final = 0.1
"""Of the memory; less is scarce."""


@dataclass(frozen=True, slots=True)
class Storage:
    """What the kernel says of it."""

    device: str
    """Such as `/dev/mmcblk0p2`."""
    file_system: str
    """Such as `ext4`."""
    read_only: bool
    errors: int | None
    """That ext4 has recorded since the last check; None for other file systems."""
    wear_pct: int | None
    """Of an eMMC's life; None for what does not tell, as SD cards do not."""


@dataclass(frozen=True, slots=True)
class Memory:
    """How much is left."""

    total_mb: int
    available_mb: int
    swapped_pct: float
    """Of the swap space that is used, 0–100; 0 where there is none."""


def look(folder: Path, root: Path = Path("/")) -> Storage | None:
    """The file system that `folder` lies on; None if the kernel does not say."""
    try:
        lines = (root / "proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    mounts = [line.split() for line in lines]
    below = [mount for mount in mounts if len(mount) > 3 and folder.is_relative_to(_unescaped(mount[1]))]  # noqa: PLR2004
    if not below:
        return None
    # The longest path is the nearest; of two mounted on the same one the later covers the earlier.
    device, _, file_system, options, *_ = max(reversed(below), key=lambda mount: len(mount[1]))
    counted = root / "sys/fs/ext4" / Path(device).name / "errors_count"
    errors = int(counted.read_text(encoding="ascii")) if counted.exists() else None
    return Storage(device, file_system, "ro" in options.split(","), errors, wear_pct(root))


def look_at_memory() -> Memory:
    """Now."""
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return Memory(memory.total >> 20, memory.available >> 20, float(swap.percent))


def _unescaped(path: str) -> str:
    r"""A path of /proc/mounts, in which a blank is `\040`."""
    return path.encode().decode("unicode_escape") if "\\" in path else path


def findings(storage: Storage) -> Iterator[Finding]:
    """Whether it can be relied on."""
    what = f"{storage.device}, {storage.file_system}"
    if storage.read_only:
        remedy = "see `dmesg` for why; check it (`fsck`) at the next boot, or replace the card"
        yield Finding(Status.FAIL, "storage", f"{what}, is mounted read-only", remedy)
    elif storage.errors:
        text = f"{what}, has recorded {storage.errors} errors"
        yield Finding(
            Status.WARN, "storage", text, "back it up; check it (`fsck`) at the next boot, or replace the card"
        )
    elif (storage.wear_pct or 0) >= WORN_PCT:
        text = f"{what}, has used up {storage.wear_pct} % of its life"
        yield Finding(Status.WARN, "storage", text, "back it up, and replace it soon")
    elif storage.file_system in ("tmpfs", "ramfs"):
        text = f"{what}: what waits for the broker is lost with the power"
        yield Finding(Status.WARN, "storage", text, "set state_dir to a folder on a medium")
    else:
        worn = f", {storage.wear_pct} % worn" if storage.wear_pct else ""
        yield Finding(Status.OK, "storage", f"{what}{worn}")


def memory_findings(memory: Memory) -> Iterator[Finding]:
    """Only what is wrong: how much the model needs is said elsewhere."""
    if memory.swapped_pct >= SWAPPING_PCT and memory.available_mb < memory.total_mb * SCARCE:
        left = f"{memory.available_mb} of {memory.total_mb} MB are available"
        text = f"{left}, and {memory.swapped_pct:.0f} % of the swap is used"
        remedy = "choose a smaller model, or stop what else runs here (`ps aux --sort=-rss | head`)"
        yield Finding(Status.WARN, "swap", text, remedy)
