"""`python -m agent`, and the command `edgescribe`."""

import os
import sys

# To be set before numpy, OpenMP or CTranslate2 are loaded. Idle OpenMP threads spin by default, and with another
# process on one of two cores that made inference four times slower (docs/decisions/0002); the matrices of the voice
# activity detector are far too small to be worth a second thread.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def main() -> int:
    """Run the command line and return its exit status."""
    from agent.cli import main as run  # noqa: PLC0415 - after the environment is set, see above

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
