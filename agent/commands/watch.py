"""Shows transcripts, health and telemetry of one device or of all, as the broker delivers them, until Ctrl-C.

Broker, TLS and credentials are those of the settings (mqtt.*). In a pipe: one line an event.
"""

import argparse
import re
import signal
import sys
import threading
import time

from agent.commands.options import add_settings_options, load_from, password_from, seconds
from agent.errors import ConfigError
from agent.messages import identity
from agent.mqtt.subscriber import Subscriber
from agent.terminal.viewer import FleetViewer, Mode

POLL_S = 0.2
DEFAULT_LAST = 15
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
    parser.add_argument("--last", type=int, default=DEFAULT_LAST, metavar="N", help="transcripts on the screen")
    parser.add_argument("--json", action="store_true", help="every message as one JSON object a line")
    parser.add_argument("--plain", action="store_true", help="lines, even in a terminal")
    parser.add_argument("--seconds", type=seconds, metavar="S", help="end after so long (default: at Ctrl-C)")
    add_settings_options(parser)


def run(args: argparse.Namespace) -> int:
    """Watch until Ctrl-C, SIGTERM or the time is over; 0 then."""
    if args.device is not None and not _DEVICE.fullmatch(args.device):
        raise ConfigError(f"--device {args.device}: an id has a-z, 0-9 and -, at most 36 characters")
    settings = load_from(
        args,
        mqtt__host=args.host,
        mqtt__port=args.port,
        mqtt__username=args.username,
        mqtt__password=args.password_file and password_from(args.password_file),
    ).settings

    mode = Mode.LINES if args.plain or not sys.stdout.isatty() else Mode.SCREEN
    stop = threading.Event()
    topic = f"edgescribe/v1/{args.device or '+'}/#"
    with (
        Subscriber(settings.mqtt, topic, identity.device_id(settings.device.id)) as subscriber,
        FleetViewer(Mode.JSON if args.json else mode, subscriber.address, max(1, args.last)) as viewer,
    ):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        until_s = time.monotonic() + (args.seconds or float("inf"))
        while not stop.is_set() and (remaining_s := until_s - time.monotonic()) > 0:
            viewer.tick(subscriber.overrun)
            if event := subscriber.event(min(POLL_S, remaining_s)):
                viewer.take(event)
    return 0
