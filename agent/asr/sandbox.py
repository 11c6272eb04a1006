"""The start of an engine process: it confines itself, and only then imports numpy and loads a model.

    python -m agent.asr.sandbox FD [MODEL]      FD: the socket to the agent; MODEL: the verified file or folder

`agent/asr/engine_process.py` starts it. Native parsers read foreign files in it, so it may be taken over. Before that
it gives up the network, other files, other programs and its priority in memory. This needs no privileges and holds for
the life of the process: Landlock for files (from Linux 5.13, if enabled), a seccomp filter for sockets and programs,
setrlimit and /proc. If the kernel lacks one part, the others still hold.
"""

import ctypes
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

OOM_SCORE_ADJ: Final = 500
"""Of 1000: when memory runs out, the kernel kills this process first, and the agent can start it again."""
_SYSTEM: Final = ("/usr", "/lib", "/lib64", "/opt", "/sys", "/etc/ld.so.cache", "/etc/nv_tegra_release")
_PROC: Final = ("cpuinfo", "meminfo", "stat", "sys", "devices", "driver", "self")
"""Not all of /proc: it has the environments and memory maps of other processes."""
_DEVICES: Final = (Path("/dev"),)

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_PR_SET_NO_NEW_PRIVS = 38
_EPERM, _ENOSYS = 1, 38


@dataclass(frozen=True, slots=True)
class Confinement:
    """The parts of the confinement that the kernel supports."""

    network: bool
    """The process can open only local sockets, and start no program."""
    files: bool
    """The process can read only the listed folders, and write no file; from Linux 6.12 on, it can signal no other."""


def main(arguments: list[str]) -> int:
    """Confine this process, then serve until the agent closes the socket; return the exit status."""
    # A terminal sends these to all its processes; the agent decides when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    model = Path(arguments[1]) if len(arguments) > 1 else None
    confined = confine(readable(model), _DEVICES)
    # Only now: numpy and the engines start threads, and threads from before would stay unconfined.
    from agent.asr.child import serve  # noqa: PLC0415 - see above

    serve(int(arguments[0]), model, asdict(confined))
    return 0


def readable(model: Path | None) -> list[Path]:
    """Return the system, this interpreter, its packages and the model: no settings, no credentials, no home."""
    names = {
        *_SYSTEM,
        *(f"/proc/{name}" for name in _PROC),
        sys.prefix,
        sys.base_prefix,
        *sys.path,
        *os.environ.get("LD_LIBRARY_PATH", "").split(":"),
    }
    found = [Path(name) for name in sorted(names) if name]
    # A file of the model may be a link into the store.
    return [*found, model, model.resolve()] if model else found


def confine(readable: Iterable[Path], devices: Iterable[Path] = ()) -> Confinement:
    """Give up all rights except to read below `readable`, to use the files below `devices`, and to compute.

    Call it before the first thread starts: both filters hold for the calling thread and for those that it starts.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold speech
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
"""Rights by version of the interface. Version 5 adds ioctl on devices, 1 << 15, which stays allowed: CUDA needs it."""
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
    """Add a rule; a path that does not exist needs none."""
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
"""The same on every architecture. It opens sockets without their system call."""
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
