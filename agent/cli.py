"""The command line: what `edgescribe` understands, one module a verb in `agent/commands/`."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from agent import __version__
from agent.errors import AgentError

VERBS: Final = {
    "run": "listen, transcribe, publish, until stopped",
    "demo": "try it: a bundled recording, a broker of its own, and what a subscriber receives",
    "transcribe": "write down recordings",
    "models": "list, fetch, verify and make models",
    "devices": "microphones, and the line for the settings",
    "service": "run as a systemd service, and stop doing so",
    "config": "what is in force, and from where",
    "check": "is the configuration right?",
    "doctor": "what is missing, and what to do about it",
    "bench": "measure error rate, speed, latency and memory of engines and models (needs the extra `bench`)",
    "calibrate": 'measure what suits this device best, for engine.kind = "auto"',
    "watch": "what the devices say and how they are doing, live from the broker",
    "top": "what the agent on this device hears and does at this moment",
}
"""Every verb, with its line in `edgescribe --help`."""
_EPILOG = "Try `edgescribe demo` first. Settings: docs/settings.md, `edgescribe config`."
_USAGE = 2
_NO_SYSTEM_FILE = 72
"""EX_OSFILE of sysexits.h."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line, as everything else is said."""

    def error(self, message: str) -> NoReturn:
        self.exit(_USAGE, f"edgescribe: {message}; see `{self.prog} --help`\n")


def parser(verb: str = "") -> argparse.ArgumentParser:
    """The grammar of the command line: the names of all verbs, and the whole of `verb`.

    Only the module of `verb` is imported: numpy, pydantic and the engines take seconds to load on a Pi.
    """
    top = _Parser(
        prog="edgescribe",
        description="Listens, transcribes on the device, publishes over MQTT.",
        epilog=_EPILOG,
    )
    top.add_argument("--version", action="version", version=f"edgescribe {__version__}")
    verbs = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, line in VERBS.items():
        sub = verbs.add_parser(name, help=line)
        if name == verb:
            module = importlib.import_module(f"agent.commands.{name}")
            sub.description, sub.epilog = module.__doc__, getattr(module, "EPILOG", None)
            if sub.epilog:
                sub.formatter_class = argparse.RawDescriptionHelpFormatter
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    return top


def main(argv: Sequence[str]) -> int:
    """Run one command; every error that we understand is one line on standard error."""
    verb = next((argument for argument in argv if argument != "--"), "")
    args = parser(verb).parse_args(argv)
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
