"""What this machine is, what it makes use of, what is missing, and what to do about it."""

import argparse
import json
import shutil
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import Final

from agent.commands.options import add_settings_options, load_from
from agent.config.layers import Loaded
from agent.config.settings import AlsaSettings, Settings
from agent.diagnostics import Finding, Status, sound
from agent.diagnostics.checks import diagnose
from agent.diagnostics.facts import look
from agent.errors import ConfigError
from agent.messages.presentation import colours

WIDTH: Final = 110
"""At most; and where the output is no terminal."""
LEAST_WIDTH: Final = 40
INDENT: Final = 20
COLOURS: Final = {"ok": "32", "warn": "33", "fail": "1;31"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("--json", action="store_true", help="the findings as a JSON list")
    parser.add_argument(
        "--mic",
        action=argparse.BooleanOptionalAction,
        help="listen to the microphone for 10 s (default: on a terminal, if it is free)",
    )
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Look, judge, print; 1 if something fails."""
    try:
        loaded, problem = load_from(args), ""
    except ConfigError as error:
        # A doctor who refuses to look because the settings are wrong would be of little use.
        loaded, problem = Loaded(Settings(), origins={}, file=None), str(error)
    facts, source = look(loaded, problem), loaded.settings.source
    findings = list(diagnose(facts))
    wants_to_listen = sys.stdout.isatty() if args.mic is None else args.mic
    if wants_to_listen and not facts.source_problem and isinstance(source, AlsaSettings):
        print(f"listening for {sound.LISTEN_S:.0f} s: say something", file=sys.stderr, flush=True)
        findings += sound.findings(sound.listen(source))
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        seen = sys.stdout.isatty()
        columns = shutil.get_terminal_size((WIDTH, 0)).columns if seen else WIDTH
        width, colour = max(LEAST_WIDTH, min(WIDTH, columns)), seen and colours() is not None
        print("\n".join(line for finding in findings for line in lines(finding, colour=colour, width=width)))
    return int(any(finding.status is Status.FAIL for finding in findings))


def lines(finding: Finding, *, colour: bool, width: int = WIDTH) -> Iterator[str]:
    """One finding for the terminal: status, subject, text; the remedy below it. What is to be copied is never cut."""
    status = f"{finding.status:<5}"
    shown = f"\033[{COLOURS[finding.status]}m{status}\033[0m" if colour else status
    wrapper = textwrap.TextWrapper(width - INDENT, break_long_words=False, break_on_hyphens=False)
    first, *rest = wrapper.wrap(finding.text)
    yield f"{shown} {finding.subject:<{INDENT - 6}}{first}"
    wrapper.initial_indent, wrapper.subsequent_indent = "→ ", "  "
    rest += wrapper.wrap(finding.remedy)
    yield from (" " * INDENT + line for line in rest)
