"""Where an engine process begins: it gives up what it does not need, and only then loads anything foreign.

python -m agent.asr.engine_child FD [MODEL]

Started by `agent/asr/engine_process.py`; FD is the socket to it, MODEL the verified file or folder.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Final

from agent.asr.sandbox import confine

_SYSTEM: Final = ("/usr", "/lib", "/lib64", "/opt", "/sys", "/etc/ld.so.cache", "/etc/nv_tegra_release")
_PROC: Final = ("cpuinfo", "meminfo", "stat", "sys", "devices", "driver", "self")
"""Not all of it: the environments and memory maps of other processes lie there."""
_DEVICES: Final = (Path("/dev"),)


def main(arguments: list[str]) -> int:
    """Serve until the parent closes; return the exit status."""
    # A terminal sends these to everybody; when to end is the parent's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    model = Path(arguments[1]) if len(arguments) > 1 else None
    confined = confine(readable(model), _DEVICES)
    # Only now, as numpy and the engines start threads, and those would stay unconfined.
    from agent.asr.child import serve  # noqa: PLC0415 - see above

    serve(int(arguments[0]), model, confined)
    return 0


def readable(model: Path | None) -> list[Path]:
    """The system, this interpreter and its packages, and the model: no settings, no credentials, no one's home."""
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
