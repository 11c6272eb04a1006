"""Shows what the agent that runs here hears and does, and how the device is, until Ctrl-C.

That is level, voice activity, the utterance under way, and where its time goes. Needs no broker. In a pipe: one line a
second.
"""

import argparse
import os
import signal
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

from agent.commands.options import add_settings_options, seconds, settings_from
from agent.config.layers import state_dir
from agent.terminal.local_socket import likely_paths, snapshots
from agent.terminal.viewer import DeviceViewer, Mode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("--once", action="store_true", help="show it once")
    parser.add_argument("--json", action="store_true", help="as JSON, one object a line, four times a second")
    parser.add_argument("--seconds", type=seconds, metavar="S", help="end after so long (default: at Ctrl-C)")
    parser.add_argument(
        "--socket", type=Path, metavar="PATH", help="the agent's socket (default: that of these settings)"
    )
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Look until Ctrl-C, SIGTERM or the time is over; 0 then."""
    settings = settings_from(args)

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    paths = (args.socket,) if args.socket else likely_paths(state_dir(settings), os.environ)
    until_s = time.monotonic() + (args.seconds or float("inf"))
    mode = Mode.SCREEN if sys.stdout.isatty() else Mode.LINES
    if args.once:
        mode, until_s = Mode.PICTURE, 0.0
    if args.json:
        mode = Mode.JSON
    with closing(snapshots(paths)) as lines, DeviceViewer(mode) as viewer, suppress(KeyboardInterrupt):
        for line in lines:
            viewer.take(line)
            if time.monotonic() >= until_s:
                break
    return 0
