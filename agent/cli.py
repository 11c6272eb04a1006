"""The command line: what `edgescribe` understands, one module a verb in `agent/commands/`."""

import argparse
import importlib
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from agent import __version__
from agent.errors import AgentError

VERBS: Final = {
    "run": "listen, transcribe, publish, until stopped",
    "demo": "try it: a bundled recording, a broker of its own, and the messages that a subscriber receives",
    "transcribe": "write down recordings",
    "models": "list, fetch, verify and make models",
    "devices": "microphones, and the line for the settings",
    "service": "install, show or remove the systemd service",
    "config": "the effective settings, and where each one comes from",
    "check": "is the configuration right?",
    "doctor": "look for faults of this device, and say how to repair them",
    "bench": "measure error rate, speed, latency and memory of engines and models (needs the extra `bench`)",
    "calibrate": 'find the fastest good engine and model on this device, for engine.kind = "auto"',
    "watch": "what the devices say and how they are doing, live from the broker",
    "top": "what the agent on this device hears and does at this moment",
}
"""Every verb, with its line in `edgescribe --help`."""
_EPILOG: Final = """\
Try `edgescribe demo` first. Settings: docs/settings.md, `edgescribe config`.

Examples:
  edgescribe models pull --help
  edgescribe --print-completion bash > edgescribe.bash
"""
_EXAMPLES: Final = "\n\nExamples:\n"
_COLUMNS: Final = 80
_USAGE: Final = 2
_NO_SYSTEM_FILE: Final = 72
"""EX_OSFILE of sysexits.h."""


class _Help(argparse.HelpFormatter):
    """Keeps within 80 columns, also in a pipe. Paragraphs are filled; indented lines keep their breaks."""

    def __init__(self, prog: str, **more: Any) -> None:
        more["width"] = min(_COLUMNS, shutil.get_terminal_size().columns) - 2
        super().__init__(prog, **more)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        def fill(line: str) -> str:
            return textwrap.fill(line, width, subsequent_indent="        ", break_on_hyphens=False)

        blocks = text.strip().split("\n\n")
        filled = [
            "\n".join(map(fill, block.splitlines())) if "\n  " in block else textwrap.fill(block, width)
            for block in blocks
        ]
        return textwrap.indent("\n\n".join(filled), indent)


class _Parser(argparse.ArgumentParser):
    """Reports a wrong command line in one line, in the form of all other errors."""

    def __init__(self, **more: Any) -> None:
        more.setdefault("formatter_class", _Help)
        super().__init__(**more)

    def error(self, message: str) -> NoReturn:
        self.exit(_USAGE, f"edgescribe: {message}; see `{self.prog} --help`\n")


class _PrintCompletion(argparse.Action):
    """Prints the script with which a shell completes command lines, and ends the program."""

    def __call__(self, top: argparse.ArgumentParser, _namespace: object, shell: Any, _option: object = None) -> None:
        import shtab  # noqa: PLC0415 - needed only here

        whole = parser(*VERBS)
        for action in actions(whole):
            if action.type is Path:
                action.complete = shtab.FILE  # type: ignore[attr-defined] # how shtab marks the names of files
        print(shtab.complete(whole, shell))
        top.exit()


def actions(one: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Return all arguments of a parser and of the parsers below it."""
    for action in one._actions:  # noqa: SLF001 - argparse has no other way to list them
        yield action
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            for below in dict.fromkeys(action.choices.values()):
                yield from actions(below)


def parser(*verbs: str) -> argparse.ArgumentParser:
    """Return the grammar of the command line: the names of all verbs, and the arguments of the given ones.

    Only the modules of `verbs` are imported: numpy, pydantic and the engines take seconds to load on a Pi.
    """
    top = _Parser(
        prog="edgescribe",
        description="Listens, transcribes on the device, publishes over MQTT.",
        epilog=_EPILOG,
    )
    top.add_argument("--version", action="version", version=f"edgescribe {__version__}")
    top.add_argument(
        "--print-completion",
        choices=("bash", "zsh", "tcsh"),
        action=_PrintCompletion,
        help="print a script that completes command lines",
    )
    subparsers = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, line in VERBS.items():
        sub = subparsers.add_parser(name, help=line)
        if name in verbs:
            module = importlib.import_module(f"agent.commands.{name}")
            sub.description, heading, examples = str(module.__doc__).partition(_EXAMPLES)
            sub.epilog = heading + examples
            module.add_arguments(sub)
            sub.set_defaults(run=getattr(module, "run", None))  # else its actions set it
    return top


def main(argv: Sequence[str]) -> int:
    """Run one command; print a foreseen error as one line on standard error."""
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
