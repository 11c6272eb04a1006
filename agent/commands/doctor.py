"""`edgescribe doctor`: what this machine is, what it makes use of, what is missing, and what to do about it."""

import argparse
import json
import shutil
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from agent.commands.options import add_settings_options, load_from
from agent.errors import ConfigError

if TYPE_CHECKING:
    from agent.config.settings import Settings
    from agent.diagnostics.finding import Finding
    from agent.diagnostics.service import Unit

WIDTH: Final = 110
"""As wide as it gets, and where nobody looks."""
LEAST_WIDTH: Final = 40
INDENT: Final = 20
COLOURS: Final = {"ok": "32", "warn": "33", "fail": "1;31"}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "doctor",
        help="what is missing, and what to do about it",
        description="What this machine is, what it makes use of, what is missing, and what to do about it.",
    )
    parser.add_argument("--json", action="store_true", help="the findings as a JSON list")
    parser.add_argument(
        "--mic",
        action=argparse.BooleanOptionalAction,
        help="listen to the microphone for 10 s (default: on a terminal, if it is free)",
    )
    add_settings_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Look, judge, print; 1 if something fails."""
    from agent.commands.check import problems_of_settings
    from agent.config.settings import Settings
    from agent.diagnostics import service
    from agent.diagnostics.checks import diagnose
    from agent.diagnostics.facts import look
    from agent.diagnostics.finding import Status

    problem = ""
    try:
        loaded = load_from(args)
        settings, problem = loaded.settings, "\n".join(problems_of_settings(loaded))
    except ConfigError as error:
        # A doctor who refuses to look because the settings are wrong would be of little use.
        settings, problem = Settings(), str(error)
    unit = service.look()
    facts = look(settings, problem, unit.says if unit else "")
    wants_to_listen = sys.stdout.isatty() if args.mic is None else args.mic
    findings = (
        *diagnose(facts),
        *_around(settings, unit),
        *(_microphone(settings) if wants_to_listen and not facts.source_problem else ()),
    )
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        colour, width = _terminal()
        print("\n".join(line for finding in findings for line in lines(finding, colour=colour, width=width)))
    return int(any(finding.status is Status.FAIL for finding in findings))


def _around(settings: "Settings", unit: "Unit | None") -> "Iterator[Finding]":
    """What is below it and around it: medium, memory, service."""
    from agent.config.layers import state_dir
    from agent.diagnostics import service, storage

    if medium := storage.look(state_dir(settings).absolute()):
        yield from storage.findings(medium)
    yield from storage.memory_findings(storage.look_at_memory())
    if unit:
        yield from service.findings(unit)


def _microphone(settings: "Settings") -> "Iterator[Finding]":
    """What it sounds like; nothing where there is none."""
    from agent.config.settings import AlsaSettings
    from agent.diagnostics.sound import LISTEN_S, findings, listen

    if isinstance(settings.source, AlsaSettings):
        print(f"listening for {LISTEN_S:.0f} s: say something", file=sys.stderr, flush=True)
        yield from findings(listen(settings.source))


def _terminal() -> tuple[bool, int]:
    """Whether colours are wanted, and how many columns there are to write in."""
    from agent.messages.presentation import colours

    if not sys.stdout.isatty():
        return False, WIDTH
    columns = shutil.get_terminal_size((WIDTH, 0)).columns
    return colours() is not None, max(LEAST_WIDTH, min(WIDTH, columns))


def lines(finding: "Finding", *, colour: bool, width: int = WIDTH) -> Iterator[str]:
    """One finding for the terminal: status, subject, text; the remedy below it. What is to be copied is never cut."""
    status = f"{finding.status:<5}"
    shown = f"\033[{COLOURS[finding.status]}m{status}\033[0m" if colour else status
    wrapper = textwrap.TextWrapper(width - INDENT, break_long_words=False, break_on_hyphens=False)
    first, *rest = wrapper.wrap(finding.text)
    yield f"{shown} {finding.subject:<{INDENT - 6}}{first}"
    wrapper.initial_indent, wrapper.subsequent_indent = "→ ", "  "
    rest += wrapper.wrap(finding.remedy)
    yield from (" " * INDENT + line for line in rest)
