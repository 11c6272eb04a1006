"""Lists the microphones of this machine, and the line for the settings.

Examples:
    edgescribe devices
    edgescribe devices --json
"""

import argparse
import json
from dataclasses import asdict

from agent.audio.libasound import capture_devices
from agent.config.toml import value
from agent.errors import DeviceUnavailable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("--json", action="store_true", help="a JSON list")


def run(args: argparse.Namespace) -> int:
    """List the capture devices; `DeviceUnavailable` (exit 69) if there are none."""
    devices = capture_devices()
    if args.json:
        print(json.dumps([asdict(device) for device in devices], indent=2))
    if not devices:
        raise DeviceUnavailable(
            "no microphone on this machine: plug one in, and see `arecord -l`; "
            "in a container, pass /dev/snd and /proc/asound through"
        )
    if not args.json:
        for device in devices:
            print(f"{device.pcm}\n    {device.description}")
        print(f"\nIn config.toml:\n\n    [source]\n    device = {value(devices[0].pcm)}")
    return 0
