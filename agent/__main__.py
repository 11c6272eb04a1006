"""`python -m agent`, and the command `edgescribe`."""

import io
import os
import sys

# To be set before numpy, OpenMP or CTranslate2 are loaded. Idle OpenMP threads spin by default, and with another
# process on one of two cores that made inference four times slower (docs/decisions/0002); the matrices of the voice
# activity detector are far too small to be worth a second thread.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


_IO_ERROR = 74
_INTERRUPTED = 130
_BROKEN_PIPE = 141


def main() -> int:
    """Run the command line and return its exit status: nothing that befalls its output, and no Ctrl-C, is a trace."""
    _prepare_stdout()
    try:
        status = _run()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except OSError as error:
        if not _stdout_fails():
            raise
        # The reader of our output (`head`, say) may be gone: then nobody wants to hear of it.
        if isinstance(error, BrokenPipeError):
            return _BROKEN_PIPE
        print(f"edgescribe: standard output cannot be written: {error.strerror}", file=sys.stderr)  # noqa: T201
        return _IO_ERROR
    return status


def _run() -> int:
    # After the environment is set, see above; and this late, because it takes a while, and Ctrl-C may come meanwhile.
    from agent.cli import main as run  # noqa: PLC0415

    try:
        return run(sys.argv[1:])
    except SystemExit as ended:  # the way out of argparse and rich, with what they printed still to be written
        return ended.code if isinstance(ended.code, int) else 0


def _prepare_stdout() -> None:
    """Printing is to fail neither for an alphabet that has no arrow nor for a descriptor that is closed."""
    old = sys.stdout
    if old is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - for as long as the process lives
    elif isinstance(old, io.TextIOWrapper) and old.write_through:
        # PYTHONUNBUFFERED: lines are as good, and what could not be written is kept for `_stdout_fails`.
        encoding, descriptor = old.encoding, old.fileno()
        sys.stdout = open(  # noqa: SIM115 - likewise
            descriptor, "w", buffering=1, encoding=encoding, errors="backslashreplace", closefd=False
        )
    elif isinstance(old, io.TextIOWrapper):
        old.reconfigure(errors="backslashreplace")


def _stdout_fails() -> bool:
    """True if what is printed cannot be written; it is then dropped, or Python would complain of it at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
