"""`python -m agent`, and the command `edgescribe`."""

import os
import sys

# Set these before numpy, OpenMP or CTranslate2 load. Idle OpenMP threads spin by default: with another process on one
# of two cores, inference took four times as long (docs/decisions/0002). The matrices of the voice activity detector are
# too small for a second thread.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


_IO_ERROR = 74
_INTERRUPTED = 130
_BROKEN_PIPE = 141


def main() -> int:
    """Run the command line and return its exit status. Ctrl-C and a failing standard output leave no traceback."""
    _prepare_stdout()
    try:
        status = _run()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except OSError as error:
        if not _stdout_fails():
            raise
        if isinstance(error, BrokenPipeError):  # the reader (`head`, say) has left: it needs no message
            return _BROKEN_PIPE
        print(f"edgescribe: standard output cannot be written: {error.strerror}", file=sys.stderr)  # noqa: T201
        return _IO_ERROR
    return status


def _run() -> int:
    # After the environment is set, see above. It takes a while: Ctrl-C may come in the middle.
    from agent.cli import main as run  # noqa: PLC0415

    try:
        return run(sys.argv[1:])
    except SystemExit as ended:  # argparse and rich end like this; `main` still has to flush their output
        return ended.code if isinstance(ended.code, int) else 0


def _prepare_stdout() -> None:
    """Make printing work without a descriptor and with any encoding.

    Lines are buffered: after an error the buffer keeps them for `_stdout_fails`.
    """
    old = sys.stdout
    if old is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - open until the process ends
    else:
        sys.stdout = open(  # noqa: SIM115 - open until the process ends
            old.fileno(), "w", buffering=1, encoding=old.encoding, errors="backslashreplace", closefd=False
        )


def _stdout_fails() -> bool:
    """Return whether standard output cannot be written. If so, drop the output: Python would complain at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
