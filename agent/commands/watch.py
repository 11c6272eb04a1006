"""Shows transcripts, health and telemetry of one device or of all, as the broker delivers them, until Ctrl-C.

Broker, TLS and credentials are those of the settings (mqtt.*). In a pipe: one line an event.

Examples:
    edgescribe watch --host broker.lan --username me --password-file secret
    edgescribe watch --device kitchen --json | jq .
"""

import argparse
import re
import signal
import sys
import time
from contextlib import suppress

from agent.commands.options import (
    add_seconds_option,
    add_settings_options,
    ended_in_order,
    password_from,
    settings_from,
)
from agent.errors import ConfigError
from agent.messages import identity
from agent.mqtt.subscriber import Subscriber
from agent.terminal.viewer import FleetViewer, Mode

POLL_S = 0.2
_DEVICE = re.compile(r"[a-z0-9-]{1,36}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("--host", help="the broker (default: mqtt.host)")
    parser.add_argument("--port", type=int, help="its port (default: mqtt.port)")
    parser.add_argument("--username", help="user at the broker (default: mqtt.username)")
    parser.add_argument(
        "--password-file", metavar="FILE", help="its password, - for standard input (default: mqtt.password)"
    )
    parser.add_argument("--device", metavar="ID", help="watch this device only (default: all)")
    parser.add_argument("--last", type=int, default=15, metavar="N", help="transcripts on the screen")
    parser.add_argument("--json", action="store_true", help="every message as one JSON object a line")
    parser.add_argument("--plain", action="store_true", help="lines, even in a terminal")
    add_seconds_option(parser)
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Watch until Ctrl-C, SIGTERM or the time is over; 0 then."""
    if args.device is not None and not _DEVICE.fullmatch(args.device):
        raise ConfigError(f"--device {args.device}: an id has a-z, 0-9 and -, at most 36 characters")
    settings = settings_from(
        args,
        mqtt__host=args.host,
        mqtt__port=args.port,
        mqtt__username=args.username,
        mqtt__password=args.password_file and password_from(args.password_file),
    )
    mode = Mode.LINES if args.plain or not sys.stdout.isatty() else Mode.SCREEN
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background job starts with SIGINT ignored
    with (
        Subscriber(
            settings.mqtt, f"edgescribe/v1/{args.device or '+'}/#", identity.device_id(settings.device.id)
        ) as subscriber,
        suppress(KeyboardInterrupt),
        ended_in_order(),
        FleetViewer(Mode.JSON if args.json else mode, subscriber.address, max(1, args.last)) as viewer,
    ):
        until_s = time.monotonic() + args.seconds
        while (remaining_s := until_s - time.monotonic()) > 0:
            viewer.tick(subscriber.overrun)
            if event := subscriber.event(min(POLL_S, remaining_s)):
                viewer.take(event)
    return 0
