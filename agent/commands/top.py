"""Shows what the agent on this device hears and does, and how the device is doing, until Ctrl-C.

That is level, voice activity, the utterance under way, and where its time goes. Needs no broker. In a pipe: one line a
second.

Examples:
    sudo edgescribe top
    edgescribe top --once
    edgescribe top --json --seconds 10
"""

import argparse
import os
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

from agent.commands.options import add_seconds_option, add_settings_options, ended_in_order, settings_from
from agent.config.layers import state_dir
from agent.terminal.local_socket import likely_paths, snapshots
from agent.terminal.viewer import DeviceViewer, Mode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("--once", action="store_true", help="show it once")
    parser.add_argument("--json", action="store_true", help="as JSON, one object a line, four times a second")
    add_seconds_option(parser)
    parser.add_argument(
        "--socket", type=Path, metavar="PATH", help="the agent's socket (default: that of these settings)"
    )
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Look until Ctrl-C, SIGTERM or the time is over; 0 then."""
    paths = (args.socket,) if args.socket else likely_paths(state_dir(settings_from(args)), os.environ)
    until_s = time.monotonic() + (0 if args.once else args.seconds)
    mode = Mode.PICTURE if args.once else Mode.SCREEN if sys.stdout.isatty() else Mode.LINES
    with (
        suppress(KeyboardInterrupt),
        ended_in_order(),
        closing(snapshots(paths)) as lines,
        DeviceViewer(Mode.JSON if args.json else mode) as viewer,
    ):
        for line in lines:
            viewer.take(line)
            if time.monotonic() >= until_s:
                break
    return 0
