"""The command line: what `edgescribe` understands, one module a verb in `agent/commands/`."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from agent import __version__
from agent.errors import AgentError

VERBS = (
    *("run", "demo", "transcribe", "models", "devices", "service", "config", "check"),
    *("doctor", "bench", "calibrate", "watch", "top"),
)

_EPILOG = "Try `edgescribe demo` first. Settings: docs/settings.md, `edgescribe config`."
_USAGE = 2
_NO_SYSTEM_FILE = 72
"""EX_OSFILE of sysexits.h."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line, as everything else is said."""

    def error(self, message: str) -> NoReturn:
        self.exit(_USAGE, f"edgescribe: {message}; see `{self.prog} --help`\n")


def parser() -> argparse.ArgumentParser:
    """The whole grammar of the command line."""
    top = _Parser(
        prog="edgescribe",
        description="Listens, transcribes on the device, publishes over MQTT.",
        epilog=_EPILOG,
    )
    top.add_argument("--version", action="version", version=f"edgescribe {__version__}")
    verbs = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for verb in VERBS:
        # By name, so that the list above is the only place that names them all.
        importlib.import_module(f"agent.commands.{verb}").add_parser(verbs)
    return top


def main(argv: Sequence[str]) -> int:
    """Run one command; every error that we understand is one line on standard error."""
    args = parser().parse_args(argv)
    try:
        status: int = args.run(args)
    except AgentError as error:
        for line in str(error).splitlines():
            print(f"edgescribe: {line}", file=sys.stderr)
        return error.exit_code
    except FileNotFoundError as error:
        if not str(error.filename).startswith("/proc/"):
            raise
        print(f"edgescribe: {error.filename}: cannot be read: mount /proc, which this command needs", file=sys.stderr)
        return _NO_SYSTEM_FILE
    return status
