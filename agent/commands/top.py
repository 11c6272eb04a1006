"""`edgescribe top`: what the agent on this device hears and does at this moment, and how the device is."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands.options import add_settings_options, seconds, settings_from

if TYPE_CHECKING:
    from agent.terminal.feed import Feed
    from agent.terminal.snapshot import Glance

LINE_EVERY_S = 1.0
"""In a pipe."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb `top`."""
    parser = subparsers.add_parser(
        "top",
        help="what the agent on this device hears and does at this moment",
        description="Shows level, voice activity, the utterance under way, where its time goes, and how the device is, "
        "from the agent that runs here, until Ctrl-C. Needs no broker. In a pipe: one line a second.",
    )
    parser.add_argument("--once", action="store_true", help="show it once")
    parser.add_argument("--json", action="store_true", help="as JSON, one object a line, four times a second")
    parser.add_argument("--seconds", type=seconds, metavar="S", help="end after so long (default: at Ctrl-C)")
    parser.add_argument(
        "--socket", type=Path, metavar="PATH", help="the agent's socket (default: that of these settings)"
    )
    add_settings_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Look until Ctrl-C, SIGTERM or the time is over; 0 then."""
    settings = settings_from(args)

    from agent.config.layers import state_dir
    from agent.terminal.feed import Feed
    from agent.terminal.socket_address import likely_paths

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    paths = (args.socket,) if args.socket else likely_paths(state_dir(settings), os.environ)
    until_s = time.monotonic() + (args.seconds or float("inf"))
    with Feed(paths) as feed:
        try:
            if args.json:
                _print_json(feed, until_s, once=args.once)
            elif args.once:
                _print_picture(next(_glances(feed, until_s)))
            elif sys.stdout.isatty():
                _show(feed, until_s)
            else:
                _print_lines(feed, until_s)
        except KeyboardInterrupt:
            pass
    return 0


def _glances(feed: "Feed", until_s: float) -> "Iterator[Glance]":
    from agent.terminal.snapshot import Glance

    while True:
        yield Glance.model_validate_json(feed.read())
        if time.monotonic() >= until_s:
            return


def _print_json(feed: "Feed", until_s: float, *, once: bool) -> None:
    while True:
        print(feed.read().decode(), flush=True)
        if once or time.monotonic() >= until_s:
            return


def _print_lines(feed: "Feed", until_s: float) -> None:
    from agent.terminal.device_view import line

    due_s = 0.0
    for glance in _glances(feed, until_s):
        if time.monotonic() >= due_s:
            due_s = time.monotonic() + LINE_EVERY_S
            print(line(glance), flush=True)


def _print_picture(glance: "Glance") -> None:
    from rich.console import Console

    from agent.terminal.device_view import picture

    Console(highlight=False).print(picture(glance))


def _show(feed: "Feed", until_s: float) -> None:
    from rich.console import Console
    from rich.live import Live

    from agent.terminal.device_view import picture

    with Live(console=Console(highlight=False), screen=True, auto_refresh=False) as live:
        for glance in _glances(feed, until_s):
            live.update(picture(glance), refresh=True)
