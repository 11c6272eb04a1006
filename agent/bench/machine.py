"""What a run was measured on."""

import os
import platform
from importlib import metadata
from pathlib import Path

import psutil

from agent import __version__
from agent.bench.records import Machine

_PACKAGES = (
    "pywhispercpp",
    "ctranslate2",
    "faster-whisper",
    "wyoming-faster-whisper",
    "openai-whisper",
    "transformers",
    "torch",
    "numpy",
)


def describe(command: str) -> Machine:
    """This machine and its libraries; `command` is what was typed."""
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=psutil.virtual_memory().total,
        kernel=platform.release(),
        python=platform.python_version(),
        agent=__version__,
        packages={name: version for name in _PACKAGES if (version := _version(name))},
        command=command,
    )


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def _cpu() -> str:
    """The board's name where there is one (Raspberry Pi, Jetson), else the processor's."""
    board = Path("/proc/device-tree/model")
    if board.is_file():
        return board.read_text(encoding="utf-8", errors="replace").strip("\0\n")
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
