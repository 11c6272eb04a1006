"""Looks at this device and its settings: describes it, names the faults, and says how to repair them.

Exit status 1 if something must be repaired before the agent can work.

Examples:
    edgescribe doctor
    edgescribe doctor --mic
    sudo edgescribe doctor --json
"""

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

WIDTH: Final = 80
"""At most: a narrower terminal has less."""
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
        # Wrong settings are findings among others: look at the rest with the defaults.
        loaded, problem = Loaded(Settings(), origins={}, file=None), str(error)
    facts, source, seen = look(loaded, problem), loaded.settings.source, sys.stdout.isatty()
    findings = list(diagnose(facts))
    listens = seen if args.mic is None else args.mic
    if listens and not facts.source_problem and isinstance(source, AlsaSettings):
        print(f"listening for {sound.LISTEN_S:.0f} s: say something", file=sys.stderr, flush=True)
        findings += sound.findings(sound.listen(source))
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        width = max(LEAST_WIDTH, min(WIDTH, shutil.get_terminal_size().columns))
        for finding in findings:
            print("\n".join(lines(finding, colour=seen and colours() is not None, width=width)))
    return int(any(finding.status is Status.FAIL for finding in findings))


def lines(finding: Finding, *, colour: bool, width: int = WIDTH) -> Iterator[str]:
    """Return a finding in lines: status, subject, text; the remedy below. Long words, such as paths, stay whole."""
    status = f"{finding.status:<5}"
    shown = f"\033[{COLOURS[finding.status]}m{status}\033[0m" if colour else status
    wrapper = textwrap.TextWrapper(width - INDENT, break_long_words=False, break_on_hyphens=False)
    first, *rest = wrapper.wrap(finding.text)
    yield f"{shown} {finding.subject:<{INDENT - 6}}{first}"
    wrapper.initial_indent, wrapper.subsequent_indent = "→ ", "  "
    rest += wrapper.wrap(finding.remedy)
    yield from (" " * INDENT + line for line in rest)
