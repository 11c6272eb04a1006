"""A machine whose power can be cut: user-mode Linux with an SD card of its own, killed in the middle of writing.

What the guest's kernel had in its page cache is gone then, as with a real cut. What it had sent to the card is there:
the rig does not show what a card makes up that lies about its own cache.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PROGRAMS = ("linux.uml", "mkfs.ext4", "e2fsck", "debugfs")
CARD_BYTES = 256 << 20
_BOOT_S = 60.0


def missing() -> list[str]:
    """Programs that the rig needs and that are not here."""
    search = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    return [program for program in PROGRAMS if shutil.which(program, path=search) is None]


@dataclass(frozen=True, slots=True)
class Session:
    """From switching on to the cut."""

    found: int
    """Messages that the outbox had when it was opened."""
    condition: str
    """`sound`, or what the outbox said about its database then."""
    accepted: tuple[int, ...]
    """Numbers for which `put` had returned."""


class Machine:
    """One card, switched on and off."""

    def __init__(self, folder: Path, mode: str) -> None:
        self._folder = folder
        self._mode = mode
        self._image = folder / "card"
        self._mount = folder / "mount"
        self._mount.mkdir()
        with self._image.open("wb") as file:
            file.truncate(CARD_BYTES)
        subprocess.run(["/sbin/mkfs.ext4", "-q", self._image], check=True)

    def run(self, for_s: float) -> Session:
        """Switch on, let it speak for `for_s` from the first accepted word, and cut the power."""
        console = self._folder / "console"
        command = [
            *("linux.uml", "mem=256M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet"),
            *(f"ubda={self._image}", f"init={HERE / 'init'}", f"uml_dir={self._folder}"),
            *(f"CARD={self._mount}", f"PYTHON={sys.executable}", f"PYTHONPATH={ROOT}"),
            *(f"MODE={self._mode}", f"GUEST={HERE / 'guest.py'}", "con=null", "con0=null,fd:1", "ssl=null"),
        ]
        with console.open("wb") as log:
            guest = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            self._await_first_word(console, guest)
            time.sleep(for_s)
        finally:
            os.killpg(guest.pid, signal.SIGKILL)
            guest.wait()
        return _read(console)

    @staticmethod
    def _await_first_word(console: Path, guest: subprocess.Popen[bytes]) -> None:
        limit_s = time.monotonic() + _BOOT_S
        while b"ACCEPTED" not in console.read_bytes():
            if guest.poll() is not None or time.monotonic() > limit_s:
                msg = f"the guest did not come to its first word:\n{console.read_text(errors='replace')[-2_000:]}"
                raise RuntimeError(msg)
            time.sleep(0.02)

    def remove_card(self) -> Path:
        """Repair the card's file system as a boot would, and copy the state folder from it."""
        subprocess.run(["/sbin/e2fsck", "-fy", self._image], check=False, capture_output=True)
        copy = self._folder / "copy"
        copy.mkdir()
        subprocess.run(["/sbin/debugfs", "-R", f"rdump /state {copy}", self._image], check=True, capture_output=True)
        return copy / "state"


def _read(console: Path) -> Session:
    lines = console.read_text(errors="replace").replace("\r", "")
    if failure := re.search(r"^FAILED .*$", lines, re.MULTILINE):
        raise RuntimeError(failure[0])
    found = re.search(r"^FOUND (\d+) (\S+)$", lines, re.MULTILINE)
    if found is None:
        msg = f"the guest did not take stock:\n{lines[-2_000:]}"
        raise RuntimeError(msg)
    accepted = tuple(int(seq) for seq in re.findall(r"^ACCEPTED (\d+)\n", lines, re.MULTILINE))
    return Session(int(found[1]), found[2], accepted)
