"""What an engine process gives up before it opens a model: network, foreign files, other programs, its place in memory.

It runs native parsers on files that somebody else made, so it is treated as if it could be taken over. Everything here
works without privileges and stays for the life of the process: Landlock for files (Linux 5.13, where it is enabled),
a seccomp filter for sockets and programs, the rest by setrlimit and /proc. Where the kernel has not got a part, the
others still hold.
"""

import ctypes
import os
import platform
import resource
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

OOM_SCORE_ADJ: Final = 500
"""Of 1000: when memory runs out the kernel takes this process, which can be started again, before the agent."""

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_PR_SET_NO_NEW_PRIVS = 38
_EPERM, _ENOSYS = 1, 38


@dataclass(frozen=True, slots=True)
class Confinement:
    """What took effect."""

    network: bool
    """No socket but a local one, and no other program, can be opened."""
    files: bool
    """Only the listed folders can be read, and nothing can be written; from Linux 6.12 on, nobody be sent signals."""


def confine(readable: Iterable[Path], devices: Iterable[Path] = ()) -> Confinement:
    """Give up everything but reading below `readable`, using what is below `devices`, and computing.

    Has to be called before the first thread starts: each of the two filters holds for the thread that sets it and for
    those that it starts.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold what was said
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE_ADJ), encoding="ascii")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return Confinement(network=False, files=False)
    files = _confine_files(libc, readable, devices)
    return Confinement(network=_confine_calls(libc), files=files)


# Files: landlock(7), https://docs.kernel.org/userspace-api/landlock.html

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
"""The same on every architecture."""
_LANDLOCK_VERSION = 1
_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_ALL_BY_ABI: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
"""Rights that each version of the interface knows; from 5 on also ioctl on devices, 1 << 15, which CUDA needs."""
_FIRST_WITH_SCOPES = 6
_NO_FOREIGN_SIGNALS = 1 << 1
_FILE_ONLY = _EXECUTE | _WRITE_FILE | _READ_FILE


def _confine_files(libc: ctypes.CDLL, readable: Iterable[Path], devices: Iterable[Path]) -> bool:
    version = libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_LANDLOCK_VERSION))
    if version < 1:
        return False
    scoped = struct.pack("=QQ", 0, _NO_FOREIGN_SIGNALS) if version >= _FIRST_WITH_SCOPES else b""
    handled = struct.pack("=Q", _ALL_BY_ABI[min(version, 4)]) + scoped
    ruleset = libc.syscall(_LANDLOCK_CREATE, handled, ctypes.c_size_t(len(handled)), ctypes.c_uint32(0))
    if ruleset < 0:
        return False
    try:
        for path in readable:
            _allow(libc, ruleset, path, _EXECUTE | _READ_FILE | _READ_DIR)
        for path in devices:
            _allow(libc, ruleset, path, _WRITE_FILE | _READ_FILE | _READ_DIR)
        return bool(libc.syscall(_LANDLOCK_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0)) == 0)
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    """Add a rule; what does not exist needs none."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            rule = struct.pack("=Qi", rights if path.is_dir() else rights & _FILE_ONLY, descriptor)
            libc.syscall(_LANDLOCK_ADD, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint32(0))
        finally:
            os.close(descriptor)


# System calls: seccomp(2), https://docs.kernel.org/userspace-api/seccomp_filter.html


@dataclass(frozen=True, slots=True)
class _Machine:
    audit: int
    """AUDIT_ARCH_… of linux/audit.h."""
    socket: int
    refused: tuple[int, ...]
    """execve, execveat, ptrace, process_vm_readv, process_vm_writev: other programs, and looking into them."""


_IO_URING_SETUP = 425
"""The same on every architecture. It opens sockets without the system call for that."""
_MACHINES: Final = {
    "x86_64": _Machine(0xC000003E, socket=41, refused=(59, 322, 101, 310, 311)),
    "aarch64": _Machine(0xC00000B7, socket=198, refused=(221, 281, 117, 270, 271)),
    "armv7l": _Machine(0x40000028, socket=281, refused=(11, 387, 26, 376, 377)),
}
_FIRST_FOREIGN: Final = 0x40000000
"""Numbers from here on belong to another interface of the same machine (x32)."""
_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000
_AF_UNIX = 1


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _confine_calls(libc: ctypes.CDLL) -> bool:
    machine = _MACHINES.get(platform.machine())
    if machine is None or struct.calcsize("P") != (4 if machine.audit == _MACHINES["armv7l"].audit else 8):
        return False
    instructions = b"".join(_filter(machine))
    program = _Program(len(instructions) // 8, instructions)
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) == 0)


def _filter(machine: _Machine) -> list[bytes]:
    """Classic BPF over `struct seccomp_data`. A jump counts the instructions that it skips, if true and if false."""
    return [
        _step(_LOAD, _ARCHITECTURE_AT),
        _step(_JUMP_EQUAL, machine.audit, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER_AT),
        _step(_JUMP_GREATER_EQUAL, _FIRST_FOREIGN, 0, 1),
        _step(_RETURN, _FAIL | _ENOSYS),
        _step(_JUMP_EQUAL, _IO_URING_SETUP, 0, 1),
        _step(_RETURN, _FAIL | _ENOSYS),
        *(
            step
            for call in machine.refused
            for step in (_step(_JUMP_EQUAL, call, 0, 1), _step(_RETURN, _FAIL | _EPERM))
        ),
        _step(_JUMP_EQUAL, machine.socket, 0, 3),
        _step(_LOAD, _FIRST_ARGUMENT_AT),
        _step(_JUMP_EQUAL, _AF_UNIX, 1, 0),
        _step(_RETURN, _FAIL | _EPERM),
        _step(_RETURN, _ALLOW),
    ]


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
