"""The state folder: one agent at a time."""

import errno
import fcntl
import logging
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from agent.errors import ConfigError
from agent.mqtt.disk_condition import Condition, StorageDown

log = logging.getLogger(__name__)

_LOCK: Final = "outbox.lock"
_FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST})


class Claim:
    """Keeps other agents out of a state folder for as long as it is held, or this process lives.

    A folder that cannot be claimed because the disk is full or read-only is used nevertheless: then there is nothing
    that two agents could spoil.

    Raises:
        ConfigError: another agent holds it, or we may not use it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._handle: int | None = None
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.truncate(self._handle, 0)
            os.pwrite(self._handle, b"%d\n" % os.getpid(), 0)
        except BlockingIOError as error:
            holder = os.pread(self._handle or -1, 32, 0).decode(errors="replace").strip() or "unknown"
            self.release()
            raise ConfigError(
                f"state_dir: {folder} is in use by another edgescribe (process {holder}): stop that one, or set"
                " state_dir to a folder of its own"
            ) from error
        except OSError as error:
            if error.errno in _FORBIDDEN:
                self.release()
                raise ConfigError(
                    f"state_dir: cannot write to {folder} ({error.strerror}): make it a folder that belongs to the user"
                    " of the service"
                ) from error
            log.debug(f"outbox: cannot claim {folder} ({error.strerror})")

    def renew(self) -> None:
        """Claim the folder again if its lock was deleted.

        Raises:
            StorageDown: another agent was faster, or we may not use the folder any more.
        """
        if self._handle is None or _is_file(self._handle, self._folder / _LOCK):
            return
        try:
            fresh = Claim(self._folder)
        except ConfigError as error:
            raise StorageDown(Condition.READ_ONLY, str(error)) from error
        self.release()
        self._handle = fresh._handle

    def release(self) -> None:
        """Let others in; idempotent."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)


def _is_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


def runtime_dir(environment: Mapping[str, str]) -> Path | None:
    """A folder in memory that outlives this process: `$RUNTIME_DIRECTORY` (systemd), else `$XDG_RUNTIME_DIR`.

    systemd removes the first one when the service stops, unless the unit says `RuntimeDirectoryPreserve=restart`.
    """
    if folders := environment.get("RUNTIME_DIRECTORY"):
        return Path(folders.split(":")[0])
    home = environment.get("XDG_RUNTIME_DIR")
    return Path(home) if home else None


def memory_file(folder: Path, state_folder: Path) -> Path:
    """A name in `folder` that agents with other state folders do not use."""
    return folder / f"edgescribe-sequence-{zlib.crc32(str(state_folder.absolute()).encode()):08x}"
