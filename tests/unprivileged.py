"""To be a user like any other for a while: root may read everything."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_VERSION_3 = 0x20080522
_DAC_OVERRIDE_AND_READ_SEARCH = 0b110
"""Bits of <linux/capability.h>: what lets root pass by owner and mode."""


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Capabilities(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


@contextmanager
def closed(folder: Path) -> Iterator[None]:
    """Nobody may look into `folder`, as into /etc/ssl/private, or into /home from a service; this thread neither."""
    mode = folder.stat().st_mode
    folder.chmod(0)
    try:
        with _like_any_other():
            yield
    finally:
        folder.chmod(mode)


@contextmanager
def _like_any_other() -> Iterator[None]:
    """Owner and mode count for this thread, whoever runs it."""
    libc, header, held = ctypes.CDLL(None, use_errno=True), _Header(_VERSION_3, 0), (_Capabilities * 2)()
    _call(libc.capget(ctypes.byref(header), held))
    before = held[0].effective
    held[0].effective = before & ~_DAC_OVERRIDE_AND_READ_SEARCH
    _call(libc.capset(ctypes.byref(header), held))
    try:
        yield
    finally:
        held[0].effective = before
        _call(libc.capset(ctypes.byref(header), held))


def _call(status: int) -> None:
    if status:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
