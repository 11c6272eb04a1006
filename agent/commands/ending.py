"""How commands that have started other processes are ended."""

import contextlib
import signal
from collections.abc import Iterator

INTERRUPTED = 130
"""Exit status of a command that was ended by Ctrl-C or the like."""
_ENDINGS = (signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def ended_in_order() -> Iterator[None]:
    """SIGTERM and SIGHUP are as good as Ctrl-C within: KeyboardInterrupt. What `nohup` ignores stays ignored."""
    before = {number: signal.getsignal(number) for number in _ENDINGS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
