"""The command line: `python -m supply --help`."""

import argparse
import os
import sys
from pathlib import Path

from supply.commands import say
from supply.cpus import CLASSES, INDEX, NATIVE
from supply.errors import SupplyError
from supply.house import LOCKS, NO_EXTRA, ROOT, Order, make
from supply.target import ARCHITECTURES, PYTHONS, running_python, target


def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    args = _parser().parse_args(arguments)
    try:
        python = args.python or (running_python() if args.arch == os.uname().machine else PYTHONS[0])
        folder = make(Order(target(args.arch, args.cpu, python), args.extra, args.out.absolute()))
    except SupplyError as error:
        say(f"wheelhouse: {error}")
        return 1
    wheels = list(folder.glob("*.whl"))
    size_mb = sum(wheel.stat().st_size for wheel in wheels) / 1e6
    say(f"{folder}: {len(wheels)} wheels, {size_mb:.0f} MB. On the device, in a virtual environment:")
    say(f"  pip install --no-index --find-links {folder.name} --require-hashes -r {folder.name}/requirements.txt")
    return 0


def _parser() -> argparse.ArgumentParser:
    here = os.uname().machine
    classes = "; ".join(f"{one.name} ({one.boards})" for one in CLASSES)
    parser = argparse.ArgumentParser(
        prog="scripts/wheelhouse",
        description="Make a folder of wheels for a kind of device: locked, compiled for its CPU, installable offline.",
        epilog=f"CPU classes: {classes}; {NATIVE} (this machine); {INDEX} (pywhispercpp from the package index).",
    )
    parser.add_argument("--arch", default=here, help=f"{' or '.join(ARCHITECTURES)}; default: this machine's, {here}")
    parser.add_argument("--cpu", default=NATIVE, help=f"class of CPU, see below; default: {NATIVE}")
    parser.add_argument(
        "--python",
        help=f"the device's Python; default: {PYTHONS[0]}, here the running one, {running_python()}",
    )
    parser.add_argument("--extra", choices=sorted(LOCKS), default=NO_EXTRA, help="the extra to install with the agent")
    parser.add_argument("--out", type=Path, default=ROOT / "wheelhouse", help="folder of the wheelhouses")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
