"""Writes the manual page of `edgescribe` from the parser of its command line.

python -m docs.man_page > edgescribe.1 && man ./edgescribe.1
"""

import argparse
from collections.abc import Iterator

from agent import __version__
from agent.cli import VERBS, parser

_TAIL = """\
.SH EXIT STATUS
0: success. 1: another error. 2: wrong command line. 65: audio that cannot be read. 69: no microphone, or no broker.
70: the engine failed. 73: the service cannot be installed. 74: standard output cannot be written.
78: wrong settings, or no usable model. 130: interrupted.
.SH FILES
.TP
.I /etc/edgescribe/config.toml
The settings, see docs/settings.md.
.TP
.I /var/lib/edgescribe
The state folder of the service: models, calibration, and messages that wait for the broker.
"""


def man_page() -> str:
    """Return the page in the language of man(7)."""
    top = parser(*VERBS)
    lines = [
        f'.TH EDGESCRIBE 1 "" "edgescribe {__version__}"',
        ".SH NAME",
        r"edgescribe \- on\-device speech to text, published over MQTT",
        ".SH SYNOPSIS",
        ".B edgescribe",
        ".I COMMAND",
        "[options]",
        ".SH DESCRIPTION",
        *_paragraphs(top.description),
        ".SH OPTIONS",
        *_arguments(top),
        ".SH COMMANDS",
        *(line for sub in _below(top) for line in _command(sub)),
    ]
    return "\n".join(lines) + "\n" + _TAIL


def _command(command: argparse.ArgumentParser) -> Iterator[str]:
    """Return the section of a verb, then those of its actions."""
    yield f".SS {_escaped(command.prog.partition(' ')[2])}"
    yield from _paragraphs(command.description)
    yield from _arguments(command)
    yield from _paragraphs(command.epilog)
    for action in _below(command):
        yield from _command(action)


def _below(command: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """Return the parsers of the verbs or actions, without their aliases."""
    found = (one for one in command._actions if isinstance(one, argparse._SubParsersAction))  # noqa: SLF001
    return list(dict.fromkeys(parser for one in found for parser in one.choices.values()))


def _arguments(command: argparse.ArgumentParser) -> Iterator[str]:
    formatter = argparse.HelpFormatter(command.prog)
    for action in command._actions:  # noqa: SLF001 - argparse has no other way to list them
        if not isinstance(action, argparse._SubParsersAction | argparse._HelpAction):  # noqa: SLF001
            yield ".TP"
            yield rf"\fB{_escaped(formatter._format_action_invocation(action))}\fR"  # noqa: SLF001
            yield _escaped(formatter._expand_help(action)) if action.help else r"\&"  # noqa: SLF001


def _paragraphs(text: str | None) -> Iterator[str]:
    """Return paragraphs; indented lines keep their breaks."""
    for block in (text or "").strip().split("\n\n"):
        if block:
            yield ".PP"
        for line in block.splitlines():
            if line.startswith(" "):
                yield ".br"
            yield _escaped(line)


def _escaped(text: str) -> str:
    shown = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-")
    return rf"\&{shown}" if shown.startswith((".", "'")) else shown


if __name__ == "__main__":
    print(man_page(), end="")
