"""Processes that do not outlive the one that started them, however it ends.

They are stopped (SIGSTOP) between clips: they would never see that their pipe is closed. The kernel ends them instead
(PR_SET_PDEATHSIG in prctl(2)), which a stopped process cannot miss.
"""

import os
import sys
from collections.abc import Sequence

_TIE = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]): os._exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""1 is PR_SET_PDEATHSIG, 9 is SIGKILL. What it asks for survives an exec, and a parent that died before is noticed."""


def tied(command: Sequence[str]) -> list[str]:
    """`command`, to be started by the calling thread: killed by the kernel as soon as that thread is gone."""
    return [sys.executable, "-I", "-S", "-c", _TIE, str(os.getpid()), *command]
